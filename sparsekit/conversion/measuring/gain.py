"""Measure the speed-up of a sparse layer over the dense layer on this machine; doubtful measurements are repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import geometric_mean
from typing import Any, TypeAlias

import torch
from torch import nn

from sparsekit.conversion.measuring.layouts import in_every_layout
from sparsekit.conversion.measuring.one_thread import compare_on_one_thread
from sparsekit.conversion.measuring.plausibility import Kind, agree, is_plausible
from sparsekit.nn import SparseLinear
from sparsekit.pruning.layers import weight_of
from sparsekit.timing.comparing import Timing, compare

#: Seconds for one layer and number of tokens, and the limit while timings are noisy; at least five rounds.
_SECONDS, _AT_MOST = 0.02, 0.2
#: The same for repeated measurements, and the largest number of repetitions until two in a row agree.
_AGAIN_SECONDS, _AGAIN_AT_MOST = 0.1, 0.3
_AGAIN = 2
#: A smaller gain is measured again, so that a slow moment of the machine does not decide.
_CLEAR = 1.2


@dataclass(frozen=True)
class Gain:
    """Speed-up of a sparse layer over the dense layer."""

    times: float
    noisy: bool = False  # whether the machine was too busy to measure it


#: Gains by number of tokens.
Gains: TypeAlias = dict[int, Gain]


def measure(
    dense: nn.Module,
    layers: Mapping[str, SparseLinear],
    tokens: Sequence[int],
    seconds: float = _SECONDS,
    at_most: float = _AT_MOST,
    compare: Callable[..., dict[str, Timing]] = compare,
) -> dict[str, Gains]:
    """Measure the speed-up of a sparse layer for every number of tokens, on torch's current threads.

    Args:
        dense: the dense layer.
        layers: the sparse layer, by layout; all are timed interleaved.
        tokens: rows of the inputs.
        seconds: time for each number of tokens.
        at_most: the limit while timings are noisy.
        compare: timing function.

    Returns:
        Gains by layout.
    """
    weight, gains = weight_of(dense), {layout: Gains() for layout in layers}
    for count in tokens:
        x = torch.randn(count, weight.shape[1]).to(weight.dtype)
        functions = {name: partial(layer, x) for name, layer in {"dense": dense, **layers}.items()}
        with torch.inference_mode():
            times = compare(functions, seconds=seconds, at_most=at_most)
        for layout, found in gains.items():
            noisy = times["dense"].noisy or times[layout].noisy
            found[count] = Gain(times["dense"].low / times[layout].low, noisy)
    return gains


def best_layout(gains: Mapping[str, Gains]) -> str:
    """The layout with the largest geometric mean of gains over the numbers of tokens.

    Layouts that are slower than dense for some number of tokens are chosen only if all are.

    Args:
        gains: gains by layout; the first of equal ones is chosen.

    >>> best_layout({"sell": {1: Gain(2.0), 8: Gain(1.0)}, "csr": {1: Gain(0.9), 8: Gain(9.0)}})
    'sell'
    """

    def rank(layout: str) -> tuple[bool, float]:
        times = [gain.times for gain in gains[layout].values()]
        return min(times) >= 1.0, geometric_mean(times)

    return max(gains, key=rank)


def _measured_again(first: Gain, dense: nn.Module, layout: str, sparse: SparseLinear, count: int) -> Gain:
    """Repeat a measurement, longer, until two in a row agree; else measure on one thread and mark it noisy.

    On several threads noise can be a factor of 100, as each waits a time slice for the others; on one it is small.
    """

    def again(*how: Callable[..., dict[str, Timing]]) -> Gain:
        return measure(dense, {layout: sparse}, [count], _AGAIN_SECONDS, _AGAIN_AT_MOST, *how)[layout][count]

    seen = [first]
    for _ in range(_AGAIN):
        seen.append(again())
        if not seen[-1].noisy and agree(seen[-2].times, seen[-1].times):
            return seen[-1]
        if seen[-1].noisy and seen[-2].noisy:  # the machine will not become quieter
            break
    return replace(again(compare_on_one_thread), noisy=True)


class GainTable:
    """Measurements of one conversion, shared by similar layers."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = tokens
        self._known: dict[Kind, dict[str, Gains]] = {}

    def survey(self, layers: Iterable[tuple[Any, str]]) -> None:
        """Measure one layer of each kind, then repeat those with implausible gains.

        Time passes between the two, so that one slow moment does not decide.

        Args:
            layers: layers, each with its storage type.
        """
        seen, measured = set(), {}
        for dense, dtype in layers:
            look = Kind.of(dense, dtype)
            if look in seen:
                continue
            seen.add(look)
            try:
                sparse = in_every_layout(dense, dtype)
            except ValueError:  # this type cannot hold the weight
                continue
            measured[self._measure(look, dense, sparse)] = dense, sparse
        for kind, (dense, sparse) in measured.items():
            self._settle(kind, dense, sparse)

    def of(self, dense: nn.Module, sparse: SparseLinear) -> Mapping[str, Gains]:
        """Gains of this layer or a similar one, by layout, the preferred one first."""
        look = Kind.of(dense, sparse.dtype)
        kind = replace(look, block=sparse.block)
        if kind not in self._known:
            layers = in_every_layout(dense, sparse.dtype)
            self._settle(self._measure(look, dense, layers), dense, layers)
        return self._known[kind]

    def _measure(self, look: Kind, dense: nn.Module, layers: Mapping[str, SparseLinear]) -> Kind:
        """Measure a layer in all layouts. Returns its kind, including the block size."""
        kind = replace(look, block=next(iter(layers.values())).block)
        self._known[kind] = measure(dense, layers, self.tokens)
        return kind

    def _settle(self, kind: Kind, dense: nn.Module, layers: Mapping[str, SparseLinear]) -> None:
        """Repeat measurements that are noisy, near 1 or implausible."""
        for layout, sparse in layers.items():
            gains = self._known[kind][layout]
            same = {other: known[layout] for other, known in self._known.items() if other != kind and layout in known}
            for count, gain in gains.items():
                others = {other: found[count].times for other, found in same.items()}
                clear = gain.times >= _CLEAR and is_plausible(gain.times, kind, sparse, others)
                if gain.noisy or not clear:
                    gains[count] = _measured_again(gain, dense, layout, sparse, count)
