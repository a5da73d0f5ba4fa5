"""What a layer's inputs look like: second moments gathered on sample batches, block by block, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Batch = Mapping[str, torch.Tensor]


class _FirstBlockReached(Exception):  # noqa: N818 - control flow, not an error
    """Ends a forward pass once its first block has been reached."""


@dataclass
class BlockInputs:
    """What the next block of a model gets for one batch: its first argument, the others, the tokens that count."""

    hidden: torch.Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tokens: torch.Tensor | None

    def run(self, block: nn.Module) -> torch.Tensor:
        """The block's output hidden states."""
        result = block(self.hidden, *self.args, **self.kwargs)
        hidden: torch.Tensor = result[0] if isinstance(result, tuple) else result
        return hidden


def first_inputs(model: nn.Module, block: nn.Module, batches: Sequence[Batch]) -> list[BlockInputs]:
    """Run the model up to `block` on every batch and keep what the block gets.

    Raises:
        ValueError: the block gets no hidden states as its first argument.
    """
    caught: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append((args, kwargs))
        raise _FirstBlockReached

    handle = block.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        for batch in batches:
            try:
                model(**batch)
            except _FirstBlockReached:
                continue
    finally:
        handle.remove()
    if len(caught) != len(batches) or not all(args for args, _ in caught):
        raise ValueError("every batch must reach the first block with its hidden states as first argument")
    masks = [batch.get("attention_mask") for batch in batches]
    return [
        BlockInputs(args[0], args[1:], kwargs, None if mask is None else mask.bool())
        for (args, kwargs), mask in zip(caught, masks, strict=True)
    ]


def _token_rows(input: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
    """Rows [tokens, features] of an activation, without padding where the mask fits its shape."""
    if tokens is not None and input.shape[:-1] == tokens.shape:
        return input[tokens]
    return input.flatten(0, -2)


@contextmanager
def recorded_inputs(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """While open, the returned dictionary holds the last input of every layer, in the order they ran."""
    inputs: dict[str, torch.Tensor] = {}

    def recorder(name: str) -> Any:
        def record(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            inputs.pop(name, None)
            inputs[name] = args[0]

        return record

    handles = [layer.register_forward_pre_hook(recorder(name)) for name, layer in layers.items()]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


def shared_inputs(block: nn.Module, layers: Mapping[str, nn.Module], sample: BlockInputs) -> list[list[str]]:
    """The layers in the order they run, those that read the same tensor together."""
    groups: dict[int, list[str]] = {}
    with recorded_inputs(layers) as inputs:
        sample.run(block)
        for name, tensor in inputs.items():
            groups.setdefault(id(tensor), []).append(name)
    return list(groups.values())


@dataclass
class Moments:
    """Second moments of a layer's inputs X and of the inputs X0 it had in the dense model."""

    hessian: torch.Tensor  # X X^T, [in_features, in_features]
    cross: torch.Tensor  # X0 X^T


def gather_moments(
    block: nn.Module,
    dense_block: nn.Module,
    name: str,
    inputs: Iterable[BlockInputs],
    dense_inputs: Iterable[BlockInputs],
) -> Moments:
    """Moments of the layer `name` of a block over all batches."""
    layer, dense_layer = block.get_submodule(name), dense_block.get_submodule(name)
    features: int = layer.in_features  # type: ignore[assignment]
    moments = Moments(torch.zeros(features, features), torch.zeros(features, features))
    with recorded_inputs({"now": layer}) as now, recorded_inputs({"dense": dense_layer}) as dense:
        for sample, dense_sample in zip(inputs, dense_inputs, strict=True):
            sample.run(block)
            dense_sample.run(dense_block)
            rows = _token_rows(now["now"], sample.tokens).float()
            dense_rows = _token_rows(dense["dense"], sample.tokens).float()
            moments.hessian.addmm_(rows.T, rows)
            moments.cross.addmm_(dense_rows.T, rows)
    return moments
