"""Run a model on a tiny input, to check its outputs after surgery."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from sparsekit.surgery.failures import failures
from sparsekit.surgery.inputs import tiny_inputs, transformers_parts
from sparsekit.surgery.undo import configs_of

#: Largest difference between two ways to compute the same outputs, relative to their norm.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
_HALF_ROUNDING = 0.1
_EFFECT = 0.01  # fraction of the change caused by the removal; far above rounding and far below a mistake


@contextmanager
def _at_rest(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode, without caches, gradients or randomness; restore its state afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    caching = [config for config in configs_of(model) if getattr(config, "use_cache", None)]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for config in caching:
            config.use_cache = False
        model.eval()
        try:
            yield
        finally:
            for config in caching:
                config.use_cache = True
            for module, mode in modes:
                module.training = mode


def _tensors(output: Any) -> list[torch.Tensor]:
    """The floating-point tensors of an output, except nested ones, such as one for each transformer block."""
    values = output.values() if isinstance(output, Mapping) else output
    values = values if isinstance(output, Mapping | tuple | list) else [output]
    return [value for value in values if isinstance(value, torch.Tensor) and value.is_floating_point()]


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    return math.sqrt(sum(tensor.double().square().sum().item() for tensor in tensors))


def _distance(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    return _norm([(a.double() - b.double()).nan_to_num() for a, b in zip(one, other, strict=True)])


Run = Callable[[nn.Module], Any]


def _first_of(batch: Any) -> Any:
    """The first example of a batch, if all entries have a batch dimension."""
    if not isinstance(batch, Mapping) or not all(isinstance(value, torch.Tensor) for value in batch.values()):
        return batch
    sizes = {value.shape[0] if value.dim() else 0 for value in batch.values()}
    return {name: value[:1] for name, value in batch.items()} if len(sizes) == 1 and min(sizes) > 0 else batch


def _plain_input(model: nn.Module) -> torch.Tensor | None:
    """An input for an `nn.Sequential` that starts with a linear layer."""
    first = next(iter(model), None) if isinstance(model, nn.Sequential) else None
    if not isinstance(first, nn.Linear):
        return None
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, first.in_features, generator=generator).to(first.weight)


def _call_part(name: str, inputs: Mapping[str, torch.Tensor]) -> Run:
    return lambda model: model.get_submodule(name)(**inputs)


def _runs(model: nn.Module, batches: Sequence[Any], loss: Any) -> Iterator[list[Run]]:
    """Ways to run a model, the most reliable first; each is a list of calls."""
    if len(batches):
        batch = batches[0]
        one = _first_of(batch)
        if isinstance(batch, Mapping):
            yield [lambda model: model(**one)]
        if loss is not None:
            yield [lambda model: loss(model, batch)]
    made = [(name, tiny_inputs(model.get_submodule(name))) for name in transformers_parts(model)]
    if made and all(inputs is not None for _, inputs in made):
        yield [_call_part(name, inputs) for name, inputs in made if inputs is not None]
    plain = _plain_input(model)
    if plain is not None:
        yield [lambda model: model(plain)]


class Trial:
    """A tiny input that a model runs on, and its outputs.

    Args:
        model: the model before the change.
        batches: calibration batches of the caller; the first example of the first one is used if possible.
        loss: function of model and batch, for batches that are not keyword arguments of the model.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Any] = (), loss: Any = None) -> None:
        self._calls: list[Run] = []
        self._dense: list[torch.Tensor] = []
        for calls in _runs(model, batches, loss):
            try:
                self._dense = _outputs(model, calls)
            except failures():
                continue
            if self._dense:
                self._calls = calls
                return

    @property
    def runs(self) -> bool:
        """Whether an input was found that the model can run on."""
        return bool(self._calls)

    def outputs(self, model: nn.Module) -> list[torch.Tensor]:
        """A model's outputs on the input."""
        return _outputs(model, self._calls)

    def check(self, model: nn.Module, expected: Sequence[torch.Tensor] | None, what: str) -> None:
        """Refuse a changed model that cannot run, or whose outputs are wrong.

        Args:
            model: the changed model.
            expected: the outputs that it must produce; None: any.
            what: the change, for the message.

        Raises:
            ValueError: the model fails the check.
        """
        if not self.runs:
            return
        try:
            found = self.outputs(model)
        except failures() as error:
            raise ValueError(
                f"{type(model).__name__} cannot run {what}: its code raised {type(error).__name__}: "
                f"{' '.join(str(error).split())[:300]}; nothing was changed"
            ) from error
        if expected is not None:
            self._compare(model, expected, found, what)

    def _compare(
        self, model: nn.Module, expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor], what: str
    ) -> None:
        name = type(model).__name__
        if [tensor.shape for tensor in expected] != [tensor.shape for tensor in found]:
            raise ValueError(f"{name} returns outputs of different shapes {what}; nothing was changed")
        if any(tensor.is_meta for tensor in (*expected, *found)):
            return
        worst = max(_ROUNDING.get(tensor.dtype, _HALF_ROUNDING) for tensor in found)
        allowed = max(
            worst * _norm([tensor.nan_to_num() for tensor in expected]), _EFFECT * _distance(expected, self._dense)
        )
        off = _distance(expected, found)
        if off > allowed:
            raise ValueError(
                f"{name} computes something else {what} than with their contribution left out: its outputs differ by "
                f"{off:.2g}, where {allowed:.2g} would be rounding; its code does more with them than is known here. "
                "Nothing was changed"
            )


def _outputs(model: nn.Module, calls: Sequence[Run]) -> list[torch.Tensor]:
    with _at_rest(model):
        return [tensor.clone() for call in calls for tensor in _tensors(call(model))]
