"""`compile_model(target=)` chooses layouts for another machine; results are the same on every machine."""

import struct

import numpy as np
import pytest
from tiny_encoders import assert_close, encoder, sequences

from sparsekit import CSR, convert, finalize, prune, runtime, save
from sparsekit.engine import Encoder, compile_model
from sparsekit.engine.compiled_file import KINDS
from sparsekit.formats.dtypes import WEIGHT_DTYPES

#: Target -> layouts of float weights.
FLOATS = {"avx2": {"csr"}, "avx512": {"sell"}, "neon": {"sell"}}
IDS = sequences((9, 4))


@pytest.fixture(scope="module", params=["dense", "sparse"])
def folder(request, tmp_path_factory):
    """Of `save`: layers of 80% zeros, converted and not."""
    path = tmp_path_factory.mktemp("targets") / "model"
    model = encoder("bert")
    prune(model, 0.8)
    if request.param == "dense":
        finalize(model).save_pretrained(path)
    else:
        save(convert(model, min_sparsity=0.5), path)
    return path


def layouts(compiled: np.ndarray) -> set[str]:
    """Layouts of the packed weights in a compiled model."""
    data = compiled.tobytes()
    (tensors,) = struct.unpack_from("<I", data, 12)
    entries = [struct.unpack_from("<4I2q2Q", data, 128 + 48 * number) for number in range(tensors)]
    packed = [compiled[start : start + size] for *_, start, size in entries]
    kinds = [entry[2] for entry in entries]
    return {
        runtime.packed_info(weight).layout
        for weight, kind in zip(packed, kinds, strict=True)
        if kind == KINDS["packed"]
    }


def test_targets_are_known():
    assert runtime.packing_targets() == ["native", *FLOATS]


@pytest.mark.parametrize("target", FLOATS)
def test_layouts_are_those_of_the_target_on_every_machine(target, folder, isa):
    compiled = compile_model(folder, target=target)
    assert layouts(compiled) == FLOATS[target]
    if isa == target:
        assert np.array_equal(compile_model(folder), compiled)


@pytest.mark.parametrize("zeros", [0, 11, 12, 16])
def test_weights_are_packed_as_the_target_packs_them(zeros, isa):
    weight = np.ones(16, np.float32)
    weight[:zeros] = 0.0
    csr = CSR.from_dense(weight.reshape(4, 4))
    for dtype in WEIGHT_DTYPES:
        assert csr.layouts(dtype, "native") == csr.layouts(dtype)
        if isa in FLOATS:
            assert csr.layouts(dtype, isa) == csr.layouts(dtype)
        for target in runtime.packing_targets():
            assert runtime.packed_info(csr.pack(dtype, target=target)).layout == csr.layouts(dtype, target)[0]
    assert csr.layouts("int8", "avx2") == (("csr", "sell") if zeros >= 12 else ("sell", "csr"))
    assert csr.layouts("int8", "neon") == ("sell",)
    assert runtime.packed_info(csr.pack(layout="csr", target="neon")).layout == "csr"


def test_every_instruction_set_computes_with_every_target(folder, tmp_path, isa):
    expected = np.concatenate(Encoder(folder).run(IDS))
    for target in FLOATS:
        compile_model(folder, tmp_path / target, target=target)
        assert_close(np.concatenate(Encoder(tmp_path / target).run(IDS)), expected)


def test_other_targets_are_refused(folder, tmp_path):
    for pack in (CSR.from_dense(np.eye(2, dtype=np.float32)).pack, lambda target: compile_model(folder, target=target)):
        with pytest.raises(ValueError, match=r"target must be one of native, avx2, avx512, neon, got '?sse"):
            pack(target="sse")
