"""Inverse empirical Fisher matrix of the loss, block-diagonal along each output's inputs.

The Fisher matrix approximates the Hessian of the loss: `F = damping * I + (1 / m) * sum of g g^T` over m gradients g
(Singh and Alistarh, "WoodFisher", arXiv 2004.14340). As in oBERT (Kurtic et al., arXiv 2203.07259, section 3), only its
diagonal blocks of B x B are kept. The inverse is updated by the Woodbury identity in float64: it starts at
`1 / damping`, of which most cancels, more digits than float32 has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sparsekit.pruning.calibration.gradients import Loss, weight_gradients
from sparsekit.pruning.layers import weight_of

_TOGETHER = 16  # gradients added at once: the inverse is read and written once for all of them
_ROWS = 64  # outputs updated or corrected at once: bounds the memory beside the inverse


def add_gradients(inverse: torch.Tensor, gradients: torch.Tensor, count: int) -> None:
    """Update the inverse of a Fisher matrix by gradients (Woodbury identity), in place.

    `(F + U U^T / m)^-1 = F^-1 - F^-1 U (m I + U^T F^-1 U)^-1 U^T F^-1`, with the gradients as the columns of U.

    Args:
        inverse: symmetric blocks, float64, shape [n, B, B].
        gradients: k of them, float64, shape [n, B, k].
        count: m, over how many gradients the Fisher matrix is the mean.
    """
    product = inverse @ gradients
    core = gradients.mT @ product
    core.diagonal(dim1=-2, dim2=-1).add_(count)
    half = torch.linalg.solve_triangular(torch.linalg.cholesky(core), product.mT, upper=False)
    inverse.baddbmm_(half.mT, half, alpha=-1.0)


class InverseFisher:
    """Inverse Fisher matrix of one layer: diagonal blocks of `fisher_block_size` inputs of one output.

    The last block of an output may be narrower.

    Args:
        weight: the layer's weight, shape [out_features, in_features].
        count: number of gradients that will be added.
        fisher_block_size: B; the matrix takes 8 * B bytes for each weight.
        damping: diagonal of the Fisher matrix before any gradient, in the unit of a squared gradient.
    """

    def __init__(self, weight: torch.Tensor, count: int, fisher_block_size: int, damping: float) -> None:
        self.in_features = weight.shape[1]
        self.fisher_block_size = min(fisher_block_size, self.in_features)
        self.count = count
        self._waiting: list[torch.Tensor] = []
        cut = self._cut(weight)
        eye = torch.eye(self.fisher_block_size, dtype=torch.float64, device=weight.device)
        self.fisher_blocks = (eye / damping).repeat(*cut.shape[:2], 1, 1)

    def _cut(self, matrix: torch.Tensor) -> torch.Tensor:
        """[out_features, in_features] -> [out_features, blocks, B], with zeros after the last input."""
        missing = -self.in_features % self.fisher_block_size
        cut: torch.Tensor = F.pad(matrix, (0, missing)).unflatten(1, (-1, self.fisher_block_size))
        return cut

    def _join(self, cut: torch.Tensor) -> torch.Tensor:
        return cut.flatten(1)[:, : self.in_features]

    def add(self, gradient: torch.Tensor) -> None:
        """Add a gradient, shape [out_features, in_features]; `finish` after the last."""
        self._waiting.append(gradient)
        if len(self._waiting) == _TOGETHER:
            self.finish()

    def finish(self) -> None:
        """Add the gradients that wait."""
        if not self._waiting:
            return
        rows = zip(*(gradient.split(_ROWS) for gradient in self._waiting), strict=True)
        for fisher_blocks, gradients in zip(self.fisher_blocks.split(_ROWS), rows, strict=True):
            columns = torch.stack([self._cut(gradient.double()) for gradient in gradients], dim=-1)
            add_gradients(fisher_blocks.flatten(0, 1), columns.flatten(0, 1), self.count)
        self._waiting.clear()

    def diagonal(self) -> torch.Tensor:
        """Diagonal of the inverse, float64, shape [out_features, in_features]."""
        return self._join(self.fisher_blocks.diagonal(dim1=-2, dim2=-1))

    def correct(self, weight: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Weight with its pruned entries at zero and the others corrected (optimal brain surgeon).

        All pruned weights Q of a diagonal block at once: `w - F^-1[:, Q] (F^-1[Q, Q])^-1 w[Q]` (oBERT, equation 6).

        Args:
            weight: shape [out_features, in_features].
            mask: bool, same shape; True keeps a weight.

        Returns:
            The corrected weight, float64.
        """
        rows = zip(self._cut(weight.double()).split(_ROWS), self._cut(~mask).split(_ROWS), strict=True)
        done = [_correct(inverse, *parts) for inverse, parts in zip(self.fisher_blocks.split(_ROWS), rows, strict=True)]
        return self._join(torch.cat(done))


