"""What a layer's inputs look like: second moments gathered on sample batches, block by block, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsekit.pruning.layers import weight_of
from sparsekit.splitting.split_module import is_routed

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
class Sample:
    """One batch on its way through a model's blocks: the hidden states now, and what else each block gets."""

    hidden: torch.Tensor
    arguments: list[Arguments]  # of every block, without the hidden states
    tokens: torch.Tensor | None  # bool, which tokens are no padding

    def run(self, block: nn.Module, number: int) -> torch.Tensor:
        """Output hidden states of the `number`-th block."""
        args, kwargs = self.arguments[number]
        result = block(self.hidden, *args, **kwargs)
        hidden: torch.Tensor = result[0] if isinstance(result, tuple) else result
        return hidden


@contextmanager
def _without_cache(model: nn.Module) -> Iterator[None]:
    """Turn a transformers model's key-value cache off: blocks are run many times on the same arguments."""
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


def _block_arguments(model: nn.Module, blocks: Sequence[nn.Module], batch: Batch) -> list[Arguments]:
    """What every block gets in one forward pass of the model."""
    caught: list[Arguments] = []
    handles = [
        block.register_forward_pre_hook(lambda _, args, kwargs: caught.append((args, kwargs)), with_kwargs=True)
        for block in blocks
    ]
    try:
        model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return caught


def samples_of(model: nn.Module, blocks: Sequence[nn.Module], batches: Sequence[Batch]) -> list[Sample]:
    """Run the model on every batch and keep what its blocks get.

    Raises:
        ValueError: a block does not run exactly once a pass, or gets no hidden states as its first argument.
    """
    samples = []
    for batch in batches:
        with _without_cache(model):
            calls = _block_arguments(model, blocks, batch)
        if len(calls) != len(blocks) or not all(args for args, _ in calls):
            raise ValueError("every block must run once in a forward pass, with its hidden states as first argument")
        mask = batch.get("attention_mask")
        arguments = [(args[1:], kwargs) for args, kwargs in calls]
        samples.append(Sample(calls[0][0][0], arguments, None if mask is None else mask.bool()))
    return samples


def token_rows(input: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
    """Rows [tokens, features] of an activation, without padding where the mask fits its shape."""
    if tokens is not None and input.shape[:-1] == tokens.shape:
        return input[tokens]
    return input.flatten(0, -2)


def shared_inputs(block: nn.Module, number: int, layers: Mapping[str, nn.Module], sample: Sample) -> list[list[str]]:
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
        sample.run(block, number)
    finally:
        for handle in handles:
            handle.remove()
    idle = set(layers) - {name for group in groups.values() for name in group}
    unreached = [[name] for name in layers if name in idle and is_routed(block, name)]
    idle -= {name for group in unreached for name in group}
    if idle:
        raise ValueError(f"{', '.join(sorted(idle))} did not run on the calibration batches; put them into ignore")
    return list(groups.values()) + unreached


@dataclass
class Moments:
    """Second moments of a layer's inputs X and of the inputs X0 it had in the dense model."""

    hessian: torch.Tensor  # X X^T, [in_features, in_features]
    cross: torch.Tensor  # X0 X^T


def _rows_at(block: nn.Module, number: int, layer: str, sample: Sample) -> torch.Tensor:
    """The layer's input in the block, float32 rows [tokens, features] without padding."""
    linear = block.get_submodule(layer)
    arguments = _arguments_at(linear, lambda: sample.run(block, number))
    if arguments is None and is_routed(block, layer):
        return weight_of(linear).new_zeros(0, weight_of(linear).shape[1], dtype=torch.float32)
    if arguments is None:
        raise ValueError(f"{layer} did not run on a calibration batch; put it into ignore")
    return token_rows(arguments[0][0], sample.tokens).float()


@dataclass(frozen=True)
class BlockPair:
    """A block that is being pruned and its dense original, each with the samples as they reach it."""

    number: int
    block: nn.Module
    dense_block: nn.Module
    samples: Sequence[Sample]
    dense_samples: Sequence[Sample]

    def gather_moments(self, layer: str) -> Moments:
        """Moments of a layer over all samples; the forward passes end at the layer.

        Which tokens reach an expert differs in the dense block: there the cross moments are those of its own inputs. An
        expert that none reaches has those of inputs that do not depend on each other, by which magnitude decides.
        """
        weight = weight_of(self.block.get_submodule(layer))
        zeros = torch.zeros(weight.shape[1], weight.shape[1], dtype=torch.float32, device=weight.device)
        moments = Moments(zeros, zeros.clone())
        for sample, dense_sample in zip(self.samples, self.dense_samples, strict=True):
            rows = _rows_at(self.block, self.number, layer, sample)
            dense_rows = rows
            if not is_routed(self.block, layer):
                dense_rows = _rows_at(self.dense_block, self.number, layer, dense_sample)
            moments.hessian.addmm_(rows.T, rows)
            moments.cross.addmm_(dense_rows.T, rows)
        if is_routed(self.block, layer) and not moments.hessian.any():
            moments.hessian.fill_diagonal_(1.0)
            moments.cross.fill_diagonal_(1.0)
        return moments

    def advance(self) -> None:
        """Run both blocks, so that the samples reach the next one."""
        for block, samples in ((self.block, self.samples), (self.dense_block, self.dense_samples)):
            for sample in samples:
                sample.hidden = sample.run(block, self.number)
