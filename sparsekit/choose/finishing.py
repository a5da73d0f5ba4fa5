"""Make candidates: run their recipes, as long as the time allows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparsekit.choose.candidates import Candidate
from sparsekit.choose.subject import Subject
from sparsekit.io.atomic_file import write_atomically
from sparsekit.io.untrusted import read_object
from sparsekit.recipes import Recipe, compress
from sparsekit.recipes.data.batches import inputs_of
from sparsekit.recipes.job import Job

#: Forward passes that a training step takes: its own, the gradients, and the teacher's.
_PASSES = 4
#: Batches that are timed to tell how long an epoch takes.
_TIMED = 4
#: Seconds of a candidate beside its training: pruning, scoring, timing, storing.
_BESIDE = 45.0
#: Fewest and most passes over the texts, and most candidates that are trained.
_LEAST_EPOCHS, _MOST_EPOCHS, _MOST = 0.5, 5.0, 8


@dataclass(frozen=True)
class Made:
    """A candidate that was made.

    Attributes:
        candidate: it.
        folder: its model.
        quality: its main score on the texts to select by.
    """

    candidate: Candidate
    folder: Path
    quality: float | None


@dataclass(frozen=True)
class Plan:
    """How many candidates are trained, and for how many epochs.

    Attributes:
        count: of the candidates.
        epochs: of each.
    """

    count: int
    epochs: float


def epoch_seconds(job: Job) -> float:
    """About how long a pass over the texts takes to distill."""
    batches = job.train[:: max(1, len(job.train) // _TIMED)][:_TIMED]
    with torch.inference_mode():
        job.model(**inputs_of(batches[0]))
        start = time.perf_counter()
        for batch in batches:
            job.model(**inputs_of(batch))
    return _PASSES * len(job.train) * (time.perf_counter() - start) / len(batches)


def plan(seconds: float, epoch: float, candidates: int) -> Plan:
    """Share time between candidates: rather many with half an epoch each than few that learn long.

    Args:
        seconds: for all of them.
        epoch: seconds of one.
        candidates: how many there are.

    Returns:
        At least one candidate.
    """
    fitting = int(seconds / (_BESIDE + _LEAST_EPOCHS * epoch))
    count = max(1, min(candidates, fitting, _MOST))
    epochs = (seconds / count - _BESIDE) / epoch
    return Plan(count, round(min(_MOST_EPOCHS, max(_LEAST_EPOCHS, epochs)), 2))


def epochs_in(seconds: float, epoch: float) -> float:
    """Epochs that one candidate may learn for in some time, at most three times those of many; 0 if there is none.

    Args:
        seconds: for it.
        epoch: seconds of one.
    """
    return round(min(3 * _MOST_EPOCHS, max(0.0, (seconds - _BESIDE) / epoch)), 2)


def worth_more(made: Sequence[Made], dense: Made, loss: float) -> Made | None:
    """The candidate that is to learn for longer, after which it may lose less.

    Args:
        made: candidates with a score.
        dense: the dense model.
        loss: part of its score that may be lost.

    Returns:
        The fastest, as predicted, that lost at most twice as much, else the one that lost least; None if there is none.
    """
    scored = [one for one in made if one.quality is not None and one.candidate.predicted is not None]
    least = (dense.quality or 0.0) * (1.0 - 2.0 * loss)
    near = [one for one in scored if (one.quality or 0.0) >= least]
    if near:
        return max(near, key=lambda one: one.candidate.predicted or 0.0)
    return max(scored, key=lambda one: one.quality or 0.0, default=None)


class Workshop:
    """Runs the recipes of candidates.

    Args:
        subject: the dense model and its texts.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def make(self, candidate: Candidate, number: int, epochs: float) -> Made:
        """Make a candidate, or take up the run that was stopped, or what it left.

        Args:
            candidate: it.
            number: of its folders and files, from 1.
            epochs: to distill.
        """
        request, texts = self._subject.request, self._subject.texts
        recipe = candidate.recipe(request.task, texts.columns, epochs, request.seed)
        folder = request.out / "models" / f"{number}"
        path = request.out / "recipes" / f"{number}.yaml"
        report = _finished(folder, path, recipe)
        if report is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda temporary: temporary.write_text(recipe.to_yaml()))
            report = compress(request.model, recipe, texts.train, folder, test=texts.test)
            shutil.rmtree(folder / "work")
        scores = report["scores"] if texts.test is not None else self._subject.job.scores_in(folder)
        return Made(candidate, folder, main_score(scores))


def _finished(folder: Path, path: Path, recipe: Recipe) -> dict[str, Any] | None:
    """The report of a run of this recipe that ended; None if there is none."""
    stored = folder / "report.json"
    if not (stored.exists() and path.exists() and path.read_text() == recipe.to_yaml()):
        return None
    return read_object(stored)


def main_score(scores: Mapping[str, Any]) -> float | None:
    """The first of some scores."""
    return next((float(value) for name, value in scores.items() if name != "intervals"), None)
