"""Search for the compression to take: propose, train the best, measure them whole beside dense engines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from sparsekit.bench.models.problem import Calibration, HiddenState
from sparsekit.checkpoint.transformers.foreign import check_model_folder
from sparsekit.choose.assignments.fitness import Divergence
from sparsekit.choose.assignments.levels import FORMS, Form
from sparsekit.choose.assignments.proposals import Proposal, RelativeTime, propose, worth_training
from sparsekit.choose.candidates import Candidate, dense_int8, shallow, spaced, sparse
from sparsekit.choose.clock import Clock
from sparsekit.choose.engines import BATCH, Race, installed_engines
from sparsekit.choose.finishing import Made, Plan, Workshop, epoch_seconds, epochs_in, main_score, plan, worth_more
from sparsekit.choose.points import Point, Score, recommended
from sparsekit.choose.request import TASKS, Request
from sparsekit.choose.solutions.finding import find_solutions
from sparsekit.choose.telling import draw
from sparsekit.choose.texts import Texts, split_texts
from sparsekit.choose.times.calls import Call
from sparsekit.choose.times.model_times import ModelTimes, fit_whole
from sparsekit.choose.times.products import products_of
from sparsekit.choose.times.table import measure_times
from sparsekit.engine import compile_model
from sparsekit.io.atomic_file import write_json
from sparsekit.io.untrusted import read_json
from sparsekit.progress import Progress
from sparsekit.recipes.data.batches import Batch, inputs_of
from sparsekit.recipes.data.splits import Splits, read_splits
from sparsekit.recipes.data.tables import read_rows
from sparsekit.recipes.job import Job
from sparsekit.recipes.preparation import prepare
from sparsekit.recipes.resuming.run_identity import claim
from sparsekit.runtime.environment import environment

#: Parts of the time left: for proposals, and, behind them, for training candidates; the rest is for the one to take.
_PROPOSING, _TRAINING = 0.25, 0.6
#: Texts to find solutions on, and those that outputs are compared on: so many batches of so many.
_SAMPLES, _JUDGED, _TEXTS = 512, 16, 8
#: Texts that static quantization calibrates on.
_CALIBRATION = 200
#: How many times longer than the others the last one learns at least; else it is left out.
_LONGER = 1.5
#: Seconds to measure everything whole, at the end.
_MEASURING = 120.0


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        points: models and engines, measured whole.
        dense: the fastest dense engine in float32, of which speed-ups are told.
        chosen: the point to take.
        meets_targets: whether it keeps to all targets; else it is the nearest.
    """

    points: Sequence[Point]
    dense: Point
    chosen: Point
    meets_targets: bool


def search(request: Request) -> Found:
    """Search, and write what was found to `request.out`.

    A search that was stopped goes on when it is started again with the same arguments: times, solutions, proposals and
    finished models are kept.

    Raises:
        FileNotFoundError, ValueError: model, data or arguments do not fit, or the engine does not run the model; raised
            before anything is measured.
        OSError: `out` cannot be written.
    """
    _check(request)
    clock = Clock(request.minutes)
    texts, job = _prepared(request)
    scores = job.scores()
    score = next(iter(scores))
    dense = Made(Candidate("float32, dense", FORMS[0], ()), request.model, 0.0, main_score(scores))
    made = _made(request, texts, job, dense, clock)
    race = Race(_encoder(job), _tokens(job), request.threads, _calibration(job), installed_engines())
    points = _points(request, made, race)
    return _written(request, points, race, score, clock)


def _check(request: Request) -> None:
    if request.task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {request.task!r}")
    check_model_folder(request.model)
    products_of(request.model)


def _prepared(request: Request) -> tuple[Texts, Job]:
    work = request.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    claim(work, request.recipe(request.settings), {"model": request.model, "data": request.data})
    texts = split_texts(request.data, request.task, request.settings, request.seed, work)
    recipe = request.recipe(texts.columns)
    return texts, prepare(recipe, request.model, read_splits(recipe, texts.train, texts.selection, None), work)


