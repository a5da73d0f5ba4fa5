"""Score a model in the engine, and the dense model in PyTorch, on the same texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from sparsekit import runtime
from sparsekit.bench.report.subject import Subject
from sparsekit.engine.compiled_file import TASKS
from sparsekit.engine.sentence_modules import read_modules
from sparsekit.io.file_names import CONFIG, RECIPE
from sparsekit.io.untrusted import read_object, regular_file
from sparsekit.recipes.job import Job
from sparsekit.recipes.report.confidence_intervals import METHOD, paired_differences
from sparsekit.recipes.run import scoring_job
from sparsekit.recipes.yaml_file import read_recipe
from sparsekit.report.facts import DENSE, OURS, Quality, Score
from sparsekit.wording import counted

#: Tasks of reports.
PAGE_TASKS = ("classification", "embedding")
#: Task -> unit of its predictions.
_ROWS = {"classification": "text", "embedding": "pair"}


class EngineOutputs(nn.Module):
    """Outputs of a model in the engine by name, like `NamedOutputs` for transformers models.

    Args:
        core: the model.
        output: "logits" or "embeddings".
    """

    def __init__(self, core: runtime.CompiledEncoder, output: str) -> None:
        super().__init__()
        self._core = core
        self._output = output

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Run padded token ids, int64, [batch, tokens]."""
        seen = attention_mask.bool()
        ids = input_ids[seen].numpy().astype(np.int32)
        types = None if token_type_ids is None or self._core.types < 2 else token_type_ids[seen].numpy()
        offsets = np.concatenate([[0], seen.sum(1).cumsum(0).numpy()])
        given = (ids, offsets, None if types is None else types.astype(np.int32))
        if self._output == "logits":
            return {"logits": torch.from_numpy(self._core.encode(*given))}
        states = torch.from_numpy(self._core.run(*given)).split(seen.sum(1).tolist())
        return {"embeddings": F.normalize(torch.stack([one.mean(0) for one in states]), dim=-1)}


def _config(folder: Path) -> dict[str, Any]:
    return read_object(regular_file(read_modules(folder).encoder, CONFIG))


def task_of(subject: Subject, dense: Path | None) -> str:
    """Task of a model: classification if it has a head for texts, else embedding."""
    if subject.core is not None and subject.folder is None:
        return "classification" if subject.core.task == TASKS["classification"] else "embedding"
    folder = subject.folder or dense
    classes = [] if folder is None else _config(folder).get("architectures") or []
    return "classification" if str(classes[:1]).endswith("ForSequenceClassification']") else "embedding"


def _check_labels(folder: Path | None, dense: Path | None) -> None:
    """Raise ValueError if two classifiers number their classes differently."""
    if folder is None or dense is None:
        return
    names = [_config(path).get("id2label") for path in (folder, dense)]
    if names[0] != names[1]:
        raise ValueError(f"{folder} and {dense} must have the same classes in config.json, got {names[0]!s:.200} and "
                         f"{names[1]!s:.200}")  # fmt: skip


def _predictions(job: Job, subject: Subject) -> tuple[NDArray[Any] | None, str]:
    """Predictions of the model, and where it ran."""
    core = subject.core
    if core is None:
        return job.predictions(), "PyTorch"
    if job.task.output == "logits" and core.task != TASKS["classification"]:
        raise ValueError(f"{subject.path} has no head for texts in sparsekit.engine; score it with --task embedding")
    with torch.inference_mode():
        return job.task.predictions(EngineOutputs(core, job.task.output), job.test), "sparsekit.engine"


def _scores(model: str, found: Mapping[str, Any]) -> list[Score]:
    ends = found.get("intervals", {})
    return [
        Score(metric, model, value, tuple(ends[metric]) if metric in ends else None)
        for metric, value in found.items()
        if metric != "intervals"
    ]


def _tokens_of(subject: Subject) -> int | None:
    """Of texts in the recipe that made the model; None without one."""
    path = None if subject.folder is None else subject.folder / RECIPE
    if path is None or not path.is_file():
        return None
    try:
        return read_recipe(path).data.max_tokens
    except ValueError:  # `save` takes any text as recipe
        return None


def measured_quality(
    subject: Subject, dense: Path | None, test: Path, task: str, max_tokens: int | None = None
) -> Quality:
    """Score a model, and the dense model if given, on a table.

    Args:
        subject: the model; a compiled file is read with the tokenizer of the dense model.
        dense: folder of the dense model.
        test: a table as `sparsekit.evaluate` reads it.
        task: one of `PAGE_TASKS`.
        max_tokens: longer texts are truncated; None: as in the recipe that made the model, else as in recipes.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: model, task and table do not fit each other; a compiled file comes without a dense model.
    """
    folder = subject.folder or dense
    if folder is None:
        raise ValueError(f"{subject.path} is a compiled file, which has no tokenizer: --dense gives one, or score the "
                         "folder that it was made of")  # fmt: skip
    if task == "classification":
        _check_labels(subject.folder, dense)
    max_tokens = max_tokens or _tokens_of(subject)
    job = scoring_job(folder, test, task, max_tokens)
    ours, place = _predictions(job, subject)
    scores, differences = _scores(OURS, job.scores_of(ours)), {}
    remark = f"{counted(0 if ours is None else len(ours), _ROWS[task])} of {test.name}, at most "
    remark += (
        f"{counted(job.recipe.data.max_tokens, 'token')} of each text (--max-tokens). This model was scored in {place}"
    )
    if dense is not None and ours is not None:
        other = scoring_job(dense, test, task, max_tokens)
        before = other.predictions()
        scores = [*_scores(DENSE, other.scores_of(before)), *scores]
        if before is not None:
            found = paired_differences(job.task, before, ours)
            differences = {metric: (value, (ends[0], ends[1])) for metric, (value, ends) in found.items()}
        remark += ", the dense one in PyTorch"
    return Quality(scores, differences, METHOD, [f"{remark}."])
