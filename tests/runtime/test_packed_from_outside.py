"""Packed weights from pickles, exported programs and shared memory are checked before kernels run on them."""

import copy
import gc
import pickle

import pytest
import torch

from sparsekit import _C, SparseLinear
from sparsekit.runtime.checked_weights import checked_places


def test_a_packed_weight_from_outside_is_checked_before_kernels_run(sparse):
    x = torch.randn(3, 48)
    for shared in (False, True):
        for through in (copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))):  # noqa: S301
            damaged = through(sparse)
            damaged.packed[-64:] = 77  # columns of a weight with 48 input features
            if shared:
                damaged.packed.share_memory_()
            with torch.no_grad(), pytest.raises(ValueError, match="the packed weight is damaged: columns"):
                damaged(x)
            with pytest.raises(ValueError, match="is damaged"):
                damaged.to_csr()
    with pytest.raises(ValueError, match="is damaged"):
        SparseLinear(48, 40, packed=damaged.packed)(x)


def test_a_damaged_weight_of_an_exported_program_is_refused(sparse, tmp_path):
    x = torch.randn(3, 48)
    with torch.no_grad():
        exported = torch.export.export(sparse, (x,))
        torch.export.save(exported, tmp_path / "layer.pt2")
        torch.testing.assert_close(torch.export.load(tmp_path / "layer.pt2").module()(x), sparse(x))
        program = torch.export.load(tmp_path / "layer.pt2")
        (name,) = [name for name in program.constants if name.endswith("packed")]
        program.constants[name][-64:] = 77
        with pytest.raises(ValueError, match="the packed weight is damaged: columns"):
            program.module()(x)


def test_a_packed_weight_is_checked_once(sparse, monkeypatch):
    x, checked = torch.randn(3, 48), []
    check = _C.check_packed
    monkeypatch.setattr(_C, "check_packed", lambda *where: (checked.append(where), check(*where)))
    for _ in range(3):
        sparse(x)
    assert len(checked) == 1
    twin = copy.deepcopy(sparse)
    twin(x)
    assert len(checked) == 2
    key = id(twin.packed)
    assert key in checked_places
    del twin
    gc.collect()
    assert key not in checked_places
    sparse.packed.share_memory_()  # other memory
    sparse(x)
    assert len(checked) == 3
