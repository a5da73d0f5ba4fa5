"""The model that a search compresses, with the user's texts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median

from sparsekit.bench.models.problem import Calibration, HiddenState
from sparsekit.bench.report.subject import encoder_of
from sparsekit.checkpoint.transformers.foreign import check_model_folder
from sparsekit.choose.engines import BATCH
from sparsekit.choose.fidelity import prepare_scored
from sparsekit.choose.request import TASKS, Request
from sparsekit.choose.texts import Texts, split_texts
from sparsekit.choose.times.calls import Call
from sparsekit.choose.times.products import products_of
from sparsekit.recipes.data.splits import Splits, read_splits
from sparsekit.recipes.data.tables import read_rows
from sparsekit.recipes.job import Job
from sparsekit.recipes.resuming.run_identity import claim

#: Texts that static quantization calibrates on.
_CALIBRATION = 200


@dataclass(frozen=True)
class Subject:
    """A dense model and the data of a search.

    Attributes:
        request: what the search is asked for.
        texts: files to learn from and to select by.
        job: the dense model with its batches, those to select by as its test set.
        unseen: the dense model with the table that the search does not see as its test set; None without one.
    """

    request: Request
    texts: Texts
    job: Job
    unseen: Job | None

    @property
    def work(self) -> Path:
        """Folder of what a search that was stopped takes up again."""
        return self.request.out / "work"

    @cached_property
    def tokens(self) -> int:
        """Tokens of a text, the median."""
        lengths = [length for batch in self.job.train for length in batch["attention_mask"].sum(1).tolist()]
        return int(median(lengths))

    @property
    def calls(self) -> tuple[Call, Call]:
        """What times are predicted of: one text, and a batch."""
        return Call(1, self.tokens), Call(BATCH, self.tokens)

    def encoder(self) -> HiddenState:
        """The dense model without its head."""
        return HiddenState(encoder_of(self.job.given()))

    def calibration(self) -> Calibration:
        """Token ids of texts, for engines that quantize statically."""
        rows = [ids[mask.bool()] for batch in self.job.sample(_CALIBRATION)
                for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]  # fmt: skip
        return tuple(tuple(ids.tolist()) for ids in rows)


def open_subject(request: Request) -> Subject:
    """Read model and data, and claim the work folder for them.

    Raises:
        FileNotFoundError, ValueError: model, data or arguments do not fit, the engine does not run the model, or the
            work folder is of another search.
    """
    if request.task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {request.task!r}")
    check_model_folder(request.model)
    products_of(request.model)
    work = request.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    claim(work, request.recipe(request.settings), {"model": request.model, "data": request.data})
    texts = split_texts(request.data, request.task, request.settings, request.seed, work)
    recipe = request.recipe(texts.columns)
    splits = read_splits(recipe, texts.train, texts.selection, None)
    job = prepare_scored(recipe, request.model, splits, work)
    return Subject(request, texts, job, _unseen(request, job))


def _unseen(request: Request, job: Job) -> Job | None:
    if request.test is None:
        return None
    recipe = request.recipe(request.settings)
    splits = Splits(None, None, read_rows(request.test, *recipe.columns))
    return replace(prepare_scored(recipe, request.model, splits, job.out), model=job.model)  # one dense model
