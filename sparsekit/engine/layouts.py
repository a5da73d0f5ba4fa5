"""The layout of a linear layer's weight: by its sparsity, or the one that is fastest here."""

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

#: Sparsity below which a weight is packed dense where layouts are not measured: about where both took the same time on
#: AVX2, in float32 with 16 to 128 tokens. In int8, and with one token, dense is worth it beyond.
_DENSE = 0.3
#: Between these sparsities both dense and sparse layouts are measured.
_BOTH = (0.05, 0.7)
#: Numbers of tokens that encoders' layouts are measured with.
_TOKENS = (1, 16, 128)
#: What decoders' are measured for: tokens in a call -> calls. A prompt of 128 tokens and as many after it, three
#: quarters one by one, the others of four texts at once.
_CALLS = {1: 96, 4: 8, 128: 1}
#: Tokens in a call up to which weights are read from memory, as in a decoder's steps.
_STEP = 4
#: Bytes of copies of a weight of which, taken in turn, a call finds none in a cache: a decoder's are measured so.
OUT_OF_CACHE = 64 << 20
#: Seconds for each of them, and at most while the machine is too noisy to tell.
_SECONDS, _AT_MOST = 0.03, 0.2
#: Weights of one shape whose sparsities are as near as this have the same layout.
_NEAR = 0.05


class Layouts:
    """Chooses layouts.

    Args:
        target: whose layouts thresholds choose, as in `CSR.layouts`.
        measure: time those worth it on this machine, with the instruction set and the threads in use.
        decodes: whether weights are a decoder's: measured for a prompt and as many tokens after it, alone and of four
            texts at once. Else for any number of tokens alike.

    Raises:
        ValueError: another machine's layouts are to be measured here.
    """

    def __init__(self, target: str = "native", *, measure: bool = False, decodes: bool = False) -> None:
        if measure and target != "native":
            raise ValueError(f"layouts of target {target!r} cannot be measured here; measure with target='native'")
        self._target = target
        self._measure = measure
        self._decodes = decodes
        self._found: dict[tuple[int, int, str, str, int], str] = {}

    def for_decoding(self) -> Layouts:
        """The same choice for the weights of a decoder."""
        return Layouts(self._target, measure=self._measure, decodes=True)

    def pack(self, weight: CSR, dtype: str, block: str | None = None) -> runtime.Packed:
        """Pack a weight in its best layout.

        Args:
            weight: the weight.
            dtype: of the stored values, as in `CSR.pack`.
            block: likewise.

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
    """What is to be least, of the seconds of calls by their tokens."""
    if decodes:
        return sum(calls * seconds[tokens] for tokens, calls in _CALLS.items())
    return geometric_mean(seconds.values())


def copies_of(packed: runtime.Packed, count: int) -> list[runtime.Packed]:
    """So many copies of a weight that was just packed."""
    copies = []
    for _ in range(count):
        copies.append(aligned_buffer(packed.nbytes))
        copies[-1][:] = packed
        remember(copies[-1], copies[-1].ctypes.data)  # as good as the weight
    return copies


def _in_turn(packed: runtime.Packed) -> Iterator[runtime.Packed]:
    """Copies of a weight, again and again, more of them than caches hold."""
    return cycle(copies_of(packed, max(1, OUT_OF_CACHE // max(1, packed.nbytes))))


def _fastest(weight: CSR, dtype: str, block: str, layouts: Sequence[str], decodes: bool) -> str:
    """The layout of the least cost."""
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
