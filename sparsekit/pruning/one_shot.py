"""One-shot pruning of a whole model with second-order correction, block after block on calibration batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from sparsekit.pruning.calibration import Batch, BlockInputs, first_inputs, gather_moments, shared_inputs
from sparsekit.pruning.parametrization import apply_mask
from sparsekit.pruning.second_order import match_targets, prune_weight
from sparsekit.pruning.weights import check_sparsity, select_prunable


def _find_blocks(model: nn.Module, layers: Iterable[str]) -> dict[str, nn.Module]:
    """The model's blocks in order: the longest `nn.ModuleList` that holds layers to prune."""
    layers = list(layers)
    lists = [
        (len(module), name)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and any(layer.startswith(f"{name}.") for layer in layers)
    ]
    if not lists:
        raise ValueError("the model has no nn.ModuleList of blocks that holds layers to prune; use prune() instead")
    _, name = max(lists, key=lambda entry: entry[0])
    outside = [layer for layer in layers if not layer.startswith(f"{name}.")]
    if outside:
        raise ValueError(f"{', '.join(outside)} lie outside the model's blocks {name!r}; put them into ignore")
    return {f"{name}.{child}": module for child, module in model.get_submodule(name).named_children()}


def _assign(layer: nn.Linear, weight: torch.Tensor, mask: torch.Tensor) -> None:
    apply_mask(layer, mask)
    layer.weight = weight  # the parametrization stores it as its original


def _advance(inputs: list[BlockInputs], block: nn.Module) -> None:
    for sample in inputs:
        sample.hidden = sample.run(block)


@torch.no_grad()
def prune_one_shot(
    model: nn.Module,
    batches: Sequence[Batch],
    sparsity: float,
    *,
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] = (),
    mask_structure: str = "unstructured",
    damping: float = 0.01,
    on_layer: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Prune a model in one shot, correcting the weights that stay; no training.

    Layers are handled in the order they run, those that read the same input together. Each is first fitted to the
    dense model's outputs on the inputs that the already pruned layers give it, then pruned as in SparseGPT. The masks
    stay through later training; `finalize` bakes them in.

    Args:
        model: a model whose blocks are an `nn.ModuleList`, called one after another with hidden states first.
        batches: keyword arguments of the model's forward; with an "attention_mask", padding does not count. A few
            hundred sentences of the kind the model will see.
        sparsity: fraction of weights to mask in every layer, in [0, 1).
        targets: layers to prune: class names, module names or "re:" patterns.
        ignore: layers to leave out, in the same notation.
        mask_structure: "unstructured", "N:M" or "RxC", as in `prune`.
        damping: ridge, as a fraction of the mean diagonal of the layer's Hessian.
        on_layer: called with the name of every layer that is done.

    Returns:
        Layer name -> the layer's sparsity now.

    Raises:
        TypeError, ValueError: as `prune`; also when there are no batches, no blocks, or layers outside the blocks.
    """
    check_sparsity(sparsity)
    if not batches:
        raise ValueError("calibration needs at least one batch, got none")
    layers = select_prunable(model, targets, ignore)
    blocks = _find_blocks(model, layers)
    was_training = model.training
    model.eval()
    inputs = first_inputs(model, next(iter(blocks.values())), batches)
    dense_inputs = [copy.copy(sample) for sample in inputs]
    reached: dict[str, float] = {}
    for block_name, block in blocks.items():
        dense_block = copy.deepcopy(block)
        inside = {
            name.removeprefix(f"{block_name}."): layer
            for name, layer in layers.items()
            if name.startswith(f"{block_name}.")
        }
        for group in shared_inputs(block, inside, inputs[0]):
            moments = gather_moments(block, dense_block, group[0], inputs, dense_inputs)
            for name in group:
                dense = inside[name].weight.detach().float()
                matched = match_targets(dense, moments.hessian, moments.cross, damping)
                weight, mask = prune_weight(
                    matched, moments.hessian, sparsity, mask_structure=mask_structure, damping=damping
                )
                _assign(inside[name], weight.to(inside[name].weight.dtype), mask)
                reached[f"{block_name}.{name}"] = 1.0 - mask.float().mean().item()
                if on_layer is not None:
                    on_layer(f"{block_name}.{name}")
        _advance(inputs, block)
        _advance(dense_inputs, dense_block)
    model.train(was_training)
    return reached
