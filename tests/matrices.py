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


def blocked_weight(rng: np.random.Generator, shape: tuple[int, int], sparsity: float) -> np.ndarray:
    """Signed random weights in full 4x1 blocks."""
    lanes = -(-shape[0] // 4)
    kept = np.repeat(rng.random((lanes, shape[1])) >= sparsity, 4, axis=0)[: shape[0]]
    return np.where(kept, rng.uniform(0.1, 1.0, shape) * rng.choice([-1, 1], shape), 0).astype(np.float32)
