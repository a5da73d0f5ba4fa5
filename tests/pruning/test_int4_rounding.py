"""SparseGPT that rounds what it keeps to int4; training, checkpoints and conversion that keep to its scales."""

import copy

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from sparsekit import CSR, SparseLinear, convert, finalize, prune_sparsegpt
from sparsekit.int4_groups import GROUP
from sparsekit.introspect.int4_scales import each_scale, kept_scales
from sparsekit.pruning.masks.int4_rounding import Int4Rounding, apply_rounding, round_to_int4, rounding_of
from sparsekit.pruning.sparsegpt.group_scales import group_scales
from sparsekit.pruning.sparsegpt.solver import prune_and_round, prune_weight
from sparsekit.training.checkpoint import load_model_state


def tiny_llama() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=160, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def batches(count: int = 4) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    return [{"input_ids": torch.randint(0, 64, (4, 24))} for _ in range(count)]


@pytest.fixture(scope="module")
def rounded() -> nn.Module:
    model = tiny_llama()
    prune_sparsegpt(model, 0.5, batches(), ignore=["lm_head"], dtype="int4")
    return model


def on_grid(weight: torch.Tensor, scales: torch.Tensor) -> bool:
    each = each_scale(scales, weight.shape[1])
    return torch.equal(round_to_int4(weight, each), weight)


def test_one_size_of_groups():
    packed = CSR.from_dense(np.ones((1, 1000), np.float32)).pack("int4")
    assert CSR.unpack(packed).scales.shape == (1, -(-1000 // GROUP))


def test_rounding_with_feedback_is_closer_than_rounding_afterwards():
    torch.manual_seed(0)
    mixing = torch.randn(300, 300) * torch.rand(300)
    x = torch.randn(2000, 300) @ mixing
    weight, hessian = torch.randn(40, 300), x.T @ x
    pruned, _ = prune_weight(weight, hessian, 0.5)
    together, mask, scales = prune_and_round(weight, hessian, 0.5, "int4", "unstructured", 0.01)
    groups = [pruned[:, first : first + GROUP] for first in range(0, 300, GROUP)]
    afterwards = torch.cat([round_to_int4(one, group_scales(one)[:, None]) for one in groups], dim=1)
    errors = [((one - weight) @ x.T).square().sum() for one in (pruned, together, afterwards)]
    assert errors[0] < errors[1] < errors[2]
    assert on_grid(together, scales)
    assert not together[~mask].any()
    assert mask.float().mean() == pytest.approx(0.5, abs=0.01)


def test_group_scales_are_float16_and_better_than_the_largest_magnitude():
    torch.manual_seed(0)
    columns = torch.randn(20, GROUP)
    columns[3] = 0
    scales = group_scales(columns)
    assert torch.equal(scales, scales.half().float())
    assert scales[3] == 1
    largest = (columns.abs().amax(1) / 7).clamp_min(1e-6)
    found, plain = (round_to_int4(columns, one[:, None]) - columns for one in (scales, largest))
    assert found.square().sum() < plain.square().sum()


def test_a_model_keeps_masks_and_scales(rounded):
    for name, layer in rounded.named_modules():
        if isinstance(layer, nn.Linear) and name != "lm_head":
            assert rounding_of(layer) is not None
            assert on_grid(layer.weight.detach(), rounding_of(layer).scales)
            assert 0.5 <= (layer.weight == 0).float().mean() < 0.65


def test_training_rounds_straight_through(rounded):
    model = copy.deepcopy(rounded).train()
    layer = model.model.layers[0].mlp.up_proj
    before, scales = layer.weight.detach().clone(), rounding_of(layer).scales.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=3.0)
    for batch in batches():
        model(**batch, labels=batch["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not torch.equal(layer.weight, before)
    assert torch.equal(rounding_of(layer).scales, scales)
    assert on_grid(layer.weight.detach(), scales)
    assert not layer.weight[~layer.parametrizations.weight[0].mask].any()


def test_the_gradient_stops_where_weights_are_clipped():
    rounding = Int4Rounding(torch.ones(1, 1))
    weight = torch.tensor([[0.4, 9.0, -9.0, 7.4, -8.4]], requires_grad=True)
    rounding(weight).sum().backward()
    assert rounding(weight).tolist() == [[0.0, 7.0, -8.0, 7.0, -8.0]]
    assert weight.grad.tolist() == [[1.0, 0.0, 0.0, 1.0, 1.0]]


def test_checkpoints_hold_scales(rounded):
    fresh = tiny_llama()
    load_model_state(fresh, rounded.state_dict())
    batch = batches(1)[0]
    with torch.no_grad():
        assert torch.equal(fresh(**batch).logits, rounded(**batch).logits)


def test_conversion_takes_the_scales(rounded):
    model = copy.deepcopy(rounded)
    name = "model.layers.1.mlp.down_proj"
    weight, scales = model.get_submodule(name).weight.detach().clone(), rounding_of(model.get_submodule(name)).scales
    finalize(model)
    assert torch.equal(kept_scales(model.get_submodule(name)), scales)
    model = convert(model, dtype="int4", min_sparsity=0.0, ignore=["lm_head"])
    found = model.get_submodule(name)
    assert isinstance(found, SparseLinear)
    assert torch.equal(torch.from_numpy(found.to_csr().to_dense()), weight)
    np.testing.assert_array_equal(found.to_csr().scales, scales.numpy())


def test_scales_of_a_weight_that_moved_are_not_taken():
    layer = nn.Linear(200, 8)
    scales = torch.full((8, 2), 0.125)
    apply_rounding(layer, scales)
    assert rounding_of(layer).scales is scales
    apply_rounding(layer, scales * 2)
    assert on_grid(layer.weight.detach(), scales * 2)
    plain = nn.Linear(200, 8)
    plain.register_buffer("int4_scales", scales, persistent=False)
    assert kept_scales(plain) is None
    assert kept_scales(nn.Linear(2, 2)) is None


def test_conv1d_is_rounded_along_its_inputs():
    layer = transformers.pytorch_utils.Conv1D(6, 200)
    scales = torch.rand(6, 2).half().float() / 8 + 0.01
    apply_rounding(layer, scales)
    assert on_grid(layer.weight.detach().T.contiguous(), scales)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "dtype must be None or 'int4', got 'int8'"),
        ({"dtype": "int4", "mask_structure": "3:6"}, "int4 scales are of 128 columns, which 3:6 does not divide"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        prune_sparsegpt(tiny_llama(), 0.5, batches(1), ignore=["lm_head"], **arguments)
