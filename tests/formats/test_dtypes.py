"""The table of data types says what torch, safetensors and ONNX say."""

import pytest
import torch
from safetensors.torch import save

from sparsekit.formats.dtypes import BY_NAME, BY_ONNX, BY_SAFETENSORS, DTYPES, WEIGHT_DTYPES, weight_dtype

onnx = pytest.importorskip("onnx")


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_names_and_sizes(dtype):
    assert str(dtype.torch_dtype) == f"torch.{dtype.name}"
    assert dtype.torch_dtype.itemsize == dtype.nbytes
    assert f'"dtype":"{dtype.safetensors}"' in str(save({"x": torch.zeros(1, dtype=dtype.torch_dtype)}))
    assert onnx.TensorProto.DataType.Name(dtype.onnx).lower() == {"float64": "double", "float32": "float"}.get(
        dtype.name, dtype.name
    )


def test_each_name_is_of_one_type():
    assert len(BY_NAME) - 1 == len(BY_SAFETENSORS) == len(BY_ONNX) == len(DTYPES)  # int4 is stored in bytes
    assert BY_NAME.keys() >= set(WEIGHT_DTYPES)


def test_types_of_weights():
    assert [weight_dtype(BY_NAME[name].torch_dtype) for name in WEIGHT_DTYPES] == list(WEIGHT_DTYPES)
    with pytest.raises(ValueError, match="float32, bfloat16, float16, int8, int4, got torch.int16"):
        weight_dtype(torch.int16)
