"""How layers are stored: as packed by the engine, else in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from sparsekit import runtime
from sparsekit.bench.report.subject import Subject
from sparsekit.conversion.report import LEAST_ZEROS
from sparsekit.engine.compiled_file import NO_LAYER, stored_tensors
from sparsekit.engine.compiling import module_names
from sparsekit.introspect.dense_classes import is_dense_linear
from sparsekit.io.untrusted import read_object, regular_file
from sparsekit.nn import SparseLinear
from sparsekit.pruning.layers import weight_of
from sparsekit.recipes.report.page import RUN_REPORT, converted_layers
from sparsekit.report.facts import LayerFacts


def _fact(name: str, info: runtime.PackedInfo, nbytes: int) -> LayerFacts:
    size = info.out_features * info.in_features
    sparsity = 1.0 - info.nnz / size if size else 0.0
    return LayerFacts(
        name, (info.out_features, info.in_features), sparsity, info.dtype, info.block, info.layout, nbytes
    )


def _in_engine(subject: Subject) -> Iterator[LayerFacts]:
    assert subject.compiled is not None  # noqa: S101 - for the type checker
    names = {} if subject.folder is None else module_names(subject.folder)
    shared = list(names.values())
    for tensor in stored_tensors(subject.compiled):
        if tensor.kind == "packed":
            name = tensor.role if tensor.layer == NO_LAYER else f"{tensor.layer}.{tensor.role}"
            module = names.get((tensor.layer, tensor.role))
            if module is not None:
                name = module if shared.count(module) == 1 else f"{module} ({tensor.role})"
            yield _fact(name, runtime.packed_info(tensor.data), tensor.data.size)


def _in_torch(model: nn.Module) -> Iterator[LayerFacts]:
    for name, module in model.named_modules():
        if isinstance(module, SparseLinear):
            packed = module.packed.numpy(force=True)
            yield _fact(name, runtime.packed_info(packed), packed.size)
        elif is_dense_linear(module):
            weight = weight_of(module)
            sparsity = 1.0 - int((weight != 0).sum()) / max(1, weight.numel())
            out_features, in_features = weight.shape
            dtype = str(weight.dtype).removeprefix("torch.")
            yield LayerFacts(name, (out_features, in_features), sparsity, dtype, "", "dense", weight.nbytes)


def _reasons(folder: Path | None) -> Mapping[str, str]:
    """Why layers stayed dense, from the report of the run that wrote the folder."""
    if folder is None or not (folder / RUN_REPORT).exists():
        return {}
    found = read_object(regular_file(folder, RUN_REPORT))
    return {layer.name: layer.reason for layer in converted_layers(found.get("stages"))}


def layers_of(subject: Subject) -> list[LayerFacts]:
    """Linear layers of a model.

    Raises:
        ValueError: there are none; the report in its folder is damaged.
    """
    found = _in_torch(subject.model) if subject.compiled is None else _in_engine(subject)
    reasons = _reasons(subject.folder)
    layers = []
    for layer in found:
        reason = ""
        if layer.layout == "dense":
            reason = reasons.get(layer.name, "") or ("no zeros to skip" if layer.sparsity < LEAST_ZEROS else "")
        layers.append(replace(layer, reason=reason))
    if not layers:
        raise ValueError(f"{subject.path} has no linear layer to report on")
    return layers
