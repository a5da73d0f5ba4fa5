"""Blocks of 4x1 and 16-bit weights: found in weights, kept in layers, models and state dicts."""

import copy

import numpy as np
import pytest
import torch
from matrices import blocked_weight, random_weight
from torch import nn

from sparsekit import (
    CSR,
    JoinedLinear,
    SparseLinear,
    conversion_report,
    convert,
    densify,
    load_state_dict,
    prune,
    runtime,
)
from sparsekit.pruning import finalize


def pruned(out_features=96, in_features=200, structure="4x1"):
    torch.manual_seed(0)
    layer = nn.Linear(in_features, out_features)
    prune(nn.Sequential(layer), 0.8, mask_structure=structure)
    finalize(layer)
    return layer


def test_blocks_are_recognized(rng):
    weight = blocked_weight(rng, (256, 300), 0.8)
    csr = CSR.from_dense(weight)
    assert csr.block() == "4x1"
    assert runtime.packed_info(csr.pack()).block == "4x1"
    assert runtime.packed_info(csr.pack(block="1x1")).block == "1x1"
    assert csr.pack().nbytes < csr.pack(block="1x1").nbytes
    assert CSR.from_dense(random_weight(rng, (98, 300), 0.8)).block() == "1x1"
    sixteen = np.repeat(blocked_weight(rng, (24, 300), 0.8)[::4], 16, axis=0)
    assert CSR.from_dense(sixteen).block() == "4x1"
    assert CSR.from_dense(np.zeros((8, 8), np.float32)).block() == "1x1"
    assert SparseLinear(8, 8).block == "1x1"


def test_a_few_zeros_inside_blocks_do_not_hide_them(rng):
    weight = blocked_weight(rng, (96, 300), 0.8)
    rows, columns = np.nonzero(weight)
    gone = rng.choice(rows.size, rows.size // 40, replace=False)
    weight[rows[gone], columns[gone]] = 0.0
    csr = CSR.from_dense(weight)
    packed = csr.pack()
    info = runtime.packed_info(packed)
    assert info.block == "4x1"
    assert info.nnz > csr.nnz  # the zeros are stored
    assert np.array_equal(CSR.unpack(packed).to_dense(), weight)


def test_rows_without_blocks_do_not_hide_those_that_follow(rng):
    weight = blocked_weight(rng, (1024, 2048), 0.9)
    weight[:4] = random_weight(rng, (4, 2048), 0.5)
    assert CSR.from_dense(weight).block() == "4x1"


def test_blocks_can_be_asked_for(rng):
    csr = CSR.from_dense(random_weight(rng, (30, 64), 0.9))
    packed = csr.pack(block="4x1")
    assert np.array_equal(CSR.unpack(packed).to_dense(), csr.to_dense())
    full = csr.with_full_blocks()
    assert full.nnz == runtime.packed_info(packed).nnz > csr.nnz
    with pytest.raises(ValueError, match="block must be one of 1x1, 4x1, got '2x2'"):
        csr.pack(block="2x2")
    with pytest.raises(ValueError, match="block must be one of"):
        csr.with_full_blocks("1x4")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
@pytest.mark.parametrize("structure", ["unstructured", "4x1"])
def test_state_dicts_keep_blocks_and_dtypes(dtype, structure):
    sparse = SparseLinear.from_linear(pruned(structure=structure), dtype=dtype)
    wanted = "4x1" if structure == "4x1" else "1x1"
    assert (sparse.dtype, sparse.block) == (dtype, wanted)
    assert ("block='4x1'" in repr(sparse)) == (structure == "4x1")
    state = sparse.state_dict()
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
    assert state["values"].dtype == types[dtype]
    fresh = SparseLinear(200, 96)
    fresh.load_state_dict(state)
    assert torch.equal(fresh.packed, sparse.packed)
    assert torch.equal(copy.deepcopy(sparse).packed, sparse.packed)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
@pytest.mark.parametrize("structure", ["unstructured", "4x1"])
def test_models_convert_and_go_back(dtype, structure):
    model = nn.Sequential(pruned(256, 128, structure), nn.GELU(), pruned(128, 256, structure)).eval()
    x = torch.randn(20, 128)
    expected, fresh = model(x), copy.deepcopy(model)
    report = conversion_report(convert(model, dtype=dtype, min_sparsity=0.5))
    assert (report.converted, report.fused) == (2, 1)
    block = "4x1" if structure == "4x1" else "1x1"
    assert [(layer.dtype, layer.block) for layer in report.layers] == [(dtype, block)] * 2
    found = model(x)
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.999
    load_state_dict(fresh, model.state_dict())
    assert torch.equal(fresh(x), found)
    densify(model)
    assert torch.nn.functional.cosine_similarity(model(x), expected).min() > 0.999


def test_gradients_flow_through_blocks_and_halves():
    layer = pruned()
    x = torch.randn(9, 200, requires_grad=True)
    layer(x).sum().backward()
    wanted, x.grad = x.grad, None
    SparseLinear.from_linear(layer, dtype="bfloat16")(x).sum().backward()
    assert torch.allclose(x.grad, wanted, atol=0.02)


def test_joined_layers_keep_blocks():
    parts = [pruned(), pruned(40)]
    joined = JoinedLinear.from_linears(parts)
    assert joined.linear.block == "4x1"
    x = torch.randn(5, 200)
    for mine, part in zip(joined(x), parts, strict=True):
        assert torch.allclose(mine, part(x), atol=1e-6)


def test_a_weight_beyond_float16_is_refused_in_words():
    layer = pruned()
    layer.weight.data[0, 0] = 1e6
    with pytest.raises(ValueError, match="float16 values go up to 65504.*use bfloat16"):
        SparseLinear.from_linear(layer, dtype="float16")
    assert SparseLinear.from_linear(layer, dtype="bfloat16").dtype == "bfloat16"
