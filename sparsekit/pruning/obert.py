"""oBERT: prune by the inverse empirical Fisher matrix of the loss, and correct the weights that stay.

Kurtic et al., "The Optimal BERT Surgeon", arXiv 2203.07259. SparseGPT preserves each layer's outputs; oBERT preserves
the loss, so it needs labels or another loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparsekit.pruning.calibration.gradients import Loss
from sparsekit.pruning.calibration.inverse_fisher import InverseFisher, inverse_fishers, layer_groups
from sparsekit.pruning.criteria.fisher import score
from sparsekit.pruning.fidelity_warning import warns_if_far
from sparsekit.pruning.layers import select_prunable, weight_of
from sparsekit.pruning.masks.from_scores import check_structure, masks_by_sparsity
from sparsekit.pruning.masks.parametrization import assign_masked
from sparsekit.pruning.sparsity import sparsities_of
from sparsekit.pruning.split_model import on_split_modules
from sparsekit.surgery import undo_on_failure


def _first(batches: Sequence[Any], num_gradients: int | None) -> Sequence[Any]:
    if num_gradients is None:
        return batches
    if not 1 <= num_gradients <= len(batches):
        raise ValueError(
            f"num_gradients must be between 1 and the number of batches, {len(batches)}, got {num_gradients}; "
            "smaller batches give more gradients"
        )
    return batches[:num_gradients]


def _prune_layer(
    weight: torch.Tensor, inverse: InverseFisher, sparsity: float, mask_structure: str
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = {"weight": score(weight, inverse.diagonal())}
    mask = masks_by_sparsity(scores, sparsity, mask_structure=mask_structure)["weight"]
    return inverse.correct(weight, mask).to(weight.dtype), mask


@warns_if_far
@on_split_modules
def prune_obert(
    model: nn.Module,
    sparsity: float | Mapping[str, float] | None = None,
    batches: Sequence[Any] = (),
    *,
    loss: Loss | None = None,
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] = (),
    mask_structure: str = "unstructured",
    fisher_block_size: int = 50,
    damping: float = 1e-7,
    num_gradients: int | None = None,
    max_bytes: int = 2**31,
) -> dict[str, float]:
    """Prune the weights that raise the loss least to second order, and correct the others, in place.

    Every batch gives one gradient; all are taken on the dense model. The masks stay through later training; `finalize`
    bakes them in. Gradual pruning with training in between, as in the paper, keeps more accuracy than one step: the
    estimate holds near the weights it was made at.

    Time grows with weights times `fisher_block_size` times gradients. Memory: 8 * `fisher_block_size` bytes for each
    weight of the layers of one pass, and their 16 latest gradients; layers that do not fit into `max_bytes` take
    another pass over the batches. The result is the same.

    Args:
        model: any PyTorch model.
        sparsity: fraction of weights to mask in every layer, in [0, 1), or one for each layer by name, as
            `allocate_sparsity` gives them. "N:M" structures imply it.
        batches: what `loss` takes.
        loss: a function of the model and a batch that returns a scalar; None: the loss in the model's output, for
            batches that are keyword arguments of its forward.
        targets: layers to prune, as in `prune`.
        ignore: layers to leave out, in the same notation.
        mask_structure: "unstructured", "N:M" or "RxC", as in `prune`; a block's score is the sum of its weights'.
        fisher_block_size: inputs of one output whose weights are corrected for one another, 50 in the paper.
        damping: added to the Fisher matrix's diagonal, in the unit of a squared gradient.
        num_gradients: take only the first so many batches.
        max_bytes: memory for inverse matrices; a single layer may take more.

    Returns:
        Layer name -> the layer's sparsity now.

    Raises:
        TypeError: `targets` or `ignore` is a string, or a batch without `loss` is no mapping.
        ValueError: an argument is out of range, a target matches nothing, the loss is no scalar, misses or leaves a
            layer out, a shape does not fit the structure, or a weight is shared with another module.
    """
    chosen = _first(batches, num_gradients)
    layers = select_prunable(model, targets, ignore)
    wanted = sparsities_of(layers, sparsity, mask_structure)
    for name, layer in layers.items():
        check_structure(name, weight_of(layer), mask_structure)
    decided: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for group in layer_groups(layers, fisher_block_size, max_bytes):
        inverses = inverse_fishers(model, group, chosen, loss, fisher_block_size=fisher_block_size, damping=damping)
        decided |= {
            name: _prune_layer(weight_of(layers[name]), inverse, wanted[name], mask_structure)
            for name, inverse in inverses.items()
        }
    with undo_on_failure(model):
        for name, (weight, mask) in decided.items():
            assign_masked(layers[name], weight, mask)
    return {name: 1.0 - mask.float().mean().item() for name, (_, mask) in decided.items()}
