"""Reset the optimizer's state (momentum) of pruned weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sparsekit.pruning.masks.parametrization import mask_of, masked_parameters


def _zero_masked(value: Any, mask: torch.Tensor) -> None:
    mask = mask.to(value.device)
    if hasattr(value, "placements"):  # a DTensor, whose module takes a second to import
        from torch.distributed.tensor import distribute_tensor

        mask = distribute_tensor(mask, value.device_mesh, value.placements, src_data_rank=None).to_local()
        value = value.to_local()
    value.masked_fill_(~mask, 0.0)


@torch.no_grad()
def drop_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Zero the optimizer's state of each masked weight, such as `exp_avg`, `exp_avg_sq` and `momentum_buffer`.

    Call it after pruning during training: pruned weights then stop moving below their mask, and those that a later mask
    restores start without momentum. It zeroes every state tensor of the weight's shape.

    Args:
        optimizer: optimizer of the model's parameters; parameters without state are skipped.
        model: with masks, before `finalize`; its weights may be sharded.
    """
    masked = [(module, name) for module in model.modules() for name in masked_parameters(module)]
    for module, name in masked:
        mask: Any = mask_of(module, name)
        steps: Any = module.parametrizations
        weight = steps[name]._parameters.get("original")
        if weight is None:
            continue
        for value in optimizer.state.get(weight, {}).values():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                _zero_masked(value, mask)
