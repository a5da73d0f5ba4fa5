"""Compare the kernels' outputs for a folder's sparse layers with float64. Needs numpy only."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.folder.model_folder import ModelFolder
from sparsekit.formats import CSR
from sparsekit.int4_groups import GROUP

#: Each of `_TOKENS` random tokens is multiplied alone and repeated, since kernels for one and many tokens differ.
_SEED, _TOKENS, _REPEATS = 0, 4, 16
_MOST_TOKENS = 64
_EPS, _TINY = float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Check:
    """Error of values, with its tolerance."""

    absolute: float  # largest absolute error
    relative: float  # the same, relative to the largest expected magnitude
    tolerance: float  # largest `relative` that passes

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.relative <= self.tolerance


def compare(found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> Check:
    """Compare values; equal infinities and NaN in the same places match."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(same, 0.0, np.abs(found - expected))
    # JSON has no infinities or NaN.
    difference = np.nan_to_num(difference, nan=sys.float_info.max, posinf=sys.float_info.max)
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    absolute = float(difference.max(initial=0.0))
    relative = min(absolute / max(largest, _TINY), sys.float_info.max)
    return Check(absolute, relative, tolerance)


def _products(weight: CSR, values: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """`x @ weight.T` in float64, with `values` in place of the weight's values, shape [tokens, out_features]."""
    rows = np.repeat(np.arange(weight.out_features), np.diff(weight.crow_indices))
    with np.errstate(invalid="ignore"):
        return np.stack([np.bincount(rows, values * token[weight.col_indices], weight.out_features) for token in x])


def _bound(weight: CSR, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bound on the rounding error of every output.

    A sum of k terms in float32 is off by at most about k * eps times the sum of their magnitudes (Higham, Accuracy and
    Stability of Numerical Algorithms, section 3.1). Inputs of int8 layers are quantized to 255 steps between the
    minimum and maximum of a token, including zero: an error of half a step, plus half a step for the zero point. Inputs
    of int4 layers are quantized in steps of 1/127 of the largest magnitude in their group: an error of half a step.
    """
    magnitudes = np.abs(weight.float_values()).astype(np.float64)
    terms = np.diff(weight.crow_indices) + 1
    bound = terms * _EPS * _products(weight, magnitudes, np.abs(x)) + _TINY
    if weight.dtype == "int4":
        bound += 0.501 * _products(weight, magnitudes, _group_steps(x))
    if weight.dtype == "int8":
        steps = (x.max(1, initial=0.0) - x.min(1, initial=0.0)) / 255
        bound += 1.001 * steps[:, None] * _products(weight, magnitudes, np.ones((1, weight.in_features)))
    return bound


def _group_steps(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantization step of the inputs of int4 layers, shape of `x`."""
    starts = np.arange(0, x.shape[1], GROUP)
    largest = np.maximum.reduceat(np.abs(x), starts, axis=1) if starts.size else x
    steps: NDArray[np.float64] = np.repeat(largest, GROUP, axis=1)[:, : x.shape[1]] / 127
    return steps


@dataclass(frozen=True)
class LayerChecks:
    """Checks of all sparse layers, with seed and number of the random tokens."""

    seed: int
    tokens: int
    layers: Mapping[str, Check]

    @classmethod
    def from_json(cls, value: Mapping[str, Any], layers: set[str]) -> LayerChecks:
        """Inverse of `to_json`, for exactly these layers.

        Raises:
            ValueError: it is something else.
        """
        seed, tokens, found = value.get("seed"), value.get("tokens"), value.get("layers")
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise ValueError(f"verification.seed must be a number from 0 to 2^32 - 1, got {seed!r:.80}")
        if type(tokens) is not int or not 1 <= tokens <= _MOST_TOKENS:
            raise ValueError(f"verification.tokens must be a number from 1 to {_MOST_TOKENS}, got {tokens!r:.80}")
        if not isinstance(found, dict) or set(found) != layers:
            raise ValueError("verification.layers must hold the sparse layers and nothing else")
        return cls(seed, tokens, {name: _check_from_json(name, check) for name, check in found.items()})

    def to_json(self) -> dict[str, Any]:
        """As JSON types, for `sparsekit.json`."""
        return asdict(self)


def _check_from_json(name: str, value: Any) -> Check:
    keys = set(Check.__dataclass_fields__)
    if not isinstance(value, dict) or set(value) != keys:
        raise ValueError(f"verification.layers[{name!r}] must have the keys {sorted(keys)}")
    return Check(**{key: number(value[key], f"verification.layers[{name!r}].{key}") for key in keys})


def number(value: Any, where: str) -> float:
    """Check a nonnegative finite number from a file.

    Raises:
        ValueError: it is something else.
    """
    if type(value) not in (int, float) or not 0.0 <= value < math.inf:
        raise ValueError(f"{where} must be a number of at least 0, got {value!r:.80}")
    return float(value)


def check_layer(stored: ModelFolder, name: str, seed: int = _SEED, tokens: int = _TOKENS) -> Check:
    """Run a sparse layer's kernels on random tokens, without bias and activation, and compare with float64.

    Args:
        stored: the folder.
        name: name of the layer.
        seed: seed of the normally distributed tokens.
        tokens: number of tokens.

    Raises:
        ValueError: the weight is damaged or malformed.
    """
    weight = stored.weight(name)
    packed = stored.packed(name)
    x = np.random.default_rng(seed).standard_normal((tokens, weight.in_features), dtype=np.float32)
    many = np.tile(x, (_REPEATS, 1))
    found = np.concatenate([*(runtime.linear(token[None], packed) for token in x), runtime.linear(many, packed)])
    exact = _products(weight, weight.float_values().astype(np.float64), x.astype(np.float64))
    bound = _bound(weight, x.astype(np.float64))
    largest = max(float(np.abs(exact[np.isfinite(exact)]).max(initial=0.0)), _TINY)
    most = float(bound[np.isfinite(bound)].max(initial=0.0)) / largest
    return compare(found, np.tile(exact, (_REPEATS + 1, 1)), most)


def check_layers(stored: ModelFolder, seed: int = _SEED, tokens: int = _TOKENS) -> LayerChecks:
    """Run `check_layer` on all sparse layers."""
    names = [name for name, layer in stored.manifest.layers.items() if layer.in_model == "sparse"]
    return LayerChecks(seed, tokens, {name: check_layer(stored, name, seed, tokens) for name in names})
