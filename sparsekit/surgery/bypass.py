"""Run a model with features zeroed or transformer blocks skipped: the outputs that surgery must preserve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def zeroed(model: nn.Module, features: Mapping[str, torch.Tensor]) -> Iterator[set[str]]:
    """Zero some inputs of some layers of a model.

    Args:
        model: the model.
        features: layer name -> indices of the inputs to zero, int64.

    Yields:
        Set that collects the names of the layers whose inputs were zeroed; read it at the end.
    """
    ran: set[str] = set()

    def hook(layer: str, gone: torch.Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def zero(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            ran.add(layer)
            return (args[0].index_fill(-1, gone.to(args[0].device), 0.0), *args[1:])

        return zero

    with ExitStack() as stack:
        for layer, gone in features.items():
            stack.callback(model.get_submodule(layer).register_forward_pre_hook(hook(layer, gone)).remove)
        yield ran


@contextmanager
def bypassed(transformer_blocks: Sequence[nn.Module]) -> Iterator[set[nn.Module]]:
    """Skip transformer blocks: each returns its input hidden states, along with its other outputs.

    Yields:
        Set that collects the transformer blocks that were skipped; read it at the end.
    """
    ran: set[nn.Module] = set()

    def pass_by(transformer_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        ran.add(transformer_block)
        hidden = args[0] if args else kwargs["hidden_states"]
        if isinstance(output, torch.Tensor):
            return hidden
        if isinstance(output, tuple):
            return (hidden, *output[1:])
        raise TypeError(f"a transformer block must return a tensor or a tuple, got {type(output).__name__}")

    with ExitStack() as stack:
        for transformer_block in transformer_blocks:
            stack.callback(transformer_block.register_forward_hook(pass_by, with_kwargs=True).remove)
        yield ran
