"""Choose the packed layout of a linear layer's weight: by its sparsity, or by measuring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle, repeat
from statistics import geometric_mean

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.engine.compiled_file import aligned_buffer
from sparsekit.formats import CSR
from sparsekit.runtime.checked_weights import remember
from sparsekit.timing.comparing import compare

#: Without measuring, weights below this sparsity are packed dense: the break-even on AVX2 in float32 with 16 to 128
#: tokens. In int8, and with one token, it is higher.
_DENSE = 0.3
#: Both dense and sparse layouts are measured between these sparsities.
_BOTH = (0.05, 0.7)
#: Numbers of tokens to measure encoders' layouts with.
_TOKENS = (1, 16, 128)
#: Workload to measure decoders' layouts with: tokens per call -> calls. A prompt of 128 tokens, then 128 new tokens,
#: three quarters of them decoded one at a time, the others in a batch of four texts.
_CALLS = {1: 96, 4: 8, 128: 1}
#: Up to this many tokens per call, as in decoding, weights are read from memory rather than cache.
_STEP = 4
#: Bytes of copies of a weight that are measured in turn, so that no call finds the weight in cache, as in decoding.
OUT_OF_CACHE = 64 << 20
#: Seconds for each number of tokens, and the limit while timings are noisy.
_SECONDS, _AT_MOST = 0.03, 0.2
#: Weights of one shape whose sparsities differ by less share a measurement.
_NEAR = 0.05


class Layouts:
    """Chooses and packs layouts.

    Args:
        target: instruction sets to choose layouts for, as in `CSR.layouts`.
        measure: time the candidates on this machine, with the instruction set and threads in use.
        decodes: whether the weights are a decoder's, and measured with a prompt followed by decoding.

    Raises:
        ValueError: `measure` is given with another machine's target.
    """

    def __init__(self, target: str = "native", *, measure: bool = False, decodes: bool = False) -> None:
        if measure and target != "native":
            raise ValueError(f"layouts of target {target!r} cannot be measured here; measure with target='native'")
        self._target = target
        self._measure = measure
        self._decodes = decodes
        self._found: dict[tuple[int, int, str, str, int], str] = {}

    def for_decoding(self) -> Layouts:
        """The same, for the weights of a decoder."""
        return Layouts(self._target, measure=self._measure, decodes=True)

    def pack(self, weight: CSR, dtype: str, block: str | None = None) -> runtime.Packed:
        """Pack a weight in the chosen layout.

        Args:
            weight: the weight.
            dtype: as in `CSR.pack`.
            block: as in `CSR.pack`.

        Raises:
            ValueError: as `CSR.pack`.
        """
        if self._measure:
            return weight.pack(dtype, block=block, layout=self._fastest(weight, dtype, block or weight.block()))
        layout = "dense" if weight.sparsity < _DENSE else None
        return weight.pack(dtype, block=block, layout=layout, target=self._target)

    def _fastest(self, weight: CSR, dtype: str, block: str) -> str:
        key = weight.out_features, weight.in_features, dtype, block, round(weight.sparsity / _NEAR)
        if key not in self._found:
            self._found[key] = _fastest(weight, dtype, block, _candidates(weight, dtype), self._decodes)
        return self._found[key]


def _candidates(weight: CSR, dtype: str) -> list[str]:
    least, most = _BOTH
    if weight.sparsity < least:
        return ["dense"]
    sparse = list(weight.layouts(dtype))
    return sparse if weight.sparsity > most else [*sparse, "dense"]


def _cost(seconds: Mapping[int, float], decodes: bool) -> float:
    """Cost to minimize, from the seconds per call by number of tokens."""
    if decodes:
        return sum(calls * seconds[tokens] for tokens, calls in _CALLS.items())
    return geometric_mean(seconds.values())


def copies_of(packed: runtime.Packed, count: int) -> list[runtime.Packed]:
    """Copy a weight that was just packed `count` times."""
    copies = []
    for _ in range(count):
        copies.append(aligned_buffer(packed.nbytes))
        copies[-1][:] = packed
        remember(copies[-1], copies[-1].ctypes.data)  # safe: the weight was packed here and is valid
    return copies


def _in_turn(packed: runtime.Packed) -> Iterator[runtime.Packed]:
    """Cycle over copies of a weight that do not fit into the caches together."""
    return cycle(copies_of(packed, max(1, OUT_OF_CACHE // max(1, packed.nbytes))))


def _fastest(weight: CSR, dtype: str, block: str, layouts: Sequence[str], decodes: bool) -> str:
    """The layout with the lowest cost."""
    if len(layouts) == 1:
        return layouts[0]
    packed = {layout: weight.pack(dtype, block=block, layout=layout) for layout in layouts}
    seconds: dict[str, dict[int, float]] = {layout: {} for layout in layouts}
    rng = np.random.default_rng(0)
    for tokens in _CALLS if decodes else _TOKENS:
        x = rng.standard_normal((tokens, weight.in_features), np.float32)
        in_turn = decodes and tokens <= _STEP
        weights = {layout: _in_turn(one) if in_turn else repeat(one) for layout, one in packed.items()}
        functions = {layout: partial(_multiply, x, one) for layout, one in weights.items()}
        for layout, timing in compare(functions, seconds=_SECONDS, at_most=_AT_MOST).items():
            seconds[layout][tokens] = timing.low
    return min(layouts, key=lambda layout: _cost(seconds[layout], decodes))


def _multiply(x: NDArray[np.float32], weights: Iterator[runtime.Packed]) -> NDArray[np.float32]:
    return runtime.linear(x, next(weights))
