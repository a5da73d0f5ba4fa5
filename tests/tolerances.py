"""How close is close enough; every test takes its bound from here.

A float32 dot product of k terms, in any order, with or without fused multiply-add, differs from the exact one by at
most about k * eps * sum(|w_i * x_i|) (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). With the
bias it is one term longer.

Activation functions are computed on that sum. They change it by at most a factor of 1.13 (the steepest, GELU), and add
errors of their own: the distribution function in GELU is within 2e-7 and multiplied by |x|; exp is within a few ulp.

Layer normalization: a sum is off by eps of its size and the mean of n of them by n + 2 eps of their mean size; what a
number differs from the mean by is off by both, and the variance by twice that.

Attention: what a score is off by, its exp is off by relatively, and so is the sum that it is divided by.
"""

import numpy as np

EPS = float(np.finfo(np.float32).eps)


def matmul_bound(weight: np.ndarray, x: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """Largest error of x @ weight.T + bias in float32, entry by entry; arguments are finite."""
    w64, x64 = np.abs(weight.astype(np.float64)), np.abs(x.astype(np.float64))
    terms = int((weight != 0).sum(axis=1).max(initial=0)) + 1
    magnitude = x64 @ w64.T
    if bias is not None:
        magnitude = magnitude + np.abs(bias.astype(np.float64))
    return terms * EPS * magnitude + np.finfo(np.float32).tiny


def activation_bound(pre: np.ndarray, pre_bound: np.ndarray) -> np.ndarray:
    """Largest error of an activation function of `pre`, which itself is off by `pre_bound`."""
    return 1.13 * pre_bound + 8 * EPS * np.abs(pre) + np.finfo(np.float32).tiny


def attention_bound(scores: np.ndarray, weights: np.ndarray, value: np.ndarray, terms: int) -> np.ndarray:
    """Largest error of attention in float32; `scores` sum the magnitudes of `terms` products and of the mask."""
    error = 2 * (terms + 3) * EPS * scores.max(axis=-1, keepdims=True, initial=0.0)
    return (error + (weights.shape[-1] + 16) * EPS) * (weights @ np.abs(value.astype(np.float64)))


def layer_norm_bound(sums: np.ndarray, apart: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Largest error of `apart / deviation` in float32, `apart` being what `sums` differ from their mean by."""
    terms = sums.shape[-1] + 3
    off = EPS * (np.abs(sums) + terms * np.abs(sums).mean(axis=-1, keepdims=True)) / deviation if sums.size else sums
    return off + np.abs(apart / deviation) * (2 * off + (terms + 8) * EPS) + np.finfo(np.float32).tiny
