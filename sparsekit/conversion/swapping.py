"""Replace layers by sparse ones where these are faster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsekit.conversion.measuring.gain import Gain, GainTable, best_layout
from sparsekit.conversion.measuring.sensitivity import output_errors
from sparsekit.conversion.places import places_in, put_in_place
from sparsekit.conversion.report import LayerReport
from sparsekit.formats.dtypes import FLOATS, dtype_name
from sparsekit.introspect.dense_classes import why_not_linear
from sparsekit.introspect.hooks import attached
from sparsekit.introspect.selection import shared_weights
from sparsekit.introspect.weight_users import weights_used
from sparsekit.nn import SparseLinear
from sparsekit.pruning.calibration.batches import Batch
from sparsekit.pruning.layers import weight_of
from sparsekit.pruning.split_model import on_split_modules
from sparsekit.wording import counted

#: Below this sparsity layers are not measured: with five bytes an entry and padding, the packed weight is no smaller
#: than the dense one. 16-bit and int8 entries take three and two bytes, and are always measured.
_HOPELESS = {"float32": 0.25}


@dataclass(frozen=True)
class Settings:
    """Arguments of `convert`."""

    tokens: Sequence[int]
    dtype: str
    min_sparsity: float | None
    error_budget: float | None

    def least_sparsity(self, dtype: str) -> float:
        """Sparsity below which no layer is stored in this type."""
        return _HOPELESS.get(dtype, 0.0) if self.min_sparsity is None else self.min_sparsity

    def layouts_within(self, errors: Mapping[str, float]) -> list[str]:
        """Layouts whose output error is within the budget."""
        budget = self.error_budget
        return [layout for layout, error in errors.items() if budget is not None and error <= budget]

    def dtype_within(self, errors: Mapping[str, float]) -> str:
        """Storage type of a layer, given its output errors in the requested type, by layout."""
        return self.dtype if self.error_budget is None or self.layouts_within(errors) else "float32"


def sparsity_of(weight: torch.Tensor) -> float:
    """Fraction of zeros; 0 for a weight without values."""
    if weight.is_meta or not weight.numel():
        return 0.0
    return 1.0 - weight.count_nonzero().item() / weight.numel()


def _bytes(module: nn.Module) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _slower(gains: Mapping[int, Gain]) -> str:
    """Numbers of tokens for which dense is faster, in words; empty if there are none."""
    slower = [counted(count, "token") for count, gain in gains.items() if gain.times < 1.0]
    return f"dense is faster at {' and '.join(slower)}" if slower else ""


def _error(errors: Mapping[str, float], layout: str) -> float | None:
    """Output error in a layer's layout, or else the smallest over layouts; None if not measured."""
    return errors.get(layout, min(errors.values(), default=None))


def _sparse(layer: nn.Module, dtype: str) -> tuple[SparseLinear | None, str]:
    """The sparse layer in the preferred layout, or why it cannot be built."""
    try:
        return SparseLinear.from_linear(layer, dtype=dtype), ""
    except ValueError as refusal:  # not every type can hold every weight
        return None, str(refusal)


