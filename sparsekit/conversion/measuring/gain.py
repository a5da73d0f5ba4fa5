"""Measure the speedup of a sparse layer over its dense self on this machine; doubtful measurements are repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn

from sparsekit.conversion.measuring.one_thread import compare_on_one_thread
from sparsekit.conversion.measuring.plausibility import Kind, agree, is_plausible
from sparsekit.nn import SparseLinear
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
    sparse: SparseLinear,
    tokens: Sequence[int],
    seconds: float = _SECONDS,
    at_most: float = _AT_MOST,
    compare: Callable[..., dict[str, Timing]] = compare,
) -> Gains:
    """Speedup of `sparse` over `dense` for every number of tokens, on torch's present threads.

    Args:
        dense: the dense layer.
        sparse: the sparse one.
        tokens: rows of the inputs.
        seconds: time for each number of tokens.
        at_most: the same while the machine is too noisy to tell.
        compare: what takes the time.
    """
    gains = {}
    for count in tokens:
        x = torch.randn(count, sparse.in_features).to(sparse.weight_dtype)
        functions = {"dense": partial(dense, x), "sparse": partial(sparse, x)}
        with torch.inference_mode():
            times = compare(functions, seconds=seconds, at_most=at_most)
        noisy = any(timing.noisy for timing in times.values())
        gains[count] = Gain(times["dense"].low / times["sparse"].low, noisy)
    return gains


def _measured_again(first: Gain, dense: nn.Module, sparse: SparseLinear, count: int) -> Gain:
    """Repeat a measurement, longer, until two in a row agree; where none do, the one on one thread counts, as noisy.

    Noise can be a factor of 100 on several threads, each waiting a time slice for the others, but is small on one.
    """
    seen = [first]
    for _ in range(_AGAIN):
        seen.append(measure(dense, sparse, [count], _AGAIN_SECONDS, _AGAIN_AT_MOST)[count])
        if not seen[-1].noisy and agree(seen[-2].times, seen[-1].times):
            return seen[-1]
        if seen[-1].noisy and seen[-2].noisy:  # it will not become quieter
            break
    alone = measure(dense, sparse, [count], _AGAIN_SECONDS, _AGAIN_AT_MOST, compare_on_one_thread)[count]
    return replace(alone, noisy=True)


class GainTable:
    """Measurements of one conversion: layers that look alike are measured once."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = tokens
        self._known: dict[Kind, Gains] = {}

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
                sparse = SparseLinear.from_linear(dense, dtype=dtype)
            except ValueError:  # the weight cannot take them
                continue
            kind = replace(look, block=sparse.block)
            self._known[kind] = measure(dense, sparse, self.tokens)
            measured[kind] = dense, sparse
        for kind, (dense, sparse) in measured.items():
            self._settle(kind, dense, sparse)

    def of(self, dense: nn.Module, sparse: SparseLinear) -> Mapping[int, Gain]:
        """Gains of this layer or of one that looks like it."""
        kind = replace(Kind.of(dense, sparse.dtype), block=sparse.block)
        if kind not in self._known:
            self._known[kind] = measure(dense, sparse, self.tokens)
            self._settle(kind, dense, sparse)
        return self._known[kind]

    def _settle(self, kind: Kind, dense: nn.Module, sparse: SparseLinear) -> None:
        """Measure again what is noisy, near 1 or implausible."""
        for count, gain in self._known[kind].items():
            others = {other: gains[count].times for other, gains in self._known.items() if other != kind}
            clear = gain.times >= _CLEAR and is_plausible(gain.times, kind, sparse, others)
            if gain.noisy or not clear:
                self._known[kind][count] = _measured_again(gain, dense, sparse, count)
