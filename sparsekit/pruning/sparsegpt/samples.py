"""Run calibration batches through a model one transformer block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsekit.pruning.calibration.batches import Batch
from sparsekit.splitting.split_module import is_routed

#: Positional and keyword arguments of a call.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Sample:
    """One batch between transformer blocks: its hidden states, and the other arguments of each transformer block."""

    hidden: torch.Tensor  # [batch, tokens, features]
    arguments: list[Arguments]  # of every transformer block, without the hidden states
    tokens: torch.Tensor | None  # bool, [batch, tokens], which tokens are no padding

    def run(self, transformer_block: nn.Module, number: int) -> torch.Tensor:
        """Output hidden states of the `number`-th transformer block."""
        args, kwargs = self.arguments[number]
        result = transformer_block(self.hidden, *args, **kwargs)
        hidden: torch.Tensor = result[0] if isinstance(result, tuple) else result
        return hidden


@contextmanager
def _without_cache(model: nn.Module) -> Iterator[None]:
    """Turn a transformers model's key-value cache off: transformer blocks run many times on the same arguments."""
    config = getattr(model, "config", None)
    before = getattr(config, "use_cache", None)
    if before is None:
        yield
        return
    config.use_cache = False  # type: ignore[union-attr]
    try:
        yield
    finally:
        config.use_cache = before  # type: ignore[union-attr]


def _arguments_of(model: nn.Module, transformer_blocks: Sequence[nn.Module], batch: Batch) -> list[Arguments]:
    """What every transformer block gets in one forward pass of the model."""
    caught: list[Arguments] = []
    handles = [
        one.register_forward_pre_hook(lambda _, args, kwargs: caught.append((args, kwargs)), with_kwargs=True)
        for one in transformer_blocks
    ]
    try:
        model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return caught


def samples_of(model: nn.Module, transformer_blocks: Sequence[nn.Module], batches: Sequence[Batch]) -> list[Sample]:
    """Run the model on every batch and keep what its transformer blocks get.

    Raises:
        ValueError: a transformer block does not run exactly once a pass, or gets no hidden states as its first
            argument.
    """
    samples = []
    for batch in batches:
        with _without_cache(model):
            calls = _arguments_of(model, transformer_blocks, batch)
        if len(calls) != len(transformer_blocks) or not all(args for args, _ in calls):
            raise ValueError(
                "every transformer block must run once in a forward pass, with its hidden states as first argument"
            )
        mask = batch.get("attention_mask")
        arguments = [(args[1:], kwargs) for args, kwargs in calls]
        samples.append(Sample(calls[0][0][0], arguments, None if mask is None else mask.bool()))
    return samples


def layers_by_input(
    transformer_block: nn.Module, number: int, layers: Mapping[str, nn.Module], sample: Sample
) -> list[list[str]]:
    """The layers in the order they run, those that read the same tensor together.

    Raises:
        ValueError: the transformer block does not run one of them.
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
        sample.run(transformer_block, number)
    finally:
        for handle in handles:
            handle.remove()
    idle = set(layers) - {name for group in groups.values() for name in group}
    unreached = [[name] for name in layers if name in idle and is_routed(transformer_block, name)]
    idle -= {name for group in unreached for name in group}
    if idle:
        raise ValueError(f"{', '.join(sorted(idle))} did not run on the calibration batches; put them into ignore")
    return list(groups.values()) + unreached