class Swapper:
    """Replaces layers of a model."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self._model, self._settings = model, settings
        self._shared, self._users, self._places = shared_weights(model), weights_used(model), places_in(model)
        self._gains = GainTable(settings.tokens)

    def why_not(self, name: str, layer: Any) -> str:
        """Why a layer cannot be sparse, whatever its weights; empty if it can."""
        parent = self._model.get_submodule(name.rpartition(".")[0])
        if isinstance(parent, nn.MultiheadAttention):
            return "nn.MultiheadAttention computes with its weight itself"
        if name in self._users:
            return f"{self._users[name]} computes with its weight itself"
        if name in self._shared:
            return "its weight is shared with another module"
        if layer.weight.device.type != "cpu":
            return f"its weight is on {layer.weight.device}, kernels run on the CPU"
        if dtype_name(layer.weight.dtype) not in FLOATS:
            return f"its weight is {layer.weight.dtype}, kernels compute in float32"
        found = attached(layer)
        return f"{found}, which a new module would not run" if found else why_not_linear(layer)

    def survey(self, layers: Mapping[str, nn.Module], dtypes: Mapping[str, str]) -> None:
        """Measure the kinds of layers that may gain, unless `min_sparsity` decides."""
        if self._settings.min_sparsity is None:
            self._gains.survey(self._candidates(layers, dtypes))

    def _candidates(
        self, layers: Mapping[str, nn.Module], dtypes: Mapping[str, str]
    ) -> Iterator[tuple[nn.Module, str]]:
        for name, layer in layers.items():
            hopeless = sparsity_of(weight_of(layer)) < self._settings.least_sparsity(dtypes[name])
            if not hopeless and not self.why_not(name, layer):
                yield layer, dtypes[name]

    def swap(self, name: str, layer: nn.Module, dtype: str, errors: Mapping[str, float]) -> LayerReport:
        """Replace a dense layer by a sparse one if that is faster.

        Args:
            name: name of the layer.
            layer: the dense layer.
            dtype: storage type.
            errors: errors of its outputs in the requested type, by layout, if measured.
        """
        weight, before = weight_of(layer), _bytes(layer)
        sparsity, shape = sparsity_of(weight), (weight.shape[0], weight.shape[1])
        sparse, gains, reason = self._tried(name, layer, sparsity, dtype, errors)
        after, stored = before, ("", "", "")
        if sparse is not None:
            put_in_place(self._places, layer, sparse)
            after, stored = _bytes(sparse), (sparse.dtype, sparse.block, sparse.layout)
        speedups = {count: gain.times for count, gain in gains.items()}
        noisy = tuple(count for count, gain in gains.items() if gain.noisy)
        error = _error(errors, stored[-1])
        return LayerReport(name, shape, sparsity, before, after, reason, speedups, *stored, error, noisy)

    def _tried(
        self, name: str, layer: nn.Module, sparsity: float, dtype: str, errors: Mapping[str, float]
    ) -> tuple[SparseLinear | None, Mapping[int, Gain], str]:
        """The sparse layer with its gains, or why the dense one stays."""
        reason, least = self.why_not(name, layer), self._settings.least_sparsity(dtype)
        if not reason and sparsity < least:
            reason = f"sparsity below {least:.0%}"
        if reason:
            return None, {}, reason
        sparse, reason = _sparse(layer, dtype)
        if sparse is None or self._settings.min_sparsity is not None:
            return sparse, {}, reason
        return self._fastest(layer, sparse, errors)

    def _fastest(
        self, layer: nn.Module, sparse: SparseLinear, errors: Mapping[str, float]
    ) -> tuple[SparseLinear | None, Mapping[int, Gain], str]:
        """The same for a layer that can be sparse, in the best measured layout."""
        measured = self._gains.of(layer, sparse)
        fitting = self._settings.layouts_within(errors)
        layout = best_layout({layout: measured[layout] for layout in fitting or measured})
        gains = measured[layout]
        reason = _slower(gains)
        if reason:
            return None, gains, reason
        if len(measured) > 1:
            sparse = SparseLinear.from_linear(layer, dtype=sparse.dtype, layout=layout)
        return sparse, gains, ""


@on_split_modules
def swap_layers(
    model: nn.Module, names: Iterable[str], settings: Settings, batches: Sequence[Batch]
) -> tuple[LayerReport, ...]:
    """Replace the layers that gain, and report on all of them."""
    layers: dict[str, nn.Module] = {name: model.get_submodule(name) for name in names}
    swapper = Swapper(model, settings)
    errors: Mapping[str, Mapping[str, float]] = {}
    if settings.error_budget is not None:
        every_layout = settings.min_sparsity is None
        errors = output_errors(model, layers, settings.dtype, batches, every_layout=every_layout)
    dtypes = {name: settings.dtype_within(errors.get(name, {})) for name in layers}
    swapper.survey(layers, dtypes)
    # Frees each dense layer after its replacement.
    return tuple(swapper.swap(name, layers.pop(name), dtype, errors.get(name, {})) for name, dtype in dtypes.items())