def _correct(inverse: torch.Tensor, weight: torch.Tensor, pruned: torch.Tensor) -> torch.Tensor:
    # The pruned rows and columns of the inverse, with an identity in place of the others, so that diagonal blocks
    # with different numbers of pruned weights are solved in one batch.
    system = inverse * (pruned[..., None] & pruned[..., None, :])
    system.diagonal(dim1=-2, dim2=-1).add_((~pruned).double())
    right = torch.where(pruned, weight, 0.0)[..., None]
    shares = torch.cholesky_solve(right, torch.linalg.cholesky(system))
    return torch.where(pruned, 0.0, weight - (inverse @ shares)[..., 0])


def layer_groups(
    layers: Mapping[str, nn.Module], fisher_block_size: int, max_bytes: int
) -> Iterator[dict[str, nn.Module]]:
    """Group layers, in order, so that a group's inverses fit into `max_bytes`; one that does not fit is alone."""
    group: dict[str, nn.Module] = {}
    taken = 0
    for name, layer in layers.items():
        size = weight_of(layer).numel() * min(fisher_block_size, weight_of(layer).shape[1]) * 8
        if group and taken + size > max_bytes:
            yield group
            group, taken = {}, 0
        group[name] = layer
        taken += size
    yield group


def inverse_fishers(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    batches: Sequence[Any],
    loss: Loss | None,
    *,
    fisher_block_size: int,
    damping: float,
) -> dict[str, InverseFisher]:
    """The layers' inverse Fisher matrices from one gradient a batch, in one pass over the batches.

    Raises:
        TypeError, ValueError: as `weight_gradients`; also when `fisher_block_size` is below 1 or `damping` not
            positive.
    """
    if fisher_block_size < 1 or not damping > 0.0:
        raise ValueError(
            f"fisher_block_size must be at least 1 and damping above 0, got {fisher_block_size} and {damping}"
        )
    found = {
        name: InverseFisher(weight_of(layer), len(batches), fisher_block_size, damping)
        for name, layer in layers.items()
    }
    for gradients in weight_gradients(model, layers, batches, loss):
        for name, gradient in gradients.items():
            found[name].add(gradient)
    for inverse in found.values():
        inverse.finish()
    return found


def inverse_diagonals(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    batches: Sequence[Any],
    loss: Loss | None = None,
    *,
    fisher_block_size: int = 50,
    damping: float = 1e-7,
    max_bytes: int = 2**31,
) -> dict[str, torch.Tensor]:
    """Diagonal of every layer's inverse Fisher matrix, float64, [out_features, in_features].

    Args and errors are those of `prune_obert`, and so is the memory that it takes.
    """
    found: dict[str, torch.Tensor] = {}
    for group in layer_groups(layers, fisher_block_size, max_bytes):
        inverses = inverse_fishers(model, group, batches, loss, fisher_block_size=fisher_block_size, damping=damping)
        found |= {
            name: inverse.diagonal().clone() for name, inverse in inverses.items()
        }  # a view would keep the blocks
    return found
