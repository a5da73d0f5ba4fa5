"""`Int8Embedding` gives the rows of `nn.Embedding` but for rounding, in the type that the model has."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from sparsekit.nn import Int8Embedding

IDS = torch.tensor([[0, 3, 22], [22, 1, 1]])


@pytest.fixture
def table() -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(23, 17, padding_idx=3).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_those_of_the_table_but_for_rounding(table, dtype):
    table = table.to(dtype)
    found = Int8Embedding.from_embedding(table)
    vectors = found(IDS)
    assert vectors.dtype == dtype
    assert vectors.shape == (2, 3, 17)
    exact = found.codes[IDS].double() * found.scales[IDS].double().unsqueeze(-1)
    torch.testing.assert_close(vectors.double(), exact, rtol=torch.finfo(dtype).eps, atol=0)
    step = found.scales[IDS].unsqueeze(-1)
    assert ((vectors.float() - table(IDS).float()).abs() <= 0.51 * step + torch.finfo(dtype).eps * step * 127).all()
    assert not vectors[0, 1].any(), "the row of padding is zeros"
    assert not list(found.parameters())
    assert not found.training


@pytest.mark.parametrize("ids", [torch.tensor(5), torch.zeros(0, dtype=torch.int64), IDS.int(), IDS[None, None]])
def test_shapes_and_types_of_ids(table, ids):
    found, expected = Int8Embedding.from_embedding(table)(ids), table(ids)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("number", [-1, 23])
def test_ids_of_no_row(table, number):
    with pytest.raises(IndexError, match="out of range"):
        Int8Embedding.from_embedding(table)(torch.tensor([number]))


def test_types_move_and_codes_and_scales_stay(table):
    found = Int8Embedding.from_embedding(table)
    before = found(IDS)
    codes, scales = found.codes.clone(), found.scales.clone()
    for move, dtype in (
        (lambda: found.half(), torch.float16),
        (lambda: nn.Sequential(found).to(torch.bfloat16), torch.bfloat16),
        (lambda: found.double(), torch.float64),
        (lambda: found.float(), torch.float32),
    ):
        move()
        assert found(IDS).dtype == found.weight.dtype == dtype
        assert torch.equal(found(IDS), before.to(dtype))
    assert torch.equal(found.codes, codes)
    assert torch.equal(found.scales, scales)
    assert found.to("meta").scales.is_meta
    assert found.weight.device.type == "meta"


def test_copies_pickles_and_state_dicts(table):
    found = Int8Embedding.from_embedding(table)
    expected = found(IDS)
    fresh = Int8Embedding.like(nn.Embedding(23, 17))
    file = io.BytesIO()
    torch.save(found.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found)), fresh):  # noqa: S301
        assert torch.equal(again(IDS), expected)
    with pytest.raises(RuntimeError, match="size mismatch for codes"):
        Int8Embedding(23, 16).load_state_dict(found.state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key.* \"codes\", \"scales\""):
        fresh.load_state_dict(table.state_dict())


def test_exported_programs_compute_the_same(table):
    found = Int8Embedding.from_embedding(table)
    program = torch.export.export(nn.Sequential(found), (IDS,)).module()
    assert torch.equal(program(IDS), found(IDS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_back_to_a_table_of_the_same_vectors(table, dtype):
    found = Int8Embedding.from_embedding(table.to(dtype))
    back = found.to_embedding()
    assert type(back) is nn.Embedding
    assert back.padding_idx == 3
    assert back.weight.requires_grad
    assert torch.equal(back(IDS), found(IDS))
    assert torch.equal(Int8Embedding.from_embedding(found.float().to_embedding()).codes, found.codes)


def test_the_weight_has_facts_and_no_values(table):
    weight = Int8Embedding.from_embedding(table).weight
    assert (weight.shape, weight.dtype, weight.device.type) == ((23, 17), torch.float32, "cpu")
    with pytest.raises(RuntimeError, match="the weight of an Int8Embedding has .* no values.*to_embedding"):
        weight.sum()


class Scaled(nn.Embedding):
    def forward(self, input):
        return super().forward(input) * 2


@pytest.mark.parametrize(
    ("embedding", "why"),
    [
        (nn.Embedding(4, 2, max_norm=1.5), "its max_norm of 1.5 changes rows"),
        (nn.Embedding(4, 2, sparse=True), "its gradients are scaled by frequency or sparse"),
        (nn.Embedding(4, 2, scale_grad_by_freq=True), "its gradients are scaled by frequency or sparse"),
        (nn.Embedding(4, 2, dtype=torch.float64), "its weight is torch.float64, expected one of float32"),
        (Scaled(4, 2), "Scaled may compute something else than torch.nn.Embedding"),
        (nn.EmbeddingBag(4, 2), "EmbeddingBag may compute something else"),
    ],
)
def test_embeddings_that_are_refused(embedding, why):
    with pytest.raises(ValueError, match=f"these embeddings cannot be stored in int8: {why}"):
        Int8Embedding.from_embedding(embedding)


def test_values_that_are_refused(table):
    nn.init.constant_(table.weight, float("nan"))
    with pytest.raises(ValueError, match="the weight of embeddings must be finite to be stored in int8; keep float32"):
        Int8Embedding.from_embedding(table)
    with pytest.raises(ValueError, match="weight is on meta"):
        Int8Embedding.from_embedding(table.to("meta"))


def test_what_print_shows(table):
    found = Int8Embedding.from_embedding(table)
    assert repr(found) == "Int8Embedding(23, 17, padding_idx=3)"
    assert repr(found.half()) == "Int8Embedding(23, 17, padding_idx=3, output_dtype=torch.float16)"
