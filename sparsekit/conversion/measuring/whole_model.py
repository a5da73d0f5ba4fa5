"""Compare a converted model with its dense self on the user's batches: time, interleaved, and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from statistics import mean
from typing import Any, TypeAlias

from torch import nn

from sparsekit.conversion.measuring.one_thread import compare_on_one_thread
from sparsekit.conversion.report import WholeReport
from sparsekit.fidelity import Fidelity, FidelityMeter, evaluating, floats_in, fresh, tensors_in
from sparsekit.timing.comparing import compare

#: Seconds for both models, and at most while that is noisy. Where a round takes longer, two are enough: noise averages.
_SECONDS, _AT_MOST, _LEAST_ROUNDS = 0.5, 3.0, 2
#: Batches that are timed: the smallest, the largest and what lies between.
_TIMED = 3


#: A module's class, which fusing and padding change, and its own modules by name.
_Parts: TypeAlias = tuple[type[nn.Module], dict[str, nn.Module | None]]


def _parts(model: nn.Module) -> dict[nn.Module, _Parts]:
    """What every module of a model is made of."""
    return {module: (type(module), dict(module._modules)) for module in model.modules()}


def _put(parts: Mapping[nn.Module, _Parts]) -> None:
    for parent, (cls, modules) in parts.items():
        parent.__class__ = cls
        parent._modules.clear()
        parent._modules.update(modules)


class BothModels:
    """A model as it is now, and as it will be once some of its modules have been replaced.

    The replaced modules are kept, so both sets are in memory as long as this is.

    Args:
        model: before anything is replaced.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._before = _parts(model)
        self._after = self._before

    def replaced(self) -> bool:
        """Take the model as it is now for the new one; returns whether it is another."""
        after = _parts(self.model)
        self._after = {parent: parts for parent, parts in after.items() if parts != self._before.get(parent)}
        self._before = {parent: parts for parent, parts in self._before.items() if parent in self._after}
        return bool(self._before)

    def use_dense(self) -> None:
        """Put the old modules in."""
        _put(self._before)

    def use_converted(self) -> None:
        """Put the new modules in."""
        _put({parent: self._after[parent] for parent in self._before})

    def run_dense(self, batch: Mapping[str, Any]) -> Any:
        """The old model's outputs."""
        self.use_dense()
        return self.model(**fresh(batch))

    def run_converted(self, batch: Mapping[str, Any]) -> Any:
        """The new model's outputs."""
        self.use_converted()
        return self.model(**fresh(batch))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Have both models compute without dropout and without gradients."""
        self.use_dense()
        with evaluating(self.model):
            self.use_converted()
            with evaluating(self.model):
                yield

    @contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Leave the old model behind where the new one cannot run."""
        whole = False
        try:
            yield
            whole = True
        finally:
            self.use_converted() if whole else self.use_dense()


def _shape(batch: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of the largest of a batch's tensors."""
    shapes = [tuple(tensor.shape) for tensor in tensors_in(batch)]
    return max(shapes, key=prod, default=())


def _timed(batches: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Some of the batches, from the smallest to the largest."""
    ordered = sorted(batches, key=lambda batch: prod(_shape(batch)))
    last = len(ordered) - 1
    return [ordered[i] for i in sorted({last * part // (_TIMED - 1) for part in range(_TIMED)})]


def check_runs(model: nn.Module, batches: Sequence[Mapping[str, Any]]) -> None:
    """Run a model once before anything is changed.

    Raises:
        ValueError: it returns no floats. What the model itself raises on strange inputs is passed on.
    """
    with evaluating(model):
        if not floats_in(model(**fresh(batches[0]))):
            raise ValueError(
                "the model must return tensors of floats for batches; they are compared with its own later"
            )


def _fidelity(both: BothModels, batches: Sequence[Mapping[str, Any]]) -> Fidelity:
    """Of the converted model's outputs to those of the dense one, batch by batch."""
    meter = FidelityMeter()
    for batch in batches:
        meter.add(both.run_converted(batch), both.run_dense(batch), batch.get("attention_mask"))
    return meter.result()


def _functions(both: BothModels, batches: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Callable[[], Any]]]:
    """What runs the dense model and the converted one, each on every batch."""
    runs = {"dense": both.run_dense, "converted": both.run_converted}
    return {name: {f"{name} {i}": partial(run, batch) for i, batch in enumerate(batches)} for name, run in runs.items()}


def _report(both: BothModels, batches: Sequence[Mapping[str, Any]], found: Fidelity) -> WholeReport:
    """Time both; where the machine is too busy for that, on one thread."""
    functions = _functions(both, batches)
    every = {name: function for group in functions.values() for name, function in group.items()}
    timings = compare(every, seconds=_SECONDS, at_most=_AT_MOST, least_rounds=_LEAST_ROUNDS)
    noisy = any(timing.noisy for timing in timings.values())
    if noisy:
        timings = compare_on_one_thread(every, seconds=_SECONDS, at_most=_SECONDS, least_rounds=_LEAST_ROUNDS)
    dense, converted = (mean(timings[name].low for name in group) for group in functions.values())
    return WholeReport(tuple(map(_shape, batches)), dense, converted, noisy, found)


def compare_whole(both: BothModels, batches: Sequence[Mapping[str, Any]]) -> WholeReport:
    """Compare a converted model with its dense self: outputs on all batches, time on some of them.

    Where the converted model cannot run, the dense one is put back.

    Args:
        both: the two.
        batches: keyword arguments of the model's forward.
    """
    with both.undone_on_failure(), both.evaluating():
        return _report(both, _timed(batches), _fidelity(both, batches))