def _tokens(job: Job) -> int:
    """Of a usual text: the median."""
    lengths = [length for batch in job.train for length in batch["attention_mask"].sum(1).tolist()]
    return int(median(lengths))


def _calls(job: Job) -> tuple[Call, Call]:
    tokens = _tokens(job)
    return Call(1, tokens), Call(BATCH, tokens)


def _encoder(job: Job) -> HiddenState:
    return HiddenState(job.given().base_model)


def _calibration(job: Job) -> Calibration:
    rows = [ids[mask.bool()] for batch in job.sample(_CALIBRATION)
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]  # fmt: skip
    return tuple(tuple(ids.tolist()) for ids in rows)


def _times(request: Request, calls: Sequence[Call], deadline: float) -> ModelTimes:
    products = products_of(request.model)
    with ExitStack() as stack:
        shown: list[Progress[str]] = []

        def done(count: int, total: int) -> None:
            if not shown:
                bar = Progress[str](title="measure layers", unit="times", total=total, initial=count)
                shown.append(stack.enter_context(bar))
            else:
                shown[0].update()

        table = measure_times(products, FORMS, calls, threads=request.threads, progress=done, deadline=deadline)
    return ModelTimes(table, fit_whole(request.model, table, [form.dtype for form in FORMS], calls))


def _proposals(request: Request, job: Job, calls: Sequence[Call], clock: Clock) -> list[Proposal]:
    """Those of every form, kept in the work folder."""
    kept = request.out / "work" / "proposals.json"
    if kept.exists():
        return [Proposal(**{**one, "form": Form(**one["form"])}) for one in read_json(kept)]
    times = _times(request, calls, clock.deadline(1.0))
    inputs = [inputs_of(batch) for batch in job.sample(_SAMPLES)]
    divergence = Divergence(job.model, request.task, _pieces(inputs))
    found: list[Proposal] = []
    structures = list(dict.fromkeys(form.mask_structure for form in FORMS))
    for number, structure in enumerate(structures):
        folder = request.out / "work" / f"solutions-{structure}"
        solutions = find_solutions(job.model, folder, inputs, mask_structure=structure)
        forms = {form: RelativeTime(times, form, calls) for form in FORMS if form.mask_structure == structure}
        deadline = clock.deadline(_PROPOSING / (len(structures) - number))
        found += propose(job.model, solutions, divergence, forms, deadline=deadline, seed=request.seed)
    write_json(kept, [asdict(one) for one in found])
    return found


