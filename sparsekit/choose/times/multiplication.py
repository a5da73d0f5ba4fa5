"""Multiply random inputs with a product's weights as a model does: each time with those of another layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np

from sparsekit import runtime
from sparsekit.engine.layouts import OUT_OF_CACHE, copies_of


class Multiplication:
    """A product of random inputs with copies of its weights in turn, for a timer to call.

    Args:
        weights: packed, of one product.
        tokens: in a call.
        copies: of the weights, at least 1; fewer where they would be more than caches hold.

    `x` are the inputs, float32, shape [tokens, in_features]; `outputs` those of each weight, float32, shape [tokens,
    out_features]; `copies` how many there are.
    """

    def __init__(self, weights: Sequence[runtime.Packed], tokens: int, copies: int) -> None:
        infos = [runtime.packed_info(weight) for weight in weights]
        self.copies = min(copies, max(1, OUT_OF_CACHE // sum(weight.nbytes for weight in weights)))
        self.x = np.random.default_rng(0).standard_normal((tokens, infos[0].in_features), np.float32)
        self.outputs = [np.empty((tokens, info.out_features), np.float32) for info in infos]
        self._held = [copies_of(weight, self.copies) for weight in weights]  # the core reads them in place
        self._input = self.x.ctypes.data, infos[0].in_features, infos[0].in_features, tokens
        self._parts = cycle([self._placed(joined) for joined in zip(*self._held, strict=True)])

    def _placed(self, joined: Sequence[runtime.Packed]) -> list[tuple[int, int, int, int, int, int]]:
        """Addresses and sizes of weights and outputs, as `runtime.joined_linear_at` takes them."""
        pairs = zip(joined, self.outputs, strict=True)
        return [(one.ctypes.data, one.nbytes, output.ctypes.data, output.shape[1], 0, 0) for one, output in pairs]

    def __call__(self) -> None:
        """Multiply once."""
        runtime.joined_linear_at(*self._input, next(self._parts))
