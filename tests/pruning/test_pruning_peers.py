"""Masks equal those of PyTorch's own pruning tools and, for Wanda, its definition; `Conv1D` equals `nn.Linear`."""

import copy

import pytest
import torch
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import prune as torch_prune
from transformers.pytorch_utils import Conv1D

from sparsekit import finalize, prune
from sparsekit.pruning import METHODS
from sparsekit.pruning.layers import weight_of
from sparsekit.pruning.masks.parametrization import mask_of
from sparsekit.pruning.methods import weight_methods


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 8))


def linears(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def assert_masks(model: nn.Module, expected: list[torch.Tensor]) -> None:
    for layer, mask in zip(linears(model), expected, strict=True):
        assert torch.equal(mask_of(layer), mask.bool())


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.95])
def test_magnitude_by_layer(sparsity):
    ours, theirs = network(), network()
    prune(ours, sparsity)
    expected = [torch_prune.l1_unstructured(layer, "weight", sparsity).weight_mask for layer in linears(theirs)]
    assert_masks(ours, expected)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.95])
def test_magnitude_over_all_layers(sparsity):
    ours, theirs = network(), network()
    prune(ours, sparsity, scope="global")
    weights = [(layer, "weight") for layer in linears(theirs)]
    torch_prune.global_unstructured(weights, pruning_method=torch_prune.L1Unstructured, amount=sparsity)
    assert_masks(ours, [layer.weight_mask for layer in linears(theirs)])


def test_threshold():
    ours, theirs = network(), network()
    prune(ours, threshold=0.08)
    counts = [int((layer.weight.abs() < 0.08).sum()) for layer in linears(theirs)]
    expected = [
        torch_prune.l1_unstructured(layer, "weight", count).weight_mask
        for layer, count in zip(linears(theirs), counts, strict=True)
    ]
    assert_masks(ours, expected)


def sparsifier_masks(**arguments: object) -> list[torch.Tensor]:
    model = network()
    sparsifier = WeightNormSparsifier(norm=1, **arguments)
    sparsifier.prepare(model, [{"tensor_fqn": f"{index}.weight"} for index in (0, 2, 4)])
    sparsifier.step()
    return [model[index].parametrizations.weight[0].mask for index in (0, 2, 4)]


@pytest.mark.parametrize(("structure", "kept", "group"), [("2:4", 2, 4), ("1:4", 1, 4), ("1:8", 1, 8)])
def test_n_of_m(structure, kept, group):
    ours = network()
    prune(ours, mask_structure=structure)
    expected = sparsifier_masks(sparsity_level=1.0, sparse_block_shape=(1, group), zeros_per_block=group - kept)
    assert_masks(ours, expected)


@pytest.mark.parametrize(("structure", "block"), [("unstructured", (1, 1)), ("4x1", (4, 1)), ("1x4", (1, 4))])
@pytest.mark.parametrize("sparsity", [0.3, 0.75])
def test_blocks(structure, block, sparsity):
    ours = network()
    prune(ours, sparsity, mask_structure=structure)
    assert_masks(ours, sparsifier_masks(sparsity_level=sparsity, sparse_block_shape=block))


def test_wanda_in_two_of_four_equals_its_definition():
    model = network().double()
    dense, data = copy.deepcopy(model), torch.randn(9, 32, dtype=torch.float64)
    prune(model, criterion="wanda", mask_structure="2:4", batches=[{"input": data[:5]}, {"input": data[5:]}])
    inputs = [data, dense[:2](data), dense[:4](data)]
    for layer, pruned, x in zip(linears(dense), linears(model), inputs, strict=True):
        score = layer.weight.abs() * x.square().sum(0).sqrt()
        for row in range(score.shape[0]):
            for first in range(0, score.shape[1], 4):
                kept = set(score[row, first : first + 4].argsort()[2:].tolist())
                group = mask_of(pruned)[row, first : first + 4]
                assert set(group.nonzero().flatten().tolist()) == kept


def squares(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch).square().mean()


def as_conv1d(model: nn.Sequential) -> nn.Sequential:
    twin = copy.deepcopy(model)
    for index, layer in enumerate(model):
        if isinstance(layer, nn.Linear):
            twin[index] = Conv1D(*layer.weight.shape).double()
            twin[index].weight.data.copy_(layer.weight.T)
            twin[index].bias.data.copy_(layer.bias)
    return twin


@pytest.mark.parametrize("criterion", [name for name in weight_methods() if name != "sparsegpt"])
@pytest.mark.parametrize("structure", ["unstructured", "2:4", "4x1"])
def test_conv1d_is_pruned_like_the_linear_layer_it_is(criterion, structure):
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8)).double()
    conv = as_conv1d(linear)
    data = [{"input": torch.randn(8, 16).double()} for _ in range(3)]
    for model, target in ((linear, "Linear"), (conv, "Conv1D")):
        arguments = {"targets": [target], "mask_structure": structure}
        method = METHODS[criterion]
        given = {"batches": data if method.needs_batches else [], "loss": squares if method.needs_loss else None}
        prune(model, 0.5, criterion=criterion, **given, **arguments)
    for mine, other in zip((conv[0], conv[2]), (linear[0], linear[2]), strict=True):
        assert (mine.weight == 0).double().mean() == 0.5
        torch.testing.assert_close(weight_of(mine), weight_of(other))
    assert isinstance(finalize(conv)[0].weight, nn.Parameter)
