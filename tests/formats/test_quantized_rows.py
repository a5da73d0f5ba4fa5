"""Tables in int8 with a scale for each row: rounding, awkward rows, and what is refused."""

import numpy as np
import pytest

from sparsekit.formats.quantization import check_quantized_rows, dequantize_rows, quantize_rows


def test_rows_are_within_half_a_step_of_float64(rng):
    values = (rng.standard_normal((33, 17)) * 10.0 ** rng.integers(-6, 6, (33, 1))).astype(np.float32)
    codes, scales = quantize_rows(values)
    assert codes.dtype == np.int8
    assert scales.dtype == np.float32
    assert np.abs(codes).max(axis=1).tolist() == [127] * 33
    error = np.abs(codes * scales[:, None].astype(np.float64) - values.astype(np.float64))
    assert (error <= 0.50001 * scales[:, None]).all()
    assert np.array_equal(dequantize_rows(codes, scales), codes.astype(np.float32) * scales[:, None])


def test_largest_values_rows_of_zeros_and_tiny_rows():
    values = np.array([[1.0, -127.0], [0.0, 0.0], [1e-44, 0.0]], np.float32)
    codes, scales = quantize_rows(values)
    check_quantized_rows(codes, scales)
    assert codes[:2].tolist() == [[1, -127], [0, 0]]
    np.testing.assert_allclose(dequantize_rows(codes, scales), values, atol=1e-40)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_tables_without_values(shape):
    codes, scales = quantize_rows(np.zeros(shape, np.float32))
    check_quantized_rows(codes, scales)
    assert codes.shape == shape
    assert scales.tolist() == [1.0] * shape[0]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_values_that_are_not_finite(value):
    with pytest.raises(ValueError, match="must be finite to be stored in int8; keep float32"):
        quantize_rows(np.array([[1.0, value]], np.float32))


def test_the_largest_floats_stay_finite():
    values = np.full((1, 2), np.finfo(np.float32).max)
    codes, scales = quantize_rows(values)
    assert codes.tolist() == [[127, 127]]
    assert np.isfinite(scales).all()


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 1e38])
def test_scales_that_are_refused(scale):
    with pytest.raises(ValueError, match="scales must be positive and finite, as 127 times them, got"):
        check_quantized_rows(np.zeros((2, 1), np.int8), np.array([1.0, scale], np.float32))


def test_codes_that_are_refused():
    with pytest.raises(ValueError, match="codes must be from -127 to 127, got -128"):
        check_quantized_rows(np.array([[-128]], np.int8), np.ones(1, np.float32))
