"""`prune_sparsegpt`: SparseGPT over a whole model, one transformer block after the other on calibration batches.

Frantar and Alistarh, "SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot", arXiv 2301.00774.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn

from sparsekit.int4_groups import GROUP
from sparsekit.introspect.module_paths import lies_within, name_within
from sparsekit.introspect.transformer_blocks import transformer_blocks
from sparsekit.progress import Progress
from sparsekit.pruning.calibration.batches import Batch
from sparsekit.pruning.fidelity_warning import warns_if_far
from sparsekit.pruning.layers import select_prunable, weight_of
from sparsekit.pruning.masks.from_scores import check_structure, group_width
from sparsekit.pruning.masks.int4_rounding import apply_rounding
from sparsekit.pruning.masks.parametrization import assign_masked
from sparsekit.pruning.sparsegpt.moments import TransformerBlockPair
from sparsekit.pruning.sparsegpt.samples import layers_by_input, samples_of
from sparsekit.pruning.sparsegpt.solver import match_targets, prune_and_round
from sparsekit.pruning.sparsity import sparsities_of
from sparsekit.pruning.split_model import on_split_modules
from sparsekit.surgery import undo_on_failure


def blocks_holding(model: nn.Module, layers: Iterable[str]) -> dict[str, nn.Module]:
    """The model's transformer blocks by name, in the order they run.

    Raises:
        ValueError: it has none, or they do not hold all layers to prune.
    """
    layers = list(layers)
    found = transformer_blocks(model, layers)
    outside = [layer for layer in layers if not any(lies_within(name, layer) for name in found)]
    if outside:
        raise ValueError(
            f"{', '.join(outside)} lie outside the model's transformer blocks {next(iter(found))}, ...; put them into "
            "ignore"
        )
    return found


def _check_dtype(dtype: str | None, mask_structure: str) -> None:
    if dtype not in (None, "int4"):
        raise ValueError(f"dtype must be None or 'int4', got {dtype!r}")
    if dtype is not None and GROUP % group_width(mask_structure):
        raise ValueError(f"int4 scales are of {GROUP} columns, which {mask_structure} does not divide")


def _prune_layers(
    pair: TransformerBlockPair,
    layers: dict[str, nn.Module],
    sparsity: Mapping[str, float],
    mask_structure: str,
    damping: float,
    dtype: str | None,
) -> Iterator[tuple[str, float]]:
    """Prune a transformer block's layers in the order they run; yields each layer's name in it and its sparsity."""
    for group in layers_by_input(pair.pruned, pair.number, layers, pair.samples[0]):
        moments = pair.gather_moments(group[0])
        for name in group:
            layer = layers[name]
            matched = match_targets(weight_of(layer).float(), moments.hessian, moments.cross, damping)
            weight, mask, scales = prune_and_round(
                matched, moments.hessian, sparsity[name], dtype, mask_structure, damping
            )
            assign_masked(layer, weight, mask)
            if scales is not None:
                apply_rounding(layer, scales)
            yield name, 1.0 - mask.float().mean().item()
    pair.advance()


def _prune_all(
    model: nn.Module,
    blocks: Mapping[str, nn.Module],
    batches: Sequence[Batch],
    layers: Mapping[str, nn.Module],
    sparsity: Mapping[str, float],
    mask_structure: str,
    damping: float,
    dtype: str | None,
    on_layer: Callable[[str], None],
) -> dict[str, float]:
    """Prune each transformer block on the outputs of those before it; returns every layer's sparsity."""
    reached: dict[str, float] = {}
    samples = samples_of(model, list(blocks.values()), batches)
    dense_samples = [copy.copy(sample) for sample in samples]
    for number, (block_name, block) in enumerate(blocks.items()):
        names = {name_within(block_name, name): name for name in layers if lies_within(block_name, name)}
        inside = {name: layers[whole] for name, whole in names.items()}
        wanted = {name: sparsity[whole] for name, whole in names.items()}
        pair = TransformerBlockPair(number, block, copy.deepcopy(block), samples, dense_samples)
        for name, got in _prune_layers(pair, inside, wanted, mask_structure, damping, dtype):
            reached[names[name]] = got
            on_layer(names[name])
    return reached


@warns_if_far
@torch.no_grad()
@on_split_modules
def prune_sparsegpt(
    model: nn.Module,
    sparsity: float | Mapping[str, float] | None = None,
    batches: Sequence[Batch] = (),
    *,
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] = (),
    mask_structure: str = "unstructured",
    damping: float = 0.01,
    dtype: str | None = None,
    on_layer: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Prune a model by SparseGPT, in place: mask weights and correct those that stay; no training.

    Layers are pruned in the order they run, those that read the same input together. Each is first fitted to the dense
    model's outputs on the inputs that the pruned layers before it produce, then pruned as in SparseGPT. The masks stay
    through later training; `finalize` bakes them in. A run that fails or is stopped leaves the model as it was: the
    dense weights are kept until the last transformer block is done.

    Args:
        model: a model whose transformer blocks are an `nn.ModuleList`, called one after another with hidden states
            first.
        sparsity: fraction of weights to mask in every layer, in [0, 1), or one for each layer by name, as
            `allocate_sparsity` gives them. "N:M" structures imply it.
        batches: keyword arguments of the model's forward; with an "attention_mask", padding does not count. A few
            hundred sentences of the kind the model will see.
        targets: layers to prune: class names, module names or "re:" patterns.
        ignore: layers to leave out, in the same notation.
        mask_structure: "unstructured", "N:M" or "RxC", as in `prune`.
        damping: ridge, as a fraction of the mean diagonal of the layer's Hessian.
        dtype: "int4": round the weights that stay as well, and correct what that changes, with a scale for each group
            of 128 input features of a row. The scales stay through later training, which rounds with a straight-through
            gradient; `convert(dtype="int4")` takes them. None: round nothing.
        on_layer: called with the name of every layer that is done.

    Returns:
        Layer name -> the layer's sparsity now.

    Raises:
        TypeError, ValueError: as `prune`; also when there are no batches, no transformer blocks, or layers outside
            them; `dtype` is unknown, or groups of the mask's structure do not fit into 128 columns.
    """
    _check_dtype(dtype, mask_structure)
    if not batches:
        raise ValueError("calibration needs at least one batch, got none")
    layers = select_prunable(model, targets, ignore)
    wanted = sparsities_of(layers, sparsity, mask_structure)
    for name, layer in layers.items():
        check_structure(name, weight_of(layer), mask_structure)
    blocks = blocks_holding(model, layers)
    was_training = model.training
    model.eval()
    shown: Progress[str] = Progress(title="prune", unit="layers", total=len(layers))

    def done(name: str) -> None:
        shown.update()
        if on_layer is not None:
            on_layer(name)

    try:
        with undo_on_failure(model):
            return _prune_all(model, blocks, batches, layers, wanted, mask_structure, damping, dtype, done)
    finally:
        shown.close()
        model.train(was_training)
