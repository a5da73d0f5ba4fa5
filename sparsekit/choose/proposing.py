"""Find candidates: times of the model's layers, solutions, and assignments of every form."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

from sparsekit.choose.assignments.fitness import Divergence
from sparsekit.choose.assignments.levels import FORMS, Form
from sparsekit.choose.assignments.proposals import Proposal, RelativeTime, aims_of, propose, worth_training
from sparsekit.choose.candidates import Candidate, shallow, sparse
from sparsekit.choose.clock import Clock
from sparsekit.choose.solutions.finding import find_solutions
from sparsekit.choose.subject import Subject
from sparsekit.choose.times.model_times import ModelTimes, fit_whole
from sparsekit.choose.times.products import products_of
from sparsekit.choose.times.table import measure_times
from sparsekit.io.atomic_file import write_json
from sparsekit.io.untrusted import read_json
from sparsekit.progress import Progress
from sparsekit.recipes.data.batches import Batch, inputs_of

#: Part of the time left for assignments to evolve.
_PROPOSING = 0.25
#: Texts to find solutions on, and those that outputs are compared on: so many batches of so many.
_SAMPLES, _JUDGED, _TEXTS = 512, 16, 8


def _times(subject: Subject, deadline: float) -> ModelTimes:
    request, calls = subject.request, subject.calls
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


def _proposals(subject: Subject, clock: Clock) -> list[Proposal]:
    """Those of every form, kept in the work folder."""
    kept, job = subject.work / "proposals.json", subject.job
    if kept.exists():
        return [Proposal(**{**one, "form": Form(**one["form"])}) for one in read_json(kept)]
    times = _times(subject, clock.deadline(1.0))
    inputs = [inputs_of(batch) for batch in job.sample(_SAMPLES)]
    divergence = Divergence(job.model, subject.request.task, _pieces(inputs))
    relative = {form: RelativeTime(times, form, subject.calls) for form in FORMS}
    aims = aims_of(relative)
    found: list[Proposal] = []
    structures = list(dict.fromkeys(form.mask_structure for form, _ in aims))
    for number, structure in enumerate(structures):
        folder = subject.work / f"solutions-{structure}"
        solutions = find_solutions(job.model, folder, inputs, mask_structure=structure)
        chosen = [(form, level) for form, level in aims if form.mask_structure == structure]
        deadline = clock.deadline(_PROPOSING / (len(structures) - number))
        seed = subject.request.seed
        found += propose(job.model, solutions, divergence, relative, chosen, deadline=deadline, seed=seed)
    write_json(kept, [asdict(one) for one in found])
    return found


def _pieces(batches: Sequence[Batch]) -> list[Batch]:
    """Small batches, from all of them: evolution judges on few at first, which shall not be of one length."""
    chosen = [batches[number * len(batches) // _JUDGED] for number in range(min(_JUDGED, len(batches)))]
    return [{name: value[:_TEXTS] for name, value in batch.items()} for batch in chosen]


def candidates_of(subject: Subject, clock: Clock) -> list[Candidate]:
    """Sparse candidates that nothing beats in predicted time and divergence, slowest first, and shallower dense ones.

    Args:
        subject: the model and its texts.
        clock: of the search.
    """
    blocks = len(subject.job.transformer_blocks())
    fewer = sorted({max(1, round(blocks * part)) for part in (2 / 3, 1 / 2)} - {blocks})
    proposals = worth_training(_proposals(subject, clock))
    return [*(sparse(one.assignment, one.form, one.speedup) for one in proposals), *map(shallow, fewer)]
