"""Gradients of a loss with respect to the weights to prune, one a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from sparsekit.introspect.selection import stored_weight
from sparsekit.progress import Progress
from sparsekit.pruning.layers import oriented
from sparsekit.splitting.split_module import is_routed

#: Function of a model and a batch that returns a scalar tensor.
Loss = Callable[[nn.Module, Any], torch.Tensor]


def model_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """The loss in the model's output, which transformers models compute for batches with labels.

    Args:
        model: called with the batch's entries as keyword arguments.
        batch: keyword arguments of the model's forward.

    Raises:
        TypeError: the batch is no mapping.
        ValueError: the output has no loss.
    """
    if not isinstance(batch, Mapping):
        raise TypeError(
            f"a batch must be a mapping of the model's keyword arguments, got {type(batch).__name__}; "
            "give loss=, a function of the model and such a batch"
        )
    output = model(**batch)
    loss = getattr(output, "loss", None)
    if loss is None:
        raise ValueError(
            f"the model's output must have a loss, got {type(output).__name__} without one; put labels into the "
            "batches, or give loss=, a function of the model and a batch"
        )
    value: torch.Tensor = loss
    return value


def _gradients_of(
    model: nn.Module, layers: Mapping[str, nn.Module], weights: Mapping[str, torch.Tensor], batch: Any, loss: Loss
) -> dict[str, torch.Tensor]:
    with torch.enable_grad():
        value = loss(model, batch)
        if not isinstance(value, torch.Tensor) or value.dim() != 0:
            got = f"shape {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(f"loss must return a scalar tensor, got {got}; take its mean or sum")
        if not value.requires_grad:
            raise ValueError("loss must depend on the weights, got a tensor without gradient; do not detach it")
        found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
    reached = [  # no token of a batch may reach an expert
        torch.zeros_like(weight) if gradient is None and is_routed(model, name) else gradient
        for (name, weight), gradient in zip(weights.items(), found, strict=True)
    ]
    idle = [name for name, gradient in zip(weights, reached, strict=True) if gradient is None]
    if idle:
        raise ValueError(f"the loss of a batch does not depend on {', '.join(idle)}; put into ignore")
    return {
        name: oriented(layers[name], gradient).to(torch.promote_types(gradient.dtype, torch.float32))
        for name, gradient in zip(weights, reached, strict=True)
    }


def _weights_of(layers: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    weights = {}
    for name, layer in layers.items():
        weight = stored_weight(layer)
        if weight is None:
            raise ValueError(f"{name}.weight is computed from several tensors; remove its parametrizations first")
        weights[name] = weight
    return weights


@contextmanager
def _ready(model: nn.Module, weights: Sequence[torch.Tensor]) -> Iterator[None]:
    """Context with the model in eval mode, so that dropout adds no noise, and frozen weights trainable."""
    was_training = model.training
    frozen = [weight for weight in weights if not weight.requires_grad]
    model.eval()
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
        model.train(was_training)


def weight_gradients(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Any], loss: Loss | None = None
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield each batch's gradient of the loss with respect to every layer's weight.

    Gradients stored in the parameters are not touched. The model runs in eval mode, and its mode is restored. The
    gradient of masked weights is zero.

    Args:
        model: any PyTorch model.
        layers: linear layers of it, or `Conv1D`, by name.
        batches: what `loss` takes.
        loss: a function of the model and a batch that returns a scalar; None: the loss in the model's output.

    Yields:
        Layer name -> gradient, shape [out_features, in_features], float32, or float64 of float64 weights.

    Raises:
        TypeError: as `model_loss`.
        ValueError: there are no batches, the loss is not a scalar, or does not depend on a layer.
    """
    if not batches:
        raise ValueError("calibration needs at least one batch, got none")
    weights = _weights_of(layers)
    unreached = set(layers)
    with _ready(model, list(weights.values())):
        for batch in Progress(batches, title="calibrate", unit="batches"):
            found = _gradients_of(model, layers, weights, batch, loss or model_loss)
            unreached -= {name for name in unreached if not is_routed(model, name) or found[name].any()}
            yield found
    if unreached:
        raise ValueError(
            f"no token of the batches reaches {len(unreached)} experts ({', '.join(sorted(unreached)[:3])}, ...); "
            "give more batches, put them into ignore, or prune them by magnitude"
        )


def mean_squared_gradients(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Any], loss: Loss | None = None
) -> dict[str, torch.Tensor]:
    """Mean over the batches of every weight's squared gradient, in one pass.

    Args and errors are those of `weight_gradients`; besides the gradients, one number is kept for each weight.

    Returns:
        Layer name -> mean squares, shape [out_features, in_features], float32 or float64.
    """
    totals: dict[str, torch.Tensor] = {}
    for gradients in weight_gradients(model, layers, batches, loss):
        for name, gradient in gradients.items():
            if name in totals:
                totals[name].addcmul_(gradient, gradient)
            else:
                totals[name] = gradient.square()
    return {name: total / len(batches) for name, total in totals.items()}
