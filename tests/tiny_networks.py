"""A small network with batches and a loss, and plain references."""

import copy

import torch
import torch.nn.functional as F
from torch import nn


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5)).double()


def batches(count: int = 4, features: int = 7) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    return [
        {"input": torch.randn(8, features, dtype=torch.float64), "labels": torch.randint(0, 5, (8,))}
        for _ in range(count)
    ]


def cross_entropy(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(model(batch["input"]), batch["labels"])


def gradients(model: nn.Module, layer: str) -> list[torch.Tensor]:
    """Gradients of one layer's weight by plain backward passes on a copy."""
    twin, found = copy.deepcopy(model), []
    for batch in batches():
        twin.zero_grad()
        cross_entropy(twin, batch).backward()
        found.append(twin.get_submodule(layer).weight.grad.clone())
    return found


def without_lowest(score: torch.Tensor, sparsity: float) -> torch.Tensor:
    dropped = round(sparsity * score.numel())
    return (score.flatten() > score.flatten().sort().values[dropped - 1]).reshape(score.shape)
