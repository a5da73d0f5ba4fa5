"""int4 weights: groups of 128 input features with a float16 scale, inputs quantized group by group."""

import numpy as np
import pytest

from sparsekit import CSR, runtime
from sparsekit.formats.quantization import SCALE_METHODS
from sparsekit.int4_groups import GROUP, groups_of

SHAPES = [(1, 1), (16, 8), (17, 130), (64, 576), (33, 1000), (5, 0), (0, 7)]


def random_weight(shape, density=0.5):
    rng = np.random.default_rng(0)
    return CSR.from_dense((rng.standard_normal(shape) * (rng.random(shape) < density)).astype(np.float32))


def product(x, weight):
    """What the kernels are to compute, in float64: inputs as multiples of a 127th of their group's largest."""
    dense, result = weight.to_dense().astype(np.float64), np.zeros((len(x), weight.out_features))
    for first in range(0, weight.in_features, GROUP):
        part = x[:, first : first + GROUP]
        scale = np.abs(part).max(1, keepdims=True) / np.float32(127)
        result += np.rint(part / scale) * scale.astype(np.float64) @ dense[:, first : first + GROUP].T
    return result


@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_those_of_the_quantized_inputs(shape, isa):
    weight = CSR.unpack(random_weight(shape).pack("int4"))
    packed = weight.pack("int4")
    x = np.random.default_rng(1).standard_normal((53, shape[1])).astype(np.float32)
    found = runtime.linear(x, packed)
    alone = [runtime.linear(token[None], packed) for token in x]
    np.testing.assert_array_equal(np.concatenate(alone), found)
    magnitudes = np.abs(x) @ np.abs(weight.to_dense()).T
    assert (np.abs(found - product(x, weight)) <= 1e-6 * magnitudes + 1e-30).all()


@pytest.mark.parametrize("method", SCALE_METHODS)
def test_rounding_is_at_most_half_a_step_where_nothing_is_clipped(method):
    weight = random_weight((40, 300))
    back = CSR.unpack(weight.pack("int4", scale_method=method))
    assert (back.dtype, back.scales.dtype, back.scales.shape) == ("int4", np.float16, (40, groups_of(300)))
    assert -8 <= back.values.min() <= back.values.max() <= 7
    error = np.abs(back.to_dense() - weight.to_dense())
    if method == "absmax":
        steps = np.repeat(back.scales.astype(np.float32), GROUP, axis=1)[:, :300]
        assert (error <= 0.502 * steps).all()
    squared = {name: _squared_error(weight, name) for name in SCALE_METHODS}
    assert squared["mse"] < squared["absmax"]


def _squared_error(weight, method):
    return ((CSR.unpack(weight.pack("int4", scale_method=method)).to_dense() - weight.to_dense()) ** 2).sum()


def test_codes_and_scales_come_back_as_they_were():
    weight = CSR.unpack(random_weight((37, 200)).pack("int4"))
    again = CSR.unpack(weight.pack("int4"))
    for name in ("crow_indices", "col_indices", "values", "scales"):
        np.testing.assert_array_equal(getattr(again, name), getattr(weight, name))
    np.testing.assert_array_equal(again.rows(slice(3, 9)).to_dense(), weight.to_dense()[3:9])
    np.testing.assert_array_equal(again.rows(np.array([5, 1])).to_dense(), weight.to_dense()[[5, 1]])
    np.testing.assert_allclose(CSR.unpack(weight.pack("float32")).to_dense(), weight.to_dense())


def test_half_a_byte_a_weight():
    packed = random_weight((1024, 1024)).pack("int4")
    assert 4.1 < 8 * packed.nbytes / 2**20 < 4.2


def test_bad_scales_are_refused():
    weight = random_weight((2, 200))
    with pytest.raises(ValueError, match=r"scales must have shape \[out_features, groups\] = \[2, 2\], got \[2, 1\]"):
        weight.pack("int4", scales=np.ones((2, 1), np.float32))
    with pytest.raises(ValueError, match="numbers that float16 holds"):
        weight.pack("int4", scales=np.full((2, 2), 0.1, np.float32))
    codes, three = np.ones(3, np.int8), np.arange(3, dtype=np.int32)
    with pytest.raises(ValueError, match=r"scales must have shape \[out_features, groups\] = \[1, 1\], got 2 of them"):
        CSR([0, 3], three, codes, (1, 3), np.ones((1, 2), np.float16))
    with pytest.raises(ValueError, match="int4 values must be from -8 to 7, got 9"):
        CSR([0, 3], three, codes * 9, (1, 3), np.ones((1, 1), np.float16))
    with pytest.raises(ValueError, match="scales of groups must be numbers that float16 holds"):
        CSR([0, 3], three, codes, (1, 3), np.full((1, 1), 0.1))
    with pytest.raises(ValueError, match="int4 scales go up to 65,504"):
        CSR.from_dense(np.full((1, 3), 1e6, np.float32)).pack("int4")


def test_inputs_must_be_finite():
    packed = random_weight((8, 16)).pack("int4")
    with pytest.raises(ValueError, match="cannot be quantized"):
        runtime.linear(np.full((1, 16), np.nan, np.float32), packed)
