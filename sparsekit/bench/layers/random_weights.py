"""Random weights to benchmark."""

from __future__ import annotations

import numpy as np

from sparsekit.bench.layers.problem import Floats
from sparsekit.formats.csr import BLOCKS


def random_weight(shape: tuple[int, int], sparsity: float, block: str = "1x1") -> Floats:
    """Normal values, each block kept with probability `1 - sparsity`; deterministic."""
    numbers = np.random.default_rng([*shape, round(1000 * sparsity)])
    weight = numbers.standard_normal(shape, dtype=np.float32)
    height = BLOCKS[block]
    drawn = numbers.random((-(-shape[0] // height), shape[1]), dtype=np.float32)
    weight[np.repeat(drawn < sparsity, height, axis=0)[: shape[0]]] = 0.0
    return weight
