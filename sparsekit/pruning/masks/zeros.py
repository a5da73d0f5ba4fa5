"""Keep the zeros of a model that was pruned elsewhere."""

from __future__ import annotations

import torch
from torch import nn

from sparsekit.introspect.dense_classes import is_dense_linear
from sparsekit.pruning.layers import check_weight, weight_of
from sparsekit.pruning.masks.parametrization import apply_mask, mask_of
from sparsekit.pruning.split_model import on_split_modules
from sparsekit.surgery import undo_on_failure


@on_split_modules
def pruned_layers(model: nn.Module, least: float = 0.05) -> dict[str, torch.Tensor]:
    """Linear layers of a model that was pruned elsewhere.

    Args:
        model: any model; layers that have a mask are passed over.
        least: fraction of zeros from which a layer counts as pruned, above 0.

    Returns:
        Layer name -> mask of its nonzero weights, bool, shape [out_features, in_features].

    Raises:
        ValueError: `least` is out of range, or a layer's weight is computed before each call or has no values.
    """
    if not 0 < least <= 1:
        raise ValueError(f"least must be in (0, 1], got {least}")
    found = {}
    for name, module in model.named_modules():
        if is_dense_linear(module) and mask_of(module) is None:
            check_weight(name, module)
            mask = weight_of(module) != 0
            if 1.0 - mask.float().mean().item() >= least:
                found[name] = mask
    return found


@on_split_modules
def keep_zeros(model: nn.Module, least: float = 0.05) -> dict[str, float]:
    """Mask the zeros of a model that was pruned elsewhere, in place: training keeps them.

    Args:
        model: any model; layers that have a mask are left as they are.
        least: fraction of zeros from which a linear layer counts as pruned, above 0.

    Returns:
        Name of every layer that got a mask -> its sparsity.

    Raises:
        ValueError: `least` is out of range.

    >>> model = nn.Sequential(nn.Linear(4, 2))
    >>> _ = model[0].weight.data[:, :2].zero_()
    >>> keep_zeros(model)
    {'0': 0.5}
    """
    masks = pruned_layers(model, least)
    with undo_on_failure(model):
        for name, mask in masks.items():
            apply_mask(model.get_submodule(name), mask)
    return {name: 1.0 - mask.float().mean().item() for name, mask in masks.items()}
