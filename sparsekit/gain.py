"""What a sparse layer gains over its dense self on this machine, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import nn

from sparsekit.nn import SparseLinear
from sparsekit.timing import compare

#: Seconds for one layer and number of tokens; each function runs in at least five rounds.
_SECONDS = 0.02
#: A gain below this is measured again, for this many times as long: a slow moment of the machine must not decide.
_CLEAR = 1.2
_LONGER = 10
#: Layers of one shape whose sparsity, in percent, falls into the same steps of this width share a measurement.
_STEP = 5


def measure(dense: nn.Linear, sparse: SparseLinear, tokens: Sequence[int]) -> dict[int, float]:
    """How many times faster `sparse` is than `dense`, for every number of tokens, on torch's present threads."""
    gains = {}
    for count in tokens:
        x = torch.randn(count, dense.in_features).to(dense.weight.dtype)
        gains[count] = _gain(dense, sparse, x, _SECONDS)
        if gains[count] < _CLEAR:
            gains[count] = _gain(dense, sparse, x, _LONGER * _SECONDS)
    return gains


def _gain(dense: nn.Linear, sparse: SparseLinear, x: torch.Tensor, seconds: float) -> float:
    with torch.inference_mode():
        times = compare({"dense": partial(dense, x), "sparse": partial(sparse, x)}, seconds=seconds)
    return times["dense"].low / times["sparse"].low


class GainTable:
    """Measurements of one conversion: layers that look alike are measured once."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = tokens
        self._known: dict[tuple[object, ...], Mapping[int, float]] = {}

    def of(self, dense: nn.Linear, sparse: SparseLinear) -> Mapping[int, float]:
        """Speed-ups of this layer or of one that looks like it."""
        step = int(100 * sparse.sparsity) // _STEP
        key = (dense.out_features, dense.in_features, dense.weight.dtype, dense.bias is None, step)
        if key not in self._known:
            self._known[key] = measure(dense, sparse, self.tokens)
        return self._known[key]
