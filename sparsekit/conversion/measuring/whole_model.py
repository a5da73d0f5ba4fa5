"""Compare a converted model with the dense model on the user's batches: time, interleaved, and outputs."""

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

#: Seconds for both models, and the limit while timings are noisy. Two rounds are enough if each takes longer.
_SECONDS, _AT_MOST, _LEAST_ROUNDS = 0.5, 3.0, 2
#: Number of batches to time: the smallest, the largest and some between.
_TIMED = 3


#: A module's class, which fusion and padding may change, and its children by name.
_Parts: TypeAlias = tuple[type[nn.Module], dict[str, nn.Module | None]]


def _parts(model: nn.Module) -> dict[nn.Module, _Parts]:
    """Class and children of every module in a model."""
    return {module: (type(module), dict(module._modules)) for module in model.modules()}


def _put(parts: Mapping[nn.Module, _Parts]) -> None:
    for parent, (cls, modules) in parts.items():
        parent.__class__ = cls
        parent._modules.clear()
        parent._modules.update(modules)


class BothModels:
    """A model before and after some of its modules are replaced.

    Both sets of modules stay in memory as long as this object.

    Args:
        model: the model, before anything is replaced.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._before = _parts(model)
        self._after = self._before

    def replaced(self) -> bool:
        """Record the model's current state as the converted one; return whether anything was replaced."""
        after = _parts(self.model)
        self._after = {parent: parts for parent, parts in after.items() if parts != self._before.get(parent)}
        self._before = {parent: parts for parent, parts in self._before.items() if parent in self._after}
        return bool(self._before)

    def use_dense(self) -> None:
        """Restore the dense modules."""
        _put(self._before)

    def use_converted(self) -> None:
        """Restore the converted modules."""
        _put({parent: self._after[parent] for parent in self._before})

    def run_dense(self, batch: Mapping[str, Any]) -> Any:
        """Outputs of the dense model."""
        self.use_dense()
        return self.model(**fresh(batch))

    def run_converted(self, batch: Mapping[str, Any]) -> Any:
        """Outputs of the converted model."""
        self.use_converted()
        return self.model(**fresh(batch))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Run both models in eval mode, without gradients."""
        self.use_dense()
        with evaluating(self.model):
            self.use_converted()
            with evaluating(self.model):
                yield

    @contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Restore the dense model if the converted one cannot run."""
        whole = False
        try:
            yield
            whole = True
        finally:
            self.use_converted() if whole else self.use_dense()


def _shape(batch: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of a batch's largest tensor."""
    shapes = [tuple(tensor.shape) for tensor in tensors_in(batch)]
    return max(shapes, key=prod, default=())


def _timed(batches: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Batches to time, from the smallest to the largest."""
    ordered = sorted(batches, key=lambda batch: prod(_shape(batch)))
    last = len(ordered) - 1
    return [ordered[i] for i in sorted({last * part // (_TIMED - 1) for part in range(_TIMED)})]


def check_runs(model: nn.Module, batches: Sequence[Mapping[str, Any]]) -> None:
    """Run the dense model once, before anything is changed.

    Raises:
        ValueError: it returns no floats. The model's own exceptions are passed on.
    """
    with evaluating(model):
        if not floats_in(model(**fresh(batches[0]))):
            raise ValueError(
                "the model must return tensors of floats for batches; they are compared with its own later"
            )


def _fidelity(both: BothModels, batches: Sequence[Mapping[str, Any]]) -> Fidelity:
    """Fidelity of the converted model's outputs to the dense model's."""
    meter = FidelityMeter()
    for batch in batches:
        meter.add(both.run_converted(batch), both.run_dense(batch), batch.get("attention_mask"))
    return meter.result()


def _functions(both: BothModels, batches: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Callable[[], Any]]]:
    """Functions that run the dense and the converted model on every batch."""
    runs = {"dense": both.run_dense, "converted": both.run_converted}
    return {name: {f"{name} {i}": partial(run, batch) for i, batch in enumerate(batches)} for name, run in runs.items()}


def _report(both: BothModels, batches: Sequence[Mapping[str, Any]], found: Fidelity) -> WholeReport:
    """Time both models; on one thread if the machine is too busy."""
    functions = _functions(both, batches)
    every = {name: function for group in functions.values() for name, function in group.items()}
    timings = compare(every, seconds=_SECONDS, at_most=_AT_MOST, least_rounds=_LEAST_ROUNDS)
    noisy = any(timing.noisy for timing in timings.values())
    if noisy:
        timings = compare_on_one_thread(every, seconds=_SECONDS, at_most=_SECONDS, least_rounds=_LEAST_ROUNDS)
    dense, converted = (mean(timings[name].low for name in group) for group in functions.values())
    return WholeReport(tuple(map(_shape, batches)), dense, converted, noisy, found)


def compare_whole(both: BothModels, batches: Sequence[Mapping[str, Any]]) -> WholeReport:
    """Compare a converted model with the dense model: outputs on all batches, time on some.

    If the converted model cannot run, the dense one is restored.

    Args:
        both: the two models.
        batches: keyword arguments of the model's forward.
    """
    with both.undone_on_failure(), both.evaluating():
        return _report(both, _timed(batches), _fidelity(both, batches))
