"""Norms of layers' inputs on calibration batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from sparsekit.progress import Progress
from sparsekit.pruning.calibration.batches import Batch, token_rows
from sparsekit.pruning.layers import weight_of
from sparsekit.splitting.split_module import is_routed


def _adder(
    squares: torch.Tensor, tokens: list[torch.Tensor | None]
) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    def add(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        rows = token_rows(args[0].detach(), tokens[0])
        squares.add_(rows.double().square().sum(0).to(squares.device))

    return add


def input_norms(model: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Batch]) -> dict[str, torch.Tensor]:
    """Norm of every layer's input features over all tokens except padding, float32, [in_features].

    Takes one pass over the batches, and stores a vector per layer.

    Args:
        model: model to run in eval mode without gradients; its mode is restored.
        layers: linear layers of it, or `Conv1D`, by name.
        batches: keyword arguments of the model's forward; an "attention_mask" says what is padding.

    Raises:
        ValueError: there are no batches, or a layer did not run.
    """
    if not batches:
        raise ValueError("calibration needs at least one batch, got none")
    squares = {name: torch.zeros(weight_of(layer).shape[1], dtype=torch.float64) for name, layer in layers.items()}
    tokens: list[torch.Tensor | None] = [None]
    handles = [layer.register_forward_pre_hook(_adder(squares[name], tokens)) for name, layer in layers.items()]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in Progress(batches, title="calibrate", unit="batches"):
                mask = batch.get("attention_mask")
                tokens[0] = None if mask is None else mask.bool()
                model(**batch)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    for name, found in squares.items():
        if is_routed(model, name) and not found.any():
            found.fill_(1.0)  # no token reached this expert: magnitude decides
    idle = [name for name, found in squares.items() if not found.any()]
    if idle:
        raise ValueError(f"{', '.join(idle)} did not run on the calibration batches, or only on zeros; put into ignore")
    return {name: found.sqrt().float() for name, found in squares.items()}
