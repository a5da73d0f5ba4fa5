"""The layout of a linear layer's weight: by its sparsity, or the one that is fastest here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import geometric_mean

import numpy as np

from sparsekit import runtime
from sparsekit.formats import CSR
from sparsekit.timing.comparing import compare

#: Sparsity below which a weight is packed dense where layouts are not measured: about where both took the same time on
#: AVX2, in float32 with 16 to 128 tokens. In int8, and with one token, dense is worth it beyond.
_DENSE = 0.3
#: Between these sparsities both dense and sparse layouts are measured.
_BOTH = (0.05, 0.7)
#: Numbers of tokens that layouts are measured with.
_TOKENS = (1, 16, 128)
#: Seconds for each of them, and at most while the machine is too noisy to tell.
_SECONDS, _AT_MOST = 0.03, 0.2
#: Weights of one shape whose sparsities are as near as this have the same layout.
_NEAR = 0.05


class Layouts:
    """Chooses layouts.

    Args:
        target: whose layouts thresholds choose, as in `CSR.layouts`.
        measure: time those worth it on this machine, with the instruction set and the threads in use.

    Raises:
        ValueError: another machine's layouts are to be measured here.
    """

    def __init__(self, target: str = "native", *, measure: bool = False) -> None:
        if measure and target != "native":
            raise ValueError(f"layouts of target {target!r} cannot be measured here; measure with target='native'")
        self._target = target
        self._measure = measure
        self._found: dict[tuple[int, int, str, str, int], str] = {}

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
            self._found[key] = _fastest(weight, dtype, block, _candidates(weight, dtype))
        return self._found[key]


def _candidates(weight: CSR, dtype: str) -> list[str]:
    least, most = _BOTH
    if weight.sparsity < least:
        return ["dense"]
    sparse = list(weight.layouts(dtype))
    return sparse if weight.sparsity > most else [*sparse, "dense"]


def _fastest(weight: CSR, dtype: str, block: str, layouts: Sequence[str]) -> str:
    """The layout that is fastest in the geometric mean over `_TOKENS`."""
    if len(layouts) == 1:
        return layouts[0]
    packed = {layout: weight.pack(dtype, block=block, layout=layout) for layout in layouts}
    seconds: dict[str, list[float]] = {layout: [] for layout in layouts}
    rng = np.random.default_rng(0)
    for tokens in _TOKENS:
        x = rng.standard_normal((tokens, weight.in_features), np.float32)
        functions = {layout: partial(runtime.linear, x, weight) for layout, weight in packed.items()}
        for layout, timing in compare(functions, seconds=_SECONDS, at_most=_AT_MOST).items():
            seconds[layout].append(timing.low)
    return min(layouts, key=lambda layout: geometric_mean(seconds[layout]))
