"""Convert a model: its pruned linear layers become sparse ones, in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from sparsekit.conversion.kept_reports import keep_report
from sparsekit.conversion.measuring.token_counts import token_counts
from sparsekit.conversion.measuring.whole_model import BothModels, check_runs, compare_whole
from sparsekit.conversion.report import ConversionReport
from sparsekit.conversion.swapping import Settings, sparsity_of, swap_layers
from sparsekit.conversion.unreached import count_weights, unreached_weights
from sparsekit.conversion.word_embeddings import EMBEDDINGS, check_word_embeddings, swap_word_embeddings
from sparsekit.conversion.zeros import check_zeros
from sparsekit.fidelity import fidelity
from sparsekit.formats.dtypes import weight_dtype
from sparsekit.fusion.activations import fuse_activations
from sparsekit.introspect.selection import select_matrices
from sparsekit.nn import SparseLinear
from sparsekit.pruning.calibration.batches import Batch
from sparsekit.pruning.layers import weight_of
from sparsekit.pruning.masks.parametrization import finalize, mask_of
from sparsekit.pruning.split_model import on_split_modules
from sparsekit.splitting import pad_encoders

Model = TypeVar("Model", bound=nn.Module)

#: Numbers of tokens to measure without batches: one, as in decoding, and a batch of texts.
TOKENS = (1, 128)


@on_split_modules
def _prepare(
    model: nn.Module,
    targets: Iterable[str],
    ignore: Iterable[str],
    settings: Settings,
    batches: Sequence[Batch],
    embeddings: str,
) -> list[str]:
    """Check the arguments and the model, then bake masks in. Returns the names of the layers to convert."""
    layers = select_matrices(model, targets, ignore)
    for name, layer in layers.items():
        if is_lazy(layer.weight):  # type: ignore[arg-type]
            raise ValueError(f"{name}.weight has no values yet, it is lazy; run the model once before it is converted")
    weights = map(weight_of, layers.values())
    sparsities = (sparsity_of(weight) for weight in weights if not weight.is_meta)
    least = settings.least_sparsity(settings.dtype)
    check_zeros(sparsities, settings.dtype, settings.min_sparsity, least, only_layers=embeddings == "float32")
    if batches:
        check_runs(model, batches)
    for layer in layers.values():
        if mask_of(layer) is not None:
            finalize(layer)
    return list(layers)


@on_split_modules
def _token_counts(model: nn.Module, names: Sequence[str], batches: Sequence[Batch]) -> Sequence[int]:
    """Numbers of tokens to measure with: those that occur on the batches."""
    return (batches and token_counts(model, map(model.get_submodule, names), batches)) or TOKENS


def _check_arguments(
    tokens: Sequence[int] | None,
    error_budget: float | None,
    batches: Sequence[Batch],
    reference: nn.Module | None,
    embeddings: str,
) -> None:
    if embeddings not in EMBEDDINGS:
        raise ValueError(f"embeddings must be one of {', '.join(EMBEDDINGS)}, got {embeddings!r}")
    if tokens is not None and (not tokens or min(tokens) < 1):
        raise ValueError(f"tokens must be numbers of at least 1, got {list(tokens)}")
    if error_budget is not None and (not error_budget > 0 or not batches):
        raise ValueError(f"error_budget must be positive and needs batches, got {error_budget}, {len(batches)} batches")
    if reference is not None and not batches:
        raise ValueError("reference needs batches, to compare the outputs of both models on")


def convert(
    model: Model,
    *,
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] = (),
    tokens: Sequence[int] | None = None,
    min_sparsity: float | None = None,
    fuse: bool = True,
    dtype: str | torch.dtype = "float32",
    embeddings: str = "float32",
    error_budget: float | None = None,
    batches: Sequence[Batch] = (),
    reference: nn.Module | None = None,
) -> Model:
    """Swap the model's pruned linear layers for `SparseLinear`, in place.

    Masks of `prune` are applied first. Every layer is timed, dense against sparse, on this machine with torch's current
    number of threads; noisy and implausible times are measured again, and the report marks what stayed noisy. If
    several layouts of a weight may be fastest (`CSR.layouts`), all are timed, and the best for `tokens` is used. Layers
    that cannot be sparse or would be slower stay dense; the report says why. With `batches`, the converted model is
    also timed against the dense model, interleaved: the report begins with the speed-up of the whole model.

    Args:
        model: any PyTorch model on the CPU.
        targets: layers to convert: class names, module names or "re:" patterns; see `prune` for what "Linear" includes.
        ignore: layers to leave dense, in the same notation.
        tokens: rows of the layers' inputs to measure with, such as batch size times sequence length; a layer is
            converted if it is not slower for any of them. None: the numbers that occur on `batches`, or 1 and 128.
        min_sparsity: measure nothing, and convert the layers with at least this fraction of zeros.
        fuse: fuse ReLU, GELU and SiLU modules into the sparse layers before them. The calling method is recompiled, in
            a subclass of the same name; the layer becomes a `FusedLinear` and the module a `FusedActivation`, and all
            their other calls are unchanged.
        dtype: type of the stored weights: "float32"; "bfloat16" or "float16", two bytes each; "int8", one byte each,
            with dynamic quantization of inputs; see `SparseLinear.from_linear`. 4x1 blocks are detected.
        embeddings: "float32" leaves word embeddings unchanged; "int8" replaces them by `Int8Embedding`, with a scale
            for each row. They are those of `get_input_embeddings`, or else the `nn.Embedding` with the most weights,
            whatever `targets` and `ignore` select.
        error_budget: largest relative error, such as 0.02, that `dtype` may cause in a layer's outputs on `batches`;
            other layers keep float32 weights. None: no limit.
        batches: keyword arguments of the model's forward, such as `{"input_ids": ..., "attention_mask": ...}`: inputs
            like those in production. The dense layers stay in memory until both models have run on them. If the
            converted model cannot run, the dense model is restored, word embeddings included.
        reference: the model before pruning, to compare outputs with on `batches`.

    Returns:
        The model. `conversion_report(model)` has an entry for every linear layer that `targets` and `ignore` select,
        and for each matrix of experts and of `nn.MultiheadAttention` (see `sparsekit.splitting`). It lists other dense
        matrices, int8 embeddings and, with `batches`, the speed-up of the whole model.

    Raises:
        TypeError: `targets` or `ignore` is a string.
        ValueError: a target matches nothing, nothing selected is a linear layer, `tokens` is empty or below 1, `dtype`
            is unknown, `error_budget` is not positive or has no `batches`, `reference` has no `batches`, the model
            returns no floats for them; no layer has zeros, so that nothing would be converted; `embeddings` is unknown,
            or "int8" where there are none, or a head is tied to them, or their class or settings are special.

    >>> import sparsekit
    >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> _ = model[0].weight.data[:, 2:].zero_()
    >>> model = convert(model, ignore=["2"], min_sparsity=0.5)
    >>> print(sparsekit.conversion_report(model))  # doctest: +ELLIPSIS, +NORMALIZE_WHITESPACE
    layer  out x in  sparsity  before  after  weights
    0         4 x 8     75.0%   144 B  ...  float32 4x1
    1 of 1 layer converted, 144 B -> ..., 1 activation function fused
    not converted: 2 (2 x 4), 17.4% of the weights, sparsity 0.0%: targets and
        ignore leave it out
    69.6% of the model's 46 weights are in sparse layers
    """
    _check_arguments(tokens, error_budget, batches, reference, embeddings)
    tables = check_word_embeddings(model) if embeddings == "int8" else {}
    settings = Settings(tokens or TOKENS, weight_dtype(dtype), min_sparsity, error_budget)
    names = _prepare(model, targets, ignore, settings, batches, embeddings)
    if tokens is None and min_sparsity is None:
        settings = replace(settings, tokens=_token_counts(model, names, batches))
    both = BothModels(model) if batches else None
    smaller = swap_word_embeddings(model, tables)
    rows = swap_layers(model, names, settings, batches)
    pad_encoders(model, SparseLinear)
    fused = fuse_activations(model) if fuse else 0
    whole = compare_whole(both, batches) if both is not None and both.replaced() else None
    nearness = None if reference is None else fidelity(model, reference, batches)
    others = on_split_modules(unreached_weights)(model, [row.name for row in rows])
    report = ConversionReport(
        rows, fused, others, *count_weights(model), whole=whole, reference=nearness, embeddings=smaller
    )
    keep_report(model, report)
    return model
