"""How far a model's outputs are from those of a reference model: cosine and relative error on batches."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

#: Below this mean cosine outputs are far from the dense model's: what was built on them does not hold any more.
_FAR = 0.9
#: Numbers that are compared at a time: logits over a vocabulary would be large in float64.
_CHUNK = 2**22


@dataclass(frozen=True)
class Fidelity:
    """How near a model's outputs are to the wanted ones."""

    error: float  # norm of the differences over norm of the wanted outputs
    cosine: float  # between the vectors of found and wanted outputs (the last dimension): the mean
    least_cosine: float  # and the lowest

    @property
    def far(self) -> bool:
        """Whether the outputs moved so far that the model computes something else; also where they are not finite."""
        return not self.cosine >= _FAR

    def __str__(self) -> str:
        return f"cosine {self.cosine:.4f}, lowest {self.least_cosine:.4f}, relative error {self.error:.2%}"


def fresh(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch for one call: a `SentenceTransformer` writes its outputs into the mapping that it is given."""
    return {name: copy.copy(value) if isinstance(value, Mapping | list) else value for name, value in batch.items()}


def tensors_in(found: Any) -> Iterator[torch.Tensor]:
    """The tensors in what a model takes or returns, in tuples and mappings too."""
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, Mapping | list | tuple):
        for part in found.values() if isinstance(found, Mapping) else found:
            yield from tensors_in(part)


def floats_in(found: Any) -> list[torch.Tensor]:
    """The tensors of floats among them."""
    return [tensor for tensor in tensors_in(found) if tensor.is_floating_point() and tensor.numel()]


def _vectors(output: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Vectors of an output, [vectors, features], those of padding left out where the mask fits its shape."""
    if output.ndim < 2:
        return output.reshape(1, -1)
    if mask is not None and output.shape[:-1] == mask.shape:
        return output[mask.bool()]
    return output.flatten(0, -2)


class FidelityMeter:
    """Gathers a model's outputs and the wanted ones, batch by batch."""

    def __init__(self) -> None:
        self._difference = self._size = 0.0
        self._cosines: list[torch.Tensor] = []

    def add(self, found: Any, wanted: Any, mask: torch.Tensor | None = None) -> None:
        """Compare what two models return.

        Args:
            found: a tensor, or tensors in mappings and tuples; what holds no floats is left out.
            wanted: the same of the other model.
            mask: which tokens are no padding, shape [batch, tokens]; their outputs do not count.

        Raises:
            ValueError: the two return floats of different number or shape, or none.
        """
        pairs = floats_in(found), floats_in(wanted)
        shapes = [[list(tensor.shape) for tensor in tensors] for tensors in pairs]
        if shapes[0] != shapes[1] or not shapes[0]:
            raise ValueError(f"both models must return the same tensors of floats, got {shapes[0]} and {shapes[1]}")
        mask = None if mask is None else mask.to(pairs[0][0].device)
        for one, other in zip(*pairs, strict=True):
            vectors = max(1, _CHUNK // one.shape[-1]) if one.ndim else 1
            parts = (_vectors(tensor.to(one.device), mask).split(vectors) for tensor in (one, other))
            for found_part, wanted_part in zip(*parts, strict=True):
                self._add(found_part.double(), wanted_part.double())

    def _add(self, found: torch.Tensor, wanted: torch.Tensor) -> None:
        alike = (found == wanted) & ~wanted.isfinite()  # what a model masks with infinity
        found, wanted = found.masked_fill(alike, 0.0), wanted.masked_fill(alike, 0.0)
        self._difference += (found - wanted).square().sum().item()
        self._size += wanted.square().sum().item()
        lengths = found.norm(dim=1) * wanted.norm(dim=1)
        equal = (found == wanted).all(1)  # also where both are zero
        cosines = torch.where(equal, 1.0, (found * wanted).sum(1) / lengths.clamp(min=torch.finfo(torch.float64).tiny))
        self._cosines.append(cosines)

    def result(self) -> Fidelity:
        """Over all that was added.

        Raises:
            ValueError: nothing was.
        """
        if not self._cosines:
            raise ValueError("outputs are compared on batches, got none")
        cosines = torch.cat(self._cosines)
        error = math.sqrt(self._difference / self._size) if self._size else (math.inf if self._difference else 0.0)
        return Fidelity(error, cosines.mean().item(), cosines.min().item())


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Have models compute without dropout and without gradients."""
    training = [module for model in models for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():  # what a model keeps for later calls may be needed in training
            yield
    finally:
        for module in training:
            module.training = True


def fidelity(model: nn.Module, reference: nn.Module, batches: Iterable[Mapping[str, Any]]) -> Fidelity:
    """How far a model's outputs are from those of the model that it was made from.

    Args:
        model: pruned, taught, converted.
        reference: the dense model, with the same outputs.
        batches: keyword arguments of both models' forward; with an "attention_mask", padding does not count.

    Returns:
        Relative error and cosines over all outputs of floats.

    Raises:
        ValueError: there are no batches, or the outputs differ in shape.

    >>> layer = nn.Linear(4, 4)
    >>> print(fidelity(layer, layer, [{"input": torch.ones(2, 4)}]))
    cosine 1.0000, lowest 1.0000, relative error 0.00%
    """
    meter = FidelityMeter()
    with evaluating(model, reference):
        for batch in batches:
            meter.add(model(**fresh(batch)), reference(**fresh(batch)), batch.get("attention_mask"))
    return meter.result()
