"""Sparse weights that find mistakes."""

import numpy as np

#: (out_features, in_features) around vector lengths, row tiles and block widths.
SHAPES = [(1, 1), (5, 7), (16, 32), (17, 33), (33, 31), (64, 128), (15, 300), (130, 129)]


def random_weight(rng: np.random.Generator, shape: tuple[int, int], sparsity: float) -> np.ndarray:
    """Signed random weights; at least one empty row and one full row where there is room."""
    weight = rng.standard_normal(shape, dtype=np.float32)
    weight[rng.random(shape) < sparsity] = 0.0
    if shape[0] > 2:
        weight[0] = 0.0
        weight[shape[0] // 2] = rng.standard_normal(shape[1], dtype=np.float32)
    return weight
