"""Compare a model's outputs with a reference model's: cosine and relative error on batches."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

#: Below this mean cosine, outputs are too far from the reference to be used in its place.
_FAR = 0.9
#: Elements to compare at a time, since logits over a vocabulary are large in float64.
_CHUNK = 2**22


@dataclass(frozen=True)
class Fidelity:
    """How close a model's outputs are to the reference outputs."""

    error: float  # norm of the error over norm of the reference outputs
    cosine: float  # mean cosine to the reference over output vectors (last dimension)
    least_cosine: float  # the lowest one

    @property
    def far(self) -> bool:
        """Whether outputs are too far from the reference, or not finite."""
        return not self.cosine >= _FAR

    def __str__(self) -> str:
        return f"cosine {self.cosine:.4f}, lowest {self.least_cosine:.4f}, relative error {self.error:.2%}"


def fresh(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a batch for one call, since a `SentenceTransformer` writes outputs into its input mapping."""
    return {name: copy.copy(value) if isinstance(value, Mapping | list) else value for name, value in batch.items()}


def tensors_in(found: Any) -> Iterator[torch.Tensor]:
    """All tensors in a model's inputs or outputs, including those in tuples and mappings."""
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, Mapping | list | tuple):
        for part in found.values() if isinstance(found, Mapping) else found:
            yield from tensors_in(part)


def floats_in(found: Any) -> list[torch.Tensor]:
    """All floating-point tensors in a model's inputs or outputs."""
    return [tensor for tensor in tensors_in(found) if tensor.is_floating_point() and tensor.numel()]


def _vectors(output: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Vectors of an output, [vectors, features], without padding if the mask fits its shape."""
    if output.ndim < 2:
        return output.reshape(1, -1)
    if mask is not None and output.shape[:-1] == mask.shape:
        return output[mask.bool()]
    return output.flatten(0, -2)


class FidelityMeter:
    """Accumulates the fidelity of a model's outputs over batches."""

    def __init__(self) -> None:
        self._difference = self._size = 0.0
        self._cosines: list[torch.Tensor] = []

    def add(self, found: Any, wanted: Any, mask: torch.Tensor | None = None) -> None:
        """Add the outputs of two models for a batch.

        Args:
            found: tensors, also in mappings and tuples; only floating-point ones count.
            wanted: the reference model's outputs.
            mask: 1 for tokens, 0 for padding, which does not count, shape [batch, tokens].

        Raises:
            ValueError: the numbers or shapes of floating-point tensors differ, or there are none.
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
        alike = (found == wanted) & ~wanted.isfinite()  # positions that a model masks with infinity
        found, wanted = found.masked_fill(alike, 0.0), wanted.masked_fill(alike, 0.0)
        self._difference += (found - wanted).square().sum().item()
        self._size += wanted.square().sum().item()
        lengths = found.norm(dim=1) * wanted.norm(dim=1)
        equal = (found == wanted).all(1)  # 1 if both are zero
        cosines = torch.where(equal, 1.0, (found * wanted).sum(1) / lengths.clamp(min=torch.finfo(torch.float64).tiny))
        self._cosines.append(cosines)

    def result(self) -> Fidelity:
        """Fidelity over all batches added.

        Raises:
            ValueError: none were added.
        """
        if not self._cosines:
            raise ValueError("outputs are compared on batches, got none")
        cosines = torch.cat(self._cosines)
        error = math.sqrt(self._difference / self._size) if self._size else (math.inf if self._difference else 0.0)
        return Fidelity(error, cosines.mean().item(), cosines.min().item())


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Run models in eval mode, without gradients."""
    training = [module for model in models for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():  # inference tensors in a model's caches could break later training
            yield
    finally:
        for module in training:
            module.training = True


def fidelity(model: nn.Module, reference: nn.Module, batches: Iterable[Mapping[str, Any]]) -> Fidelity:
    """Compare a model's outputs with those of a reference model.

    Args:
        model: the compressed model.
        reference: the dense model, with the same outputs.
        batches: keyword arguments of both models' forward; with an "attention_mask", padding does not count.

    Returns:
        Relative error and cosines over all floating-point outputs.

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
