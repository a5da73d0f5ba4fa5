"""Compare a folder's sparse layers, as the kernels compute them, with float64. numpy only."""

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

#: Layers multiply `_TOKENS` random tokens, each alone and repeated so often: kernels differ for one token and many.
_SEED, _TOKENS, _REPEATS = 0, 4, 16
_MOST_TOKENS = 64
_EPS, _TINY = float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Check:
    """How far numbers are from those expected."""

    absolute: float  # largest difference
    relative: float  # the same, divided by the largest number expected
    tolerance: float  # what `relative` may be

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.relative <= self.tolerance


def compare(found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> Check:
    """Compare numbers; the same infinities and NaN in the same places are no difference."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(same, 0.0, np.abs(found - expected))
    # JSON has neither infinities nor NaN.
    difference = np.nan_to_num(difference, nan=sys.float_info.max, posinf=sys.float_info.max)
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    absolute = float(difference.max(initial=0.0))
    relative = min(absolute / max(largest, _TINY), sys.float_info.max)
    return Check(absolute, relative, tolerance)


def _products(weight: CSR, values: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """`x @ weight.T` in float64 with other values in the weight's places, shape [tokens, out_features]."""
    rows = np.repeat(np.arange(weight.out_features), np.diff(weight.crow_indices))
    with np.errstate(invalid="ignore"):
        return np.stack([np.bincount(rows, values * token[weight.col_indices], weight.out_features) for token in x])


def _bound(weight: CSR, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest error that rounding explains, for every output.

    Sums of k terms in float32 are off by at most about k * eps times the sum of their magnitudes (Higham, Accuracy and
    Stability of Numerical Algorithms, section 3.1). Inputs of int8 layers are rounded to 255 steps from the smallest to
    the largest of a token, zero among them: by half a step, and half of one for where zero lies. Those of int4 layers
    are rounded to multiples of a 127th of the largest magnitude in their group, by half of that.
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
    """What the inputs of int4 layers are rounded to multiples of, the shape of `x`."""
    starts = np.arange(0, x.shape[1], GROUP)
    largest = np.maximum.reduceat(np.abs(x), starts, axis=1) if starts.size else x
    steps: NDArray[np.float64] = np.repeat(largest, GROUP, axis=1)[:, : x.shape[1]] / 127
    return steps


@dataclass(frozen=True)
class LayerChecks:
    """The checks of all sparse layers, and the random tokens that they were made with."""

    seed: int
    tokens: int
    layers: Mapping[str, Check]

    @classmethod
    def from_json(cls, value: Mapping[str, Any], layers: set[str]) -> LayerChecks:
        """What `to_json` wrote, of exactly these layers.

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
    """A finite number of at least 0 out of a file.

    Raises:
        ValueError: it is something else.
    """
    if type(value) not in (int, float) or not 0.0 <= value < math.inf:
        raise ValueError(f"{where} must be a number of at least 0, got {value!r:.80}")
    return float(value)


def check_layer(stored: ModelFolder, name: str, seed: int = _SEED, tokens: int = _TOKENS) -> Check:
    """Run a sparse layer's kernels, without bias and activation function, on random tokens, and compare in float64.

    Args:
        stored: the folder.
        name: the layer.
        seed: of the tokens, which are normally distributed.
        tokens: how many.

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
    """`check_layer` of all sparse layers."""
    names = [name for name, layer in stored.manifest.layers.items() if layer.in_model == "sparse"]
    return LayerChecks(seed, tokens, {name: check_layer(stored, name, seed, tokens) for name in names})
