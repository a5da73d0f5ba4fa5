"""Swap dense linear layers for sparse ones in place, and back."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from sparsekit.conversion.gain import GainTable
from sparsekit.conversion.kept_reports import forget_report, keep_report
from sparsekit.conversion.report import ConversionReport, LayerReport
from sparsekit.conversion.sensitivity import output_errors
from sparsekit.conversion.unreached import count_weights, unreached_weights
from sparsekit.conversion.whole_model import BothModels, check_runs, compare_whole
from sparsekit.conversion.zeros import check_zeros
from sparsekit.fidelity import fidelity
from sparsekit.formats.dtypes import FLOATS, dtype_name, weight_dtype
from sparsekit.fusion.activations import fuse_activations, split_activations
from sparsekit.introspect.dense_classes import is_dense_linear, why_not_linear
from sparsekit.introspect.hooks import attached
from sparsekit.introspect.selection import select_matrices, shared_weights
from sparsekit.introspect.weight_users import weights_used
from sparsekit.nn import SparseLinear
from sparsekit.pruning.calibration import Batch
from sparsekit.pruning.layers import weight_of
from sparsekit.pruning.parametrization import finalize, mask_of
from sparsekit.pruning.split_model import on_split_modules, replace_modules
from sparsekit.splitting import SplitModule, pad_encoders

#: Numbers of tokens for which `convert` measures by default: one, as a language model writes, and a batch of texts.
TOKENS = (1, 128)


#: Below this sparsity a packed weight, five bytes an entry and padding, is no smaller than the dense one: not measured.
#: With smaller weights, three bytes an entry or two, it always is.
_HOPELESS = {"float32": 0.25}


def _bytes(module: nn.Module) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _why_not(model: nn.Module, name: str, layer: Any, shared: Container[str], users: Mapping[str, str]) -> str:
    """Why a layer cannot be sparse, whatever its weights; empty when it can."""
    parent = model.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention):
        return "nn.MultiheadAttention computes with its weight itself"
    if name in users:
        return f"{users[name]} computes with its weight itself"
    if name in shared:
        return "its weight is shared with another module"
    if layer.weight.device.type != "cpu":
        return f"its weight is on {layer.weight.device}, kernels run on the CPU"
    if dtype_name(layer.weight.dtype) not in FLOATS:
        return f"its weight is {layer.weight.dtype}, kernels compute in float32"
    found = attached(layer)
    return f"{found}, which a new module would not run" if found else why_not_linear(layer)


_Places = dict[nn.Module, list[tuple[nn.Module, str]]]


def _places(model: nn.Module) -> _Places:
    """For every module of a model, which modules hold it under which names."""
    found: _Places = {}
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None:
                found.setdefault(child, []).append((parent, name))
    return found


def _keep_bias(old: nn.Module, new: nn.Module) -> None:
    """Give a new layer the bias of the one before, the parameter itself: it may have other names and an optimizer."""
    if isinstance(old.bias, nn.Parameter):
        new.bias = old.bias


def _replace(places: _Places, old: nn.Module, new: nn.Module) -> None:
    """Put `new` in every place that holds `old`."""
    _keep_bias(old, new)
    for parent, name in places.pop(old):
        parent._modules[name] = new


def _sparsity(weight: torch.Tensor) -> float:
    """Fraction of zeros; 0 for a weight that holds no values to count."""
    if weight.is_meta or not weight.numel():
        return 0.0
    return 1.0 - weight.count_nonzero().item() / weight.numel()


def _least(dtype: str, min_sparsity: float | None) -> float:
    """The sparsity below which no layer is converted."""
    return _HOPELESS.get(dtype, 0.0) if min_sparsity is None else min_sparsity


def _candidates(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    dtypes: Mapping[str, str],
    shared: Container[str],
    users: Mapping[str, str],
) -> Iterator[tuple[nn.Module, str]]:
    """The layers to measure, and the type to store each in."""
    for name, layer in layers.items():
        hopeless = _sparsity(weight_of(layer)) < _least(dtypes[name], None)
        if not hopeless and not _why_not(model, name, layer, shared, users):
            yield layer, dtypes[name]


def _convert_layer(
    model: nn.Module,
    places: _Places,
    name: str,
    layer: nn.Module,
    shared: Container[str],
    users: Mapping[str, str],
    min_sparsity: float | None,
    gains: GainTable,
    dtype: str,
    error: float | None,
) -> LayerReport:
    weight = weight_of(layer)
    sparsity, before = _sparsity(weight), _bytes(layer)
    after, gained = before, {}
    reason = _why_not(model, name, layer, shared, users)
    least = _least(dtype, min_sparsity)
    if not reason and sparsity < least:
        reason = f"sparsity below {least:.0%}"
    sparse = None
    if not reason:
        try:
            sparse = SparseLinear.from_linear(layer, dtype=dtype)
        except ValueError as refusal:  # not every type of value holds every weight
            reason = str(refusal)
    if sparse is not None:
        if min_sparsity is None:
            gained = dict(gains.of(layer, sparse))
            slower = [f"{count} tokens" for count, gain in gained.items() if gain.times < 1.0]
            reason = f"dense is faster at {' and '.join(slower)}" if slower else ""
        if not reason:
            _replace(places, layer, sparse)
            after = _bytes(sparse)
    shape = weight.shape[0], weight.shape[1]
    stored = (sparse.dtype, sparse.block) if sparse is not None and not reason else ("", "")
    speedups = {count: gain.times for count, gain in gained.items()}
    noisy = tuple(count for count, gain in gained.items() if gain.noisy)
    return LayerReport(name, shape, sparsity, before, after, reason, speedups, *stored, error, noisy)


def _dtype_within(dtype: str, error_budget: float | None, error: float | None) -> str:
    """The type to store a layer in, given how far its outputs move in the one asked for."""
    fits = error_budget is None or (error is not None and error <= error_budget)
    return dtype if fits else "float32"


@on_split_modules
def _prepare(
    model: nn.Module,
    targets: Iterable[str],
    ignore: Iterable[str],
    dtype: str,
    min_sparsity: float | None,
    batches: Sequence[Batch],
) -> list[str]:
    """Refuse what cannot be converted, then bake masks in. Returns the names of the layers to convert."""
    layers = select_matrices(model, targets, ignore)
    for name, layer in layers.items():
        if is_lazy(layer.weight):  # type: ignore[arg-type]
            raise ValueError(f"{name}.weight has no values yet, it is lazy; run the model once before it is converted")
    weights = map(weight_of, layers.values())
    sparsities = (_sparsity(weight) for weight in weights if not weight.is_meta)
    check_zeros(sparsities, dtype, min_sparsity, _least(dtype, min_sparsity))
    if batches:
        check_runs(model, batches)
    for layer in layers.values():
        if mask_of(layer) is not None:
            finalize(layer)
    return list(layers)


@on_split_modules
def _swap(
    model: nn.Module,
    names: Iterable[str],
    tokens: Sequence[int],
    min_sparsity: float | None,
    dtype: str,
    error_budget: float | None,
    batches: Sequence[Batch],
) -> tuple[LayerReport, ...]:
    """Put sparse layers in the places of those that gain."""
    layers: dict[str, nn.Module] = {name: model.get_submodule(name) for name in names}
    shared, users, places = shared_weights(model), weights_used(model), _places(model)
    gains = GainTable(tokens)
    errors = {} if error_budget is None else output_errors(model, layers, dtype, batches)
    dtypes = {name: _dtype_within(dtype, error_budget, errors.get(name)) for name in layers}
    if min_sparsity is None:
        gains.survey(_candidates(model, layers, dtypes, shared, users))
    rows = [
        _convert_layer(
            model, places, name, layers.pop(name), shared, users, min_sparsity, gains, dtypes[name], errors.get(name)
        )
        for name in dtypes  # a dense layer is freed once it has been replaced
    ]
    return tuple(rows)


def convert(
    model: nn.Module,
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] = (),
    *,
    tokens: Sequence[int] = TOKENS,
    min_sparsity: float | None = None,
    fuse: bool = True,
    dtype: str | torch.dtype = "float32",
    error_budget: float | None = None,
    batches: Sequence[Batch] = (),
    reference: nn.Module | None = None,
) -> nn.Module:
    """Swap the model's pruned linear layers for `SparseLinear`, in place.

    Masks of `prune` are baked in first. Every layer is measured, dense against sparse, on this machine with torch's
    present number of threads: until the machine was quiet enough or a second or so is over, and again where a gain is
    small or larger than can be believed; the report says what stayed noisy. Layers that cannot be sparse or would be
    slower stay as they are; the report says why. With `batches` the converted model is compared with its dense self,
    which is what the report says first: only that tells what the model gains as a whole.

    Args:
        model: any PyTorch model on the CPU.
        targets: layers to convert: class names, module names or "re:" patterns; see `prune` for what "Linear" takes in.
        ignore: layers to leave dense, in the same notation.
        tokens: rows of the layers' inputs to measure with, such as batch size times sequence length; a layer is
            converted when it is not slower for any of them.
        min_sparsity: measure nothing, and convert the layers with at least this fraction of zeros.
        fuse: have sparse layers apply the ReLU, GELU or SiLU module that the model's code hands their result to. Such
            calls are recompiled, in a subclass of the same name that takes the place of the class; all other calls of
            the layer, which becomes a `FusedLinear`, and of the module, a `FusedActivation`, are what they were.
        dtype: of the stored weights: "float32"; "bfloat16" or "float16", two bytes each; "int8", one byte each, with
            inputs quantized dynamically; see `SparseLinear.from_linear`. Blocks of 4x1 are recognised.
        error_budget: largest relative error of a layer's outputs, such as 0.02, that fewer bits may cause on `batches`;
            layers beyond it keep float32 weights. None measures nothing.
        batches: keyword arguments of the model's forward, such as `{"input_ids": ..., "attention_mask": ...}`: inputs
            of the kind the model will see. Model and dense self are run on them, interleaved, and their outputs
            compared; until then the dense layers stay in memory. If the converted model cannot run, the dense one is
            put back.
        reference: the dense model before it was pruned; its outputs on `batches` are compared with the converted
            model's.

    Returns:
        The model. `conversion_report(model)` has an entry for every linear layer that `targets` and `ignore` select,
        says what other matrices stay dense, and with `batches` what the whole gains. Experts of mixtures and
        `nn.MultiheadAttention` have an entry for each of their matrices; see `sparsekit.splitting`.

    Raises:
        TypeError: `targets` or `ignore` is a string.
        ValueError: a target matches nothing, nothing selected is a linear layer, `tokens` is empty or below 1, `dtype`
            is unknown, `error_budget` is not positive or has no `batches`, `reference` has no `batches`, the model
            returns no floats for them; or no layer has zeros, so that none would be converted.

    >>> import sparsekit
    >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> _ = model[0].weight.data[:, 2:].zero_()
    >>> model = convert(model, ignore=["2"], min_sparsity=0.5)
    >>> print(sparsekit.conversion_report(model))
    layer      out x in  sparsity  bytes before   bytes after  held as      times faster
    0             4 x 8     75.0%           144         1,488  float32 4x1
    1 of 1 layers converted, 144 -> 1,488 bytes, 1 activation functions fused
    not reached: 2 (2 x 4), 17.4% of the weights, sparsity 0.0%: targets and ignore leave it out
    69.6% of the model's 46 weights are in sparse layers
    """
    if not tokens or min(tokens) < 1:
        raise ValueError(f"tokens must be numbers of at least 1, got {list(tokens)}")
    dtype = weight_dtype(dtype)
    if error_budget is not None and (not error_budget > 0 or not batches):
        raise ValueError(f"error_budget must be positive and needs batches, got {error_budget}, {len(batches)} batches")
    if reference is not None and not batches:
        raise ValueError("reference needs batches, to compare the outputs of both models on")
    names = _prepare(model, targets, ignore, dtype, min_sparsity, batches)
    both = BothModels(model) if batches else None
    rows = _swap(model, names, tokens, min_sparsity, dtype, error_budget, batches)
    pad_encoders(model, SparseLinear)
    fused = fuse_activations(model) if fuse else 0
    whole = compare_whole(both, batches) if both is not None and both.replaced() else None
    nearness = None if reference is None else fidelity(model, reference, batches)
    others = on_split_modules(unreached_weights)(model, [row.name for row in rows])
    report = ConversionReport(rows, fused, others, *count_weights(model), whole=whole, reference=nearness)
    keep_report(model, report)
    return model


def densify(model: nn.Module) -> nn.Module:
    """Undo `convert`: every `SparseLinear` becomes the dense layer that it was, in place. Returns the model.

    Raises:
        ValueError: a layer was made with an activation function, which dense layers do not have.
    """
    forget_report(model)
    split_activations(model)
    sparse = [module for module in model.modules() if isinstance(module, SparseLinear)]
    dense: dict[nn.Module, nn.Module] = {module: module.to_linear() for module in sparse}
    for old, new in dense.items():
        _keep_bias(old, new)
    replace_modules(model, dense)
    split = [module for module in model.modules() if isinstance(module, SplitModule)]
    replace_modules(model, {module: module.merge() for module in split})
    pad_encoders(model, SparseLinear)
    return model


@on_split_modules
def _sparsify(model: nn.Module, names: Iterable[str]) -> None:
    """Put empty sparse layers in the places of a state dict's sparse weights."""
    modules, places = dict(model.named_modules()), _places(model)
    layers = {name: modules.get(name) for name in names}
    for name, layer in layers.items():
        if layer is None or not (isinstance(layer, SparseLinear) or is_dense_linear(layer)):
            found = "nothing" if layer is None else f"a {type(layer).__name__}"
            raise ValueError(f"the state dict has a sparse weight for {name!r}, where the model has {found}")
    for layer in layers.values():
        if layer is not None and not isinstance(layer, SparseLinear):
            _replace(places, layer, SparseLinear.like(layer))


def load_state_dict(model: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> nn.Module:
    """Load the state dict of a converted model into a fresh dense one, in place. Returns the model.

    Layers that the state dict holds as CSR are swapped for `SparseLinear` first; the others stay dense. Activation
    functions are fused as by `convert`.

    Raises:
        ValueError: the state dict has CSR arrays for something that is no linear layer of the model.
        RuntimeError: keys or shapes do not fit, or CSR arrays are malformed.

    >>> dense = nn.Sequential(nn.Linear(8, 4))
    >>> _ = dense[0].weight.data[:, 2:].zero_()
    >>> converted = nn.Sequential(SparseLinear.from_linear(dense[0]))
    >>> load_state_dict(nn.Sequential(nn.Linear(8, 4)), converted.state_dict())
    Sequential(
      (0): SparseLinear(in_features=8, out_features=4, bias=True, nnz=8, sparsity=0.750, block='4x1')
    )
    """
    _sparsify(model, [key.removesuffix(".crow_indices") for key in state_dict if key.endswith(".crow_indices")])
    pad_encoders(model, SparseLinear)
    model.load_state_dict(state_dict)
    fuse_activations(model)
    return model
