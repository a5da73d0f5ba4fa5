"""CSR: conversion there and back, and refusal of everything malformed."""

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matrices import SHAPES, random_weight
from tolerances import matmul_bound

from sparsekit import CSR


@pytest.mark.parametrize("shape", [*SHAPES, (0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("sparsity", [0.0, 0.8, 1.0])
def test_dense_scipy_and_torch_round_trips(rng, shape, sparsity):
    weight = random_weight(rng, shape, sparsity)
    csr = CSR.from_dense(weight)
    assert csr.nnz == np.count_nonzero(weight)
    assert csr.shape == shape
    for other in (csr, CSR.from_scipy(csr.to_scipy()), CSR.from_torch(csr.to_torch())):
        np.testing.assert_array_equal(other.to_dense(), weight)
        other.validate()


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements=st.sampled_from([0.0, -0.0, 1.5, -2.0]),
    )
)
@settings(max_examples=60, deadline=None)
def test_pack_and_unpack_keep_every_entry(weight):
    csr = CSR.from_dense(weight)
    back = CSR.unpack(csr.pack(block="1x1"))
    for name in ("crow_indices", "col_indices", "values"):
        np.testing.assert_array_equal(getattr(back, name), getattr(csr, name))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize("block", ["1x1", "4x1"])
def test_values_stay_in_the_type_in_which_they_are_stored(dtype, block):
    weight = CSR.from_dense(np.random.default_rng(3).standard_normal((30, 50), np.float32) * (np.eye(30, 50) > 0))
    packed = weight.pack(dtype, block=block)
    csr = CSR.unpack(packed)
    assert csr.dtype == dtype
    assert csr.values.dtype == {"float16": np.float16, "bfloat16": np.uint16, "int8": np.int8}[dtype]
    assert np.array_equal(csr.pack(dtype, block=block), packed)
    again = CSR(csr.crow_indices, csr.col_indices, csr.values, csr.shape, csr.scales)
    assert np.array_equal(CSR.unpack(again.pack(block="1x1")).to_dense(), csr.to_dense())
    np.testing.assert_array_equal(csr.to_scipy().toarray(), csr.to_dense())
    np.testing.assert_array_equal(csr.to_torch().to_dense().numpy(), csr.to_dense())
    np.testing.assert_allclose(csr.to_dense(), weight.to_dense(), atol=0.02)
    assert csr.with_full_blocks().dtype == dtype


def test_int8_values_need_scales():
    csr = build()
    with pytest.raises(ValueError, match="int8 and int4 values, and no others, have scales; got none"):
        CSR(csr.crow_indices, csr.col_indices, csr.values.astype(np.int8), csr.shape)
    with pytest.raises(ValueError, match="got some with float32 values"):
        CSR(csr.crow_indices, csr.col_indices, csr.values, csr.shape, np.ones(csr.out_features, np.float32))
    int8 = CSR(csr.crow_indices, csr.col_indices, csr.values.astype(np.int8), csr.shape, np.ones(csr.out_features))
    with pytest.raises(ValueError, match="have scales, which stay"):
        int8.pack("int8", scales=np.ones(csr.out_features, np.float32))


def test_from_dense_keeps_nan_and_converts_other_floats():
    weight = np.array([[np.nan, 0.0, -0.0], [1.0, np.inf, 0.0]], dtype=np.float64)
    csr = CSR.from_dense(weight)
    assert csr.nnz == 3
    assert csr.values.dtype == np.float32
    assert CSR.from_dense(weight.astype(np.float16)).nnz == 3


def test_from_scipy_sorts_and_sums_duplicates():
    messy = scipy.sparse.csr_array(
        (np.array([1.0, 2.0, 4.0], np.float32), np.array([2, 0, 2]), np.array([0, 3])), shape=(1, 3)
    )
    np.testing.assert_array_equal(CSR.from_scipy(messy).to_dense(), [[2.0, 0.0, 5.0]])
    assert messy.nnz == 3, "the caller's matrix must not change"
    np.testing.assert_array_equal(CSR.from_scipy(messy.tocoo()).to_dense(), [[2.0, 0.0, 5.0]])


def test_from_torch_takes_any_float_type():
    weight = torch.tensor([[0.0, 1.5], [-2.0, 0.0]])
    for tensor in (weight.bfloat16(), weight.double(), weight.t().contiguous().t(), weight.to_sparse_csr()):
        np.testing.assert_array_equal(CSR.from_torch(tensor).to_dense(), weight.numpy())


@pytest.mark.parametrize("n", [None, 1, 7])
def test_matmul_against_float64(rng, n):
    weight = random_weight(rng, (33, 70), 0.7)
    x = rng.standard_normal((70,) if n is None else (70, n), dtype=np.float32)
    result = CSR.from_dense(weight) @ x
    bound = matmul_bound(weight, x.T).T
    assert result.shape == (weight @ x).shape
    assert np.all(np.abs(result - weight.astype(np.float64) @ x.astype(np.float64)) <= bound)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_rows_are_a_weight_of_their_own(rng, dtype):
    weight = CSR.unpack(CSR.from_dense(random_weight(rng, (33, 70), 0.7)).pack(dtype))
    for rows in (slice(0, 33), slice(0, 0), slice(7, 20), slice(20, 99), slice(9, 2), slice(-3, None)):
        part = weight.rows(rows)
        assert part.dtype == dtype
        np.testing.assert_array_equal(part.to_dense(), weight.to_dense()[rows])
    with pytest.raises(ValueError, match="a step of 2"):
        weight.rows(slice(0, 9, 2))


GOOD = {"crow_indices": [0, 1, 3], "col_indices": [1, 0, 2], "values": [1.0, 2.0, 3.0], "shape": (2, 3)}


def build(**changes):
    arrays = {**GOOD, **changes}
    return CSR(
        np.asarray(arrays["crow_indices"]),
        np.asarray(arrays["col_indices"]),
        np.asarray(arrays["values"]),
        arrays["shape"],
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crow_indices": [0, 3]}, r"out_features \+ 1 = 3 entries, got 2"),
        ({"crow_indices": [1, 1, 3]}, "start at 0, got 1"),
        ({"crow_indices": [0, 4, 3]}, "col_indices|never fall"),
        ({"crow_indices": [0, 2, 1]}, "never fall, got 2 then 1 at row 1"),
        ({"crow_indices": [0, 1, 2]}, "end at nnz = 3, got 2"),
        ({"crow_indices": [0, 1, 2**62]}, "end at nnz = 3"),
        ({"col_indices": [1, 2, 0]}, "rise strictly within a row, got 2 then 0 in row 1"),
        ({"col_indices": [1, 2, 2]}, "rise strictly"),
        ({"col_indices": [1, 0, 3]}, r"\[0, in_features\) = \[0, 3\), got 3 in row 1"),
        ({"col_indices": [-1, 0, 2]}, "got -1 in row 0"),
        ({"col_indices": [1, 0, 2**40]}, "col_indices must fit in int32"),
        ({"col_indices": [1, 0]}, "one entry per nonzero, got 2 and 3"),
        ({"shape": (2, 2**40)}, "in_features must fit in 32 bits"),
        ({"shape": (-1, 3)}, "must not be negative"),
        ({"shape": (2**62, 2**30)}, "63 bits"),
    ],
)
def test_malformed_arrays_are_refused_in_words(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


@pytest.mark.parametrize(
    "changes",
    [{"crow_indices": [0.0, 1.0, 3.0]}, {"col_indices": [[1, 0, 2]]}, {"values": [1, 2, 3]}, {"values": [[1.0]]}],
)
def test_wrong_types_are_refused(changes):
    with pytest.raises(TypeError, match="must be a 1-dimensional array of"):
        build(**changes)


def test_other_things_are_refused():
    with pytest.raises(TypeError, match="2-dimensional array of floats"):
        CSR.from_dense(np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="SciPy sparse matrix, got ndarray"):
        CSR.from_scipy(np.zeros((2, 2)))
    with pytest.raises(TypeError, match="dense or CSR float tensor"):
        CSR.from_torch(torch.zeros(2, 2, dtype=torch.int32))
    with pytest.raises(ValueError, match="at least 128 bytes"):
        CSR.unpack(np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="not a packed weight"):
        CSR.unpack(np.zeros(256, np.uint8))
    with pytest.raises(ValueError, match="says it has"):
        CSR.unpack(np.concatenate([build().pack(), np.zeros(64, np.uint8)]))
    with pytest.raises(ValueError, match="x must have shape"):
        build().matmul(np.zeros((1, 3, 1), np.float32))
