"""Merge LoRA adapters of PEFT into pruned weights, keeping their zeros."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sparsekit.pruning.masks.parametrization import finalize


def merge_lora(model: nn.Module) -> Any:
    """Merge the adapters of a PEFT model into its weights, and keep every zero of the weights below them at zero.

    LoRA's product `scaling * B @ A` is dense: merged as it is, it fills a pruned weight up. What it would add to pruned
    entries is dropped here, so the model's outputs change by that much: measure them, or train the adapter on with the
    mask. Masks of `sparsekit.prune` are baked in first.

    Args:
        model: what `peft.get_peft_model` or `PeftModel.from_pretrained` returned, with LoRA or another adapter that
            PEFT can merge. It is taken apart: use the result instead.

    Returns:
        The model without adapters, for `convert` or `save`.

    Raises:
        ModuleNotFoundError: peft is not installed.
        TypeError: `model` is no PEFT model.
        ValueError: the adapters cannot be merged, or hold NaN or infinities.
    """
    try:
        from peft import PeftModel
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("merging adapters needs peft: pip install peft") from error
    if not isinstance(model, PeftModel):
        raise TypeError(f"model must be a peft.PeftModel, got {type(model).__name__}")
    finalize(model)
    tuners: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    below = [tuner.get_base_layer() for tuner in tuners]
    kept = [(layer, layer.weight.detach() != 0) for layer in below if hasattr(layer, "weight")]
    try:
        merged: Any = model.merge_and_unload(safe_merge=True)
    except (NotImplementedError, AttributeError, TypeError) as error:  # of methods that leave no weights to merge
        raise ValueError(f"the adapters of this model cannot be merged: {error}") from error
    with torch.no_grad():
        for layer, mask in kept:
            layer.weight.masked_fill_(~mask, 0.0)
    return merged
