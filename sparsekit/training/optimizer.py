"""The optimizer of a training run: AdamW with parameter groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from sparsekit.training.settings import TrainSettings

#: Parameters and their learning rate after warm-up; without weight decay.
ParameterGroup: TypeAlias = tuple[Sequence[nn.Parameter], float]


def optimizer_for(
    objective: nn.Module, settings: TrainSettings, own_rates: Sequence[ParameterGroup]
) -> torch.optim.Optimizer:
    """AdamW over all parameters that require gradients; those of `own_rates` at their rate, without weight decay.

    Raises:
        ValueError: no parameter requires a gradient.
    """
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("nothing to train: no parameter of the model or the loss requires a gradient")
    own = {id(one) for parameters, _ in own_rates for one in parameters}
    rest = [one for one in trained if id(one) not in own]
    groups: list[dict[str, Any]] = [
        {"params": [one for one in rest if one.dim() >= 2], "weight_decay": settings.weight_decay, "times": 1.0},
        {"params": [one for one in rest if one.dim() < 2], "weight_decay": 0.0, "times": 1.0},
    ]
    for parameters, rate in own_rates:
        groups.append({"params": list(parameters), "weight_decay": 0.0, "times": rate / settings.learning_rate})
    filled = [group for group in groups if group["params"]]
    return torch.optim.AdamW(filled, lr=settings.learning_rate, fused=True)
