"""Search for the compression to take: propose, train the best, measure them whole beside dense engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from sparsekit.choose.assignments.levels import FORMS
from sparsekit.choose.candidates import Candidate, dense_int8, spaced
from sparsekit.choose.clock import Clock
from sparsekit.choose.engines import BATCH
from sparsekit.choose.finishing import Made, Plan, Workshop, epoch_seconds, epochs_in, main_score, plan, worth_more
from sparsekit.choose.measuring import fastest_float32, points_of
from sparsekit.choose.page import write_search_page
from sparsekit.choose.points import Point, recommended
from sparsekit.choose.proposing import candidates_of
from sparsekit.choose.request import Request
from sparsekit.choose.subject import Subject, open_subject
from sparsekit.choose.telling import advice
from sparsekit.io.atomic_file import write_json
from sparsekit.io.untrusted import read_json
from sparsekit.runtime.environment import environment

#: Part of the time left to train candidates; the rest is for the one to take.
_TRAINING = 0.6
#: How many times longer than the others the last one learns at least; else it is left out.
_LONGER = 1.5
#: Seconds to measure everything whole, at the end.
_MEASURING = 120.0


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        points: models and engines, measured whole.
        dense: the fastest of those with dense float32 weights, of which speed-ups are told.
        chosen: the point to take.
        meets_targets: whether it keeps to all targets; else it is the nearest.
        advice: what to take, in two sentences.
        untrained: names of candidates for which there was no time.
        score: name of the points' score.
    """

    points: Sequence[Point]
    dense: Point
    chosen: Point
    meets_targets: bool
    advice: str
    untrained: Sequence[str]
    score: str

    @property
    def untrained_text(self) -> str:
        """What there was no time for, in a sentence; empty if there was time for all."""
        if not self.untrained:
            return ""
        return f"There was no time to train {'; '.join(self.untrained)}: give more --minutes."


def search(request: Request) -> Found:
    """Search, and write what was found to `request.out`.

    A search that was stopped goes on when it is started again with the same arguments: times, solutions, proposals and
    finished models are kept.

    Raises:
        FileNotFoundError, ValueError: model, data or arguments do not fit, or the engine does not run the model; raised
            before anything is measured.
        TimeoutError: the time was over before the layers were measured.
        OSError: `out` cannot be written.
    """
    clock = Clock(request.minutes)
    subject = open_subject(request)
    scores = subject.job.scores()
    score = next(iter(scores))
    dense = Made(Candidate("float32, dense", FORMS[0], ()), request.model, main_score(scores))
    candidates = candidates_of(subject, clock)
    made, untrained = _made(subject, candidates, dense, clock)
    points = points_of(subject, made)
    best = fastest_float32(points)
    chosen, meets_targets = recommended(points, best, request.targets)
    told = advice(points, best, chosen, meets_targets, request.targets, score)
    found = Found(points, best, chosen, meets_targets, told, untrained, score)
    _write(found, subject, clock)
    return found


def _made(subject: Subject, candidates: Sequence[Candidate], dense: Made, clock: Clock) -> tuple[list[Made], list[str]]:
    """The dense model, its int8, candidates trained for a short time, and one of them for the time that is left.

    Also the names of those that were not trained.
    """
    workshop = Workshop(subject)
    epoch = epoch_seconds(subject.job)
    planned = _plan(subject, epoch, len(candidates), clock)
    trained = spaced(candidates, planned.count)
    made = [dense, workshop.make(dense_int8(), 1, 0.0)]
    for candidate in trained:
        made.append(workshop.make(candidate, len(made), planned.epochs))
    chosen = worth_more(made, dense, subject.request.targets.loss)
    epochs = _epochs_left(subject, epoch, clock)
    if chosen is not None and epochs > _LONGER * planned.epochs:
        longer = replace(chosen.candidate, name=f"{chosen.candidate.name}, {epochs:g} epochs")
        made.append(workshop.make(longer, len(made), epochs))
    return made, [one.name for one in candidates if one not in trained]


def _epochs_left(subject: Subject, epoch: float, clock: Clock) -> float:
    """That one candidate may learn for; kept in the work folder, since a search that goes on has other time left."""
    kept = subject.work / "epochs.json"
    if not kept.exists():
        write_json(kept, epochs_in(clock.left - _MEASURING, epoch))
    return float(read_json(kept))


def _plan(subject: Subject, epoch: float, candidates: int, clock: Clock) -> Plan:
    """Kept in the work folder, as the epochs left."""
    kept = subject.work / "plan.json"
    if not kept.exists():
        write_json(kept, asdict(plan(_TRAINING * (clock.left - _MEASURING), epoch, candidates)))
    return Plan(**read_json(kept))


def _write(found: Found, subject: Subject, clock: Clock) -> None:
    request = subject.request
    report = {
        "task": request.task,
        "seed": request.seed,
        "score": found.score,
        "tokens": subject.tokens,
        "batch": BATCH,
        "threads": request.threads,
        "minutes": request.minutes,
        "seconds": round(clock.spent, 1),
        "targets": asdict(request.targets),
        "points": [asdict(point) for point in found.points],
        "dense": found.dense.name,
        "recommended": found.chosen.name,
        "meets_targets": found.meets_targets,
        "untrained": found.untrained,
        "environment": environment(),
    }
    write_json(request.out / "choose.json", report)
    headline = [text for text in (found.advice, found.untrained_text) if text]
    write_search_page(request, found.points, found.dense, found.chosen, found.score, headline)
