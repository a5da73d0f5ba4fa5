"""What a layer's inputs look like: second moments gathered on sample batches, block by block, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

Batch = Mapping[str, torch.Tensor]


class _Reached(Exception):  # noqa: N818 - control flow, not an error
    """Ends a forward pass at the module whose input was wanted."""


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def _arguments_at(module: nn.Module, run: Callable[[], object]) -> Arguments | None:
    """Positional and keyword arguments that `module` gets in `run`, which ends there; None if it is not reached."""
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
    found = [_arguments_at(block, partial(model, **batch)) for batch in batches]
    caught = [arguments for arguments in found if arguments is not None and arguments[0]]
    if len(caught) != len(batches):
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


def shared_inputs(block: nn.Module, layers: Mapping[str, nn.Module], sample: BlockInputs) -> list[list[str]]:
    """The layers in the order they run, those that read the same tensor together.

    Raises:
        ValueError: the block does not run one of them.
    """
    groups: dict[int, list[str]] = {}
    inputs = []  # kept alive, so that no other tensor takes the place of one in memory

    def recorder(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def record(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            inputs.append(args[0])
            groups.setdefault(id(args[0]), []).append(name)

        return record

    handles = [layer.register_forward_pre_hook(recorder(name)) for name, layer in layers.items()]
    try:
        sample.run(block)
    finally:
        for handle in handles:
            handle.remove()
    idle = set(layers) - {name for group in groups.values() for name in group}
    if idle:
        raise ValueError(f"{', '.join(sorted(idle))} did not run on the calibration batches; put them into ignore")
    return list(groups.values())


@dataclass
class Moments:
    """Second moments of a layer's inputs X and of the inputs X0 it had in the dense model."""

    hessian: torch.Tensor  # X X^T, [in_features, in_features]
    cross: torch.Tensor  # X0 X^T


def _rows_at(block: nn.Module, layer: str, sample: BlockInputs) -> torch.Tensor:
    """The layer's input in the block, float32 rows [tokens, features] without padding."""
    arguments = _arguments_at(block.get_submodule(layer), lambda: sample.run(block))
    if arguments is None:
        raise ValueError(f"{layer} did not run on a calibration batch; put it into ignore")
    return _token_rows(arguments[0][0], sample.tokens).float()


def gather_moments(
    block: nn.Module,
    dense_block: nn.Module,
    layer: str,
    inputs: Iterable[BlockInputs],
    dense_inputs: Iterable[BlockInputs],
) -> Moments:
    """Moments of a block's layer over all batches; the forward passes end at the layer."""
    features: int = block.get_submodule(layer).in_features  # type: ignore[assignment]
    moments = Moments(torch.zeros(features, features), torch.zeros(features, features))
    for sample, dense_sample in zip(inputs, dense_inputs, strict=True):
        rows, dense_rows = _rows_at(block, layer, sample), _rows_at(dense_block, layer, dense_sample)
        moments.hessian.addmm_(rows.T, rows)
        moments.cross.addmm_(dense_rows.T, rows)
    return moments
