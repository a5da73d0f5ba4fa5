"""Movement pruning: while a model is fine-tuned, scores learn which weights move away from zero, and are kept.

Sanh et al., "Movement Pruning: Adaptive Sparsity by Fine-Tuning", arXiv 2005.07683, section 4. Hard pruning keeps the
weights with the highest scores; soft pruning keeps those whose score is above a threshold, and a penalty on the scores
drives them below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from sparsekit.pruning.layers import select_prunable
from sparsekit.pruning.masks.from_scores import drop_lowest
from sparsekit.pruning.masks.parametrization import Mask, mask_of, masked_parameters
from sparsekit.pruning.sparsity import check_sparsity
from sparsekit.surgery import undo_on_failure


class MovementMask(nn.Module):
    """Parametrization of a weight by a mask that comes from learned scores.

    Args:
        weight: what is masked, any shape.
        threshold: soft pruning keeps a weight while `sigmoid(score) > threshold`; None: hard pruning drops the fraction
            `sparsity` with the lowest scores.
    """

    sparsity: torch.Tensor  # a buffer, so that a state dict says how far hard pruning is

    def __init__(self, weight: torch.Tensor, threshold: float | None) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros_like(weight, requires_grad=False))
        self.threshold = threshold
        self.register_buffer("sparsity", torch.zeros((), dtype=torch.float64))

    def mask(self) -> torch.Tensor:
        """Which weights stay now, bool, of the weight's shape."""
        scores = self.scores.detach()
        if self.threshold is not None:
            return torch.sigmoid(scores) > self.threshold
        return drop_lowest(scores.flatten(), scores.numel() - self.kept()).reshape(scores.shape)

    def kept(self) -> int:
        """How many weights stay now."""
        if self.threshold is not None:
            return int(self.mask().sum())
        return self.scores.numel() - round(float(self.sparsity) * self.scores.numel())

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The masked weight; its gradient reaches the scores, times the weight, as if they were the mask."""
        straight_through = self.scores - self.scores.detach()  # zero, with the gradient of the scores
        return weight * (self.mask() + straight_through)

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """What to store when the weight is assigned."""
        return weight


class Movement:
    """Movement pruning of a model that is being trained; made by `apply_movement`.

    Args:
        layers: the layers whose weights are masked by a `MovementMask`, by name.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self.layers = dict(layers)

    def _steps(self) -> Iterator[MovementMask]:
        if not self.layers:
            raise ValueError("movement pruning is finished and has no scores any more; apply_movement() starts anew")
        for layer in self.layers.values():
            yield layer.parametrizations.weight[0]  # type: ignore[union-attr, index, misc]

    def score_parameters(self) -> list[nn.Parameter]:
        """The scores, for an optimizer's group of their own: the paper gives them a far higher learning rate."""
        return [step.scores for step in self._steps()]

    def set_sparsity(self, sparsity: float) -> None:
        """Mask this fraction of every layer's weights from now on; a `Schedule` says which, from 0 up.

        Raises:
            ValueError: the pruning is soft, or `sparsity` is not in [0, 1).
        """
        check_sparsity(sparsity)
        for step in self._steps():
            if step.threshold is not None:
                raise ValueError("soft movement pruning has no set sparsity; weigh penalty() more in the loss instead")
            step.sparsity.fill_(sparsity)

    def penalty(self) -> torch.Tensor:
        """Mean of `sigmoid(score)` over all weights, a scalar to add to the loss with a weight that rises.

        Raises:
            ValueError: the pruning is hard.
        """
        steps = list(self._steps())
        if any(step.threshold is None for step in steps):
            raise ValueError("hard movement pruning has no penalty; raise set_sparsity() instead")
        total = torch.stack([torch.sigmoid(step.scores).sum() for step in steps]).sum()
        return total / sum(step.scores.numel() for step in steps)

    def sparsity(self) -> float:
        """Fraction of all weights that are masked now."""
        steps = list(self._steps())
        return 1.0 - sum(step.kept() for step in steps) / sum(step.scores.numel() for step in steps)

    def finish(self) -> dict[str, float]:
        """Fix the masks as they are: scores go, and the weights are masked as by `prune`; `finalize` bakes them in.

        An optimizer keeps its state of the weights; the scores in it are idle.

        Returns:
            Layer name -> the layer's sparsity.
        """
        masks = {name: step.mask() for name, step in zip(self.layers, self._steps(), strict=True)}
        for name, layer in self.layers.items():
            steps: nn.ModuleList = layer.parametrizations.weight  # type: ignore[union-attr, assignment]
            steps[0] = Mask(masks[name])
        self.layers = {}
        return {name: 1.0 - mask.float().mean().item() for name, mask in masks.items()}


def masked_sparsity(model: nn.Module) -> float:
    """Sparsity of the weights under masks, fixed or learned; 0 without masks."""
    fixed: list[Any] = [mask_of(module, name) for module in model.modules() for name in masked_parameters(module)]
    learned = [module for module in model.modules() if isinstance(module, MovementMask)]
    size = sum(mask.numel() for mask in fixed) + sum(step.scores.numel() for step in learned)
    kept = sum(int(mask.sum()) for mask in fixed) + sum(step.kept() for step in learned)
    return 1.0 - kept / size if size else 0.0


def apply_movement(
    model: nn.Module,
    *,
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] = (),
    soft: bool = False,
    threshold: float = 0.1,
) -> Movement:
    """Add to every selected layer scores that are trained with its weights and decide which are kept, in place.

    Call it before the optimizer is made, so that this gets the scores. They start at zero, so hard pruning must start
    at sparsity 0 and rise as they learn; soft pruning keeps all weights at first.

    Args:
        model: a model that is to be fine-tuned.
        targets: layers to prune, as in `prune`, but for matrices that are no layers: those of experts and the input
            projections of `nn.MultiheadAttention` get no scores.
        ignore: layers to leave out, in the same notation.
        soft: keep by threshold and penalty instead of by rank.
        threshold: what `sigmoid(score)` must exceed in soft pruning, in (0, 0.5); the paper has 0.1.

    Returns:
        What sets the sparsity, has the penalty and finishes.

    Raises:
        TypeError, ValueError: as `prune` does of `targets` and `ignore`; also when a weight has a mask or another
            parametrization, is shared with another module, or the threshold is out of range.

    >>> model = nn.Sequential(nn.Linear(8, 4))
    >>> movement = apply_movement(model)
    >>> movement.set_sparsity(0.75)
    >>> movement.finish()
    {'0': 0.75}
    """
    if not 0.0 < threshold < 0.5:
        raise ValueError(f"threshold must be in (0, 0.5), since scores start at sigmoid(0) = 0.5, got {threshold}")
    layers = select_prunable(model, targets, ignore)
    for name, layer in layers.items():
        if parametrize.is_parametrized(layer, "weight"):
            raise ValueError(f"{name}.weight has a mask or another parametrization; finalize() or remove it first")
    with undo_on_failure(model):
        for layer in layers.values():
            weight: torch.Tensor = layer.weight  # type: ignore[assignment]
            step = MovementMask(weight.detach(), threshold if soft else None)
            parametrize.register_parametrization(layer, "weight", step)
    return Movement(layers)
