"""Compare the compressed model with the dense one: quality, speed on this machine, and size."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from sparsekit.checkpoint.verification.outputs import answers
from sparsekit.progress import tell
from sparsekit.pruning import finalize
from sparsekit.recipes.data.batches import Batch, inputs_of
from sparsekit.recipes.job import Job
from sparsekit.recipes.report.confidence_intervals import METHOD, paired_differences
from sparsekit.recipes.report.sizes import disk_bytes, memory_bytes
from sparsekit.recipes.report.text import model_after
from sparsekit.recipes.resuming.finished_stages import dense_folder, dense_model
from sparsekit.recipes.tasks.embedding import PairSet
from sparsekit.timing.comparing import Timing, compare

#: Seconds to time one text, and the same for a batch; slow models take longer.
_SECONDS = 2.0
#: Batches are made smaller if they would take more seconds than this.
_LONGEST = 5.0
#: Size of the inputs that are saved with the model.
_TEXTS, _TOKENS = 2, 16


def _middle(job: Job) -> Batch:
    """A batch of texts of median length."""
    test = job.test.first if isinstance(job.test, PairSet) else job.test
    batches = test or job.train
    return inputs_of(batches[len(batches) // 2])


def _first(batch: Batch, texts: int) -> Batch:
    return {name: value[:texts] for name, value in batch.items()}


def verify_inputs(job: Job) -> Batch | None:
    """Two short texts for `verify` to compare outputs on; None if the model's outputs are not finite."""
    inputs = {name: value[:_TEXTS, :_TOKENS].clone() for name, value in _middle(job).items()}
    try:
        answers(job.model, inputs)
    except ValueError:
        return None
    return inputs


def _timed(models: Mapping[str, nn.Module], batch: Batch) -> dict[str, Timing]:
    functions = {name: partial(model, **batch) for name, model in models.items()}
    with torch.inference_mode():
        return compare(functions, seconds=_SECONDS)


def _speed(job: Job, models: Mapping[str, nn.Module]) -> tuple[int, dict[str, dict[str, Any]]]:
    """Texts per batch, and for every model the latency of one text and texts per second, measured interleaved."""
    batch = _middle(job)
    one = _timed(models, _first(batch, 1))
    slowest = max(timing.median for timing in one.values())
    size = max(1, min(len(batch["input_ids"]), int(_LONGEST / slowest)))
    many = _timed(models, _first(batch, size))
    found = {
        name: {
            "one_text_ms": 1000 * one[name].median,
            "texts_per_second": size / many[name].median,
            "noisy": one[name].noisy or many[name].noisy,
        }
        for name in models
    }
    return size, found


def _sizes(folder: Path, model: nn.Module) -> dict[str, float]:
    return {"folder_mb": disk_bytes(folder) / 1e6, "memory_mb": memory_bytes(model) / 1e6}


def _score(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The main score and its interval."""
    name = next(iter(scores), None)
    if name is None:
        return {}
    ends = scores["intervals"].get(name)
    return {"score": scores[name], **({} if ends is None else {"interval": ends})}


def _between(job: Job) -> list[dict[str, Any]]:
    """Rows of the evaluate stages, except those of the dense and the final model."""
    rows: list[dict[str, Any]] = []
    known = (model_after(job.rows), model_after(job.rows[: job.dense_after or 0]))
    for number, row in enumerate(job.rows):
        name = model_after(job.rows[:number])
        if "intervals" in row and name not in known:
            scores = {key: value for key, value in row.items() if key not in ("stage", "seconds")}
            rows.append({"name": name, **_score(scores)})
    return rows


def _difference(job: Job, dense: NDArray[Any] | None, predictions: NDArray[Any] | None) -> dict[str, Any]:
    """Paired difference of the main score from the dense model's."""
    if dense is None or predictions is None:
        return {}
    found = next(iter(paired_differences(job.task, dense, predictions).values()), None)
    return {} if found is None else {"difference": {"value": found[0], "interval": found[1]}}


def compare_with_dense(job: Job, predictions: NDArray[Any] | None, given: Path) -> dict[str, Any]:
    """Measure the compressed model and, if any stage compressed it, the dense one.

    Args:
        job: the finished job, its model on the CPU and saved.
        predictions: predictions of the final model on the test data; None without test data.
        given: folder of the original model.

    Returns:
        Plain values for `comparison_table`.
    """
    name, scores = model_after(job.rows), job.scores_of(predictions)
    models: dict[str, nn.Module] = {name: job.model}
    sizes, found = {name: _sizes(job.out, job.model)}, {name: _score(scores)}
    difference: dict[str, Any] = {}
    if job.dense_after is not None:
        dense = finalize(dense_model(job).cpu().eval())
        tell("score and time the dense model beside it")
        models = {"dense": dense, **models}
        sizes["dense"] = _sizes(dense_folder(job, given), dense)
        before = job.predictions(dense)
        found["dense"] = _score(job.scores_of(before))
        difference = _difference(job, before, predictions)
    size, speed = _speed(job, models)
    rows = [{"name": key, **found[key], **speed[key], **sizes[key]} for key in models]
    return {
        "score": next(iter(scores), None),
        "interval": METHOD,
        "test_rows": 0 if predictions is None else len(predictions),
        "texts_in_a_batch": size,
        "tokens_of_a_text": _middle(job)["input_ids"].shape[1],
        "threads": torch.get_num_threads(),
        "rows": [*rows[:-1], *_between(job), rows[-1]],
        **difference,
    }
