"""Measure the speedup of a sparse layer over its dense self on this machine; doubtful measurements are repeated."""

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

#: Seconds for one layer and number of tokens, and at most while that is noisy; each function runs in at least five
#: rounds.
_SECONDS, _AT_MOST = 0.02, 0.2
#: The same where a gain is measured again, and how often that is done at most, until two in a row agree.
_AGAIN_SECONDS, _AGAIN_AT_MOST = 0.1, 0.3
_AGAIN = 2
#: A gain below this is measured again: a slow moment of the machine must not decide.
_CLEAR = 1.2


@dataclass(frozen=True)
class Gain:
    """Speedup of a sparse layer over its dense self."""

    times: float
    noisy: bool = False  # whether the machine was too busy to tell


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
    """Speedups of a sparse layer over its dense self for every number of tokens, on torch's present threads.

    Args:
        dense: the dense layer.
        layers: the sparse one, by layout; all are timed interleaved.
        tokens: rows of the inputs.
        seconds: time for each number of tokens.
        at_most: the same while the machine is too noisy to tell.
        compare: what takes the time.

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
    """The layout that gains most, in the geometric mean over the numbers of tokens.

    One that is slower than the dense layer for some number is taken only where all are.

    Args:
        gains: by layout; of equal ones the first is taken.

    >>> best_layout({"sell": {1: Gain(2.0), 8: Gain(1.0)}, "csr": {1: Gain(0.9), 8: Gain(9.0)}})
    'sell'
    """

    def rank(layout: str) -> tuple[bool, float]:
        times = [gain.times for gain in gains[layout].values()]
        return min(times) >= 1.0, geometric_mean(times)

    return max(gains, key=rank)


def _measured_again(first: Gain, dense: nn.Module, layout: str, sparse: SparseLinear, count: int) -> Gain:
    """Repeat a measurement, longer, until two in a row agree; where none do, the one on one thread counts, as noisy.

    Noise can be a factor of 100 on several threads, each waiting a time slice for the others, but is small on one.
    """

    def again(*how: Callable[..., dict[str, Timing]]) -> Gain:
        return measure(dense, {layout: sparse}, [count], _AGAIN_SECONDS, _AGAIN_AT_MOST, *how)[layout][count]

    seen = [first]
    for _ in range(_AGAIN):
        seen.append(again())
        if not seen[-1].noisy and agree(seen[-2].times, seen[-1].times):
            return seen[-1]
        if seen[-1].noisy and seen[-2].noisy:  # it will not become quieter
            break
    return replace(again(compare_on_one_thread), noisy=True)


class GainTable:
    """Measurements of one conversion: layers that look alike are measured once."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = tokens
        self._known: dict[Kind, dict[str, Gains]] = {}

    def survey(self, layers: Iterable[tuple[Any, str]]) -> None:
        """Measure one layer of each kind, and then once more those whose gains fit neither bounds nor the others'.

        Some time lies between the two, so that one slow moment does not decide.

        Args:
            layers: layers, and the type to store each in.
        """
        seen, measured = set(), {}
        for dense, dtype in layers:
            look = Kind.of(dense, dtype)
            if look in seen:
                continue
            seen.add(look)
            try:
                sparse = in_every_layout(dense, dtype)
            except ValueError:  # the weight cannot take them
                continue
            measured[self._measure(look, dense, sparse)] = dense, sparse
        for kind, (dense, sparse) in measured.items():
            self._settle(kind, dense, sparse)

    def of(self, dense: nn.Module, sparse: SparseLinear) -> Mapping[str, Gains]:
        """Gains of this layer or of one that looks like it, by layout, the preferred one first."""
        look = Kind.of(dense, sparse.dtype)
        kind = replace(look, block=sparse.block)
        if kind not in self._known:
            layers = in_every_layout(dense, sparse.dtype)
            self._settle(self._measure(look, dense, layers), dense, layers)
        return self._known[kind]

    def _measure(self, look: Kind, dense: nn.Module, layers: Mapping[str, SparseLinear]) -> Kind:
        """Measure a layer in all layouts. Returns its kind, with the block."""
        kind = replace(look, block=next(iter(layers.values())).block)
        self._known[kind] = measure(dense, layers, self.tokens)
        return kind

    def _settle(self, kind: Kind, dense: nn.Module, layers: Mapping[str, SparseLinear]) -> None:
        """Measure again what is noisy, near 1 or implausible."""
        for layout, sparse in layers.items():
            gains = self._known[kind][layout]
            same = {other: known[layout] for other, known in self._known.items() if other != kind and layout in known}
            for count, gain in gains.items():
                others = {other: found[count].times for other, found in same.items()}
                clear = gain.times >= _CLEAR and is_plausible(gain.times, kind, sparse, others)
                if gain.noisy or not clear:
                    gains[count] = _measured_again(gain, dense, layout, sparse, count)
