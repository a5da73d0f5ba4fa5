"""Merge PEFT's LoRA adapters into pruned weights, keeping their zeros."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sparsekit.pruning.masks.parametrization import finalize


def merge_lora(model: nn.Module) -> Any:
    """Merge the adapters of a PEFT model into its weights, keeping every zero of the base weights at zero.

    LoRA's update `scaling * B @ A` is dense: a plain merge would fill the zeros of a pruned weight. Here the update of
    pruned entries is dropped, which changes the model's outputs: evaluate it, or keep training the adapter with the
    mask. Masks of `sparsekit.prune` are finalized first.

    Args:
        model: a model from `peft.get_peft_model` or `PeftModel.from_pretrained`, with LoRA or another adapter that PEFT
            can merge. It is consumed: use the result instead.

    Returns:
        The model without adapters, for `convert` or `save`.

    Raises:
        ModuleNotFoundError: peft is not installed.
        TypeError: `model` is not a PEFT model.
        ValueError: the adapters cannot be merged, or contain NaN or infinities.
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
    except (NotImplementedError, AttributeError, TypeError) as error:  # from methods without weights to merge
        raise ValueError(f"the adapters of this model cannot be merged: {error}") from error
    with torch.no_grad():
        for layer, mask in kept:
            layer.weight.masked_fill_(~mask, 0.0)
    return merged