def _pieces(batches: Sequence[Batch]) -> list[Batch]:
    """Small batches, from all of them: evolution judges on few at first, which shall not be of one length."""
    chosen = [batches[number * len(batches) // _JUDGED] for number in range(min(_JUDGED, len(batches)))]
    return [{name: value[:_TEXTS] for name, value in batch.items()} for batch in chosen]


def _candidates(request: Request, job: Job, calls: Sequence[Call], clock: Clock) -> list[Candidate]:
    """Sparse ones that nothing beats, and shallower dense ones."""
    blocks = len(job.transformer_blocks())
    fewer = sorted({max(1, round(blocks * part)) for part in (2 / 3, 1 / 2)} - {blocks})
    proposals = worth_training(_proposals(request, job, calls, clock))
    return [*(sparse(one.assignment, one.form, one.speedup) for one in proposals), *map(shallow, fewer)]


def _made(request: Request, texts: Texts, job: Job, dense: Made, clock: Clock) -> list[Made]:
    """The dense model, its int8, candidates trained for a short time, and one of them for the time that is left."""
    workshop = Workshop(request.model, request.task, texts, request.out, request.seed)
    candidates = _candidates(request, job, _calls(job), clock)
    epoch = epoch_seconds(job)
    planned = _plan(request, epoch, candidates, clock)
    made = [dense, workshop.make(dense_int8(), 1, 0.0)]
    for candidate in spaced(candidates, planned.count):
        made.append(workshop.make(candidate, len(made), planned.epochs))
    chosen = worth_more(made, dense, request.targets.loss)
    epochs = _epochs_left(request, epoch, clock)
    if chosen is not None and epochs > _LONGER * planned.epochs:
        longer = replace(chosen.candidate, name=f"{chosen.candidate.name}, {epochs:g} epochs")
        made.append(workshop.make(longer, len(made), epochs))
    return made


def _epochs_left(request: Request, epoch: float, clock: Clock) -> float:
    """That one candidate may learn for; kept in the work folder, since a search that goes on has other time left."""
    kept = request.out / "work" / "epochs.json"
    if not kept.exists():
        write_json(kept, epochs_in(clock.left - _MEASURING, epoch))
    return float(read_json(kept))


def _plan(request: Request, epoch: float, candidates: Sequence[Candidate], clock: Clock) -> Plan:
    """Kept in the work folder, as the epochs left."""
    kept = request.out / "work" / "plan.json"
    if kept.exists():
        return Plan(**read_json(kept))
    found = plan(_TRAINING * (clock.left - _MEASURING), epoch, len(candidates))
    write_json(kept, asdict(found))
    return found


def _unseen(request: Request, folder: Path) -> Score | None:
    if request.test is None:
        return None
    recipe = request.recipe(request.settings)
    columns = recipe.data
    label = columns.label or ("label" if request.task == "classification" else None)
    rows = read_rows(request.test, columns.text, columns.pair, label)
    scores = prepare(recipe, folder, Splits(None, None, rows), request.out / "work").scores()
    name = next(iter(scores))
    interval = scores["intervals"].get(name)
    return Score(float(scores[name]), None if interval is None else (interval[0], interval[1]))


def _points(request: Request, made: Sequence[Made], race: Race) -> list[Point]:
    compiled = {one.candidate.name: compile_model(one.folder, measure=True) for one in made}
    speeds = race.run(compiled)
    dense = made[0]
    unseen = {one.candidate.name: _unseen(request, one.folder) for one in made}
    points = [
        Point(engine, engine, dense.quality if "int8" not in engine else None, None, **asdict(speeds[engine]),
              disk_bytes=_weight_bytes(request.model), memory_bytes=None)
        for engine in race.engines
    ]  # fmt: skip
    for number, one in enumerate(made):
        name = one.candidate.name
        nbytes = compiled[name].nbytes
        recipe = f"recipes/{number}.yaml" if number else None
        points.append(Point(name, "sparsekit-engine", one.quality, unseen[name], **asdict(speeds[name]),
                            disk_bytes=nbytes, memory_bytes=nbytes, recipe=recipe))  # fmt: skip
    return points


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def fastest_float32(points: Sequence[Point]) -> Point:
    """The dense engine in float32 that all are compared with: the one with the least time of one text and a batch."""
    dense = [point for point in points if point.recipe is None and "int8" not in point.engine]
    return min(dense, key=lambda point: point.one_text_ms / point.texts_per_second)


def _written(request: Request, points: Sequence[Point], race: Race, score: str, clock: Clock) -> Found:
    dense = fastest_float32(points)
    chosen, meets_targets = recommended(points, dense, request.targets)
    report = {
        "task": request.task,
        "seed": request.seed,
        "score": score,
        "tokens": race.tokens,
        "batch": BATCH,
        "threads": request.threads,
        "minutes": request.minutes,
        "seconds": round(clock.spent, 1),
        "targets": asdict(request.targets),
        "points": [asdict(point) for point in points],
        "dense": dense.name,
        "recommended": chosen.name,
        "meets_targets": meets_targets,
        "environment": environment(),
    }
    write_json(request.out / "choose.json", report)
    draw(points, dense, score, request.out / "frontier.png")
    return Found(points, dense, chosen, meets_targets)
