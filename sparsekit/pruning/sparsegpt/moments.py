"""Second moments of the inputs of a transformer block's layers, gathered on calibration batches in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsekit.pruning.calibration.batches import token_rows
from sparsekit.pruning.layers import weight_of
from sparsekit.pruning.sparsegpt.samples import Arguments, Sample
from sparsekit.splitting.split_module import is_routed


class _Reached(Exception):  # noqa: N818 - control flow, not an error
    """Ends a forward pass at the module whose input was wanted."""


def _arguments_at(module: nn.Module, run: Callable[[], object]) -> Arguments | None:
    """Arguments that `module` gets in `run`, which ends there; None if it is not reached."""
    caught: list[Arguments] = []

    def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append((args, kwargs))
        raise _Reached

    handle = module.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        run()
    except _Reached:
        return caught[0]
    finally:
        handle.remove()
    return None


@dataclass
class Moments:
    """Second moments of a layer's inputs X and of the inputs X0 it had in the dense model."""

    hessian: torch.Tensor  # X X^T, float32, [in_features, in_features]
    cross: torch.Tensor  # X0 X^T, the same shape


def _rows_at(transformer_block: nn.Module, number: int, layer: str, sample: Sample) -> torch.Tensor:
    """A layer's input in the transformer block, float32 rows [tokens, features] without padding."""
    linear = transformer_block.get_submodule(layer)
    arguments = _arguments_at(linear, lambda: sample.run(transformer_block, number))
    if arguments is None and is_routed(transformer_block, layer):
        return weight_of(linear).new_zeros(0, weight_of(linear).shape[1], dtype=torch.float32)
    if arguments is None:
        raise ValueError(f"{layer} did not run on a calibration batch; put it into ignore")
    return token_rows(arguments[0][0], sample.tokens).float()


@dataclass(frozen=True)
class TransformerBlockPair:
    """A transformer block that is being pruned and its dense original, each with the samples as they reach it."""

    number: int
    pruned: nn.Module
    dense: nn.Module
    samples: Sequence[Sample]
    dense_samples: Sequence[Sample]

    def gather_moments(self, layer: str) -> Moments:
        """Moments of a layer over all samples; the forward passes end at the layer.

        Which tokens are routed to an expert differs in the dense transformer block: the cross moments of an expert are
        those of its own inputs. An expert that no token reaches gets the identity, so that magnitude decides.
        """
        weight = weight_of(self.pruned.get_submodule(layer))
        zeros = torch.zeros(weight.shape[1], weight.shape[1], dtype=torch.float32, device=weight.device)
        moments = Moments(zeros, zeros.clone())
        for sample, dense_sample in zip(self.samples, self.dense_samples, strict=True):
            rows = _rows_at(self.pruned, self.number, layer, sample)
            dense_rows = rows
            if not is_routed(self.pruned, layer):
                dense_rows = _rows_at(self.dense, self.number, layer, dense_sample)
            moments.hessian.addmm_(rows.T, rows)
            moments.cross.addmm_(dense_rows.T, rows)
        if is_routed(self.pruned, layer) and not moments.hessian.any():
            moments.hessian.fill_diagonal_(1.0)
            moments.cross.fill_diagonal_(1.0)
        return moments

    def advance(self) -> None:
        """Run both, so that the samples reach the next transformer block."""
        for transformer_block, samples in ((self.pruned, self.samples), (self.dense, self.dense_samples)):
            for sample in samples:
                sample.hidden = sample.run(transformer_block, self.number)


def _adder(hessian: torch.Tensor, sample: Sample) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    def add(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        rows = token_rows(args[0], sample.tokens).float()
        hessian.addmm_(rows.T, rows)

    return add


def gather_hessians(
    transformer_block: nn.Module, number: int, layers: Sequence[str], samples: Sequence[Sample]
) -> dict[str, torch.Tensor]:
    """Hessians of layers' inputs in the dense model, in one pass, after which samples reach the next transformer block.

    Args:
        transformer_block: a dense one.
        number: which one it is of the model.
        layers: names of layers in it; of those that read the same input, one.
        samples: as they reach it.

    Returns:
        Layer name -> `X X^T` over all tokens that are not padding, float32, shape [in_features, in_features]. An expert
        of a mixture that no token reaches gets the identity, so that magnitude decides.
    """
    inside = {name: transformer_block.get_submodule(name) for name in layers}
    weights = {name: weight_of(layer) for name, layer in inside.items()}
    hessians = {
        name: torch.zeros(weight.shape[1], weight.shape[1], dtype=torch.float32, device=weight.device)
        for name, weight in weights.items()
    }
    for sample in samples:
        handles = [one.register_forward_pre_hook(_adder(hessians[name], sample)) for name, one in inside.items()]
        try:
            sample.hidden = sample.run(transformer_block, number)
        finally:
            for handle in handles:
                handle.remove()
    for name, hessian in hessians.items():
        if is_routed(transformer_block, name) and not hessian.any():
            hessian.fill_diagonal_(1.0)
    return hessians
