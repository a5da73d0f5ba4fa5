"""Magnitude pruning, masks that stay, selection of layers."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from sparsekit import finalize, prune
from sparsekit.pruning import Mask
from sparsekit.pruning.masks import masks_by_sparsity
from sparsekit.selection import select


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))


def masks(model: nn.Module) -> list[torch.Tensor]:
    return [module.mask for module in model.modules() if isinstance(module, Mask)]


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.87])
def test_layer_masks_equal_torch(sparsity):
    ours, theirs = mlp(), mlp()
    report = prune(ours, sparsity)
    for layer in theirs:
        if isinstance(layer, nn.Linear):
            torch_prune.l1_unstructured(layer, "weight", amount=sparsity)
    for mine, other in zip(masks(ours), [theirs[i].weight_mask for i in (0, 2, 4)], strict=True):
        assert torch.equal(mine, other.bool())
    assert report["0"] == pytest.approx(round(sparsity * 384) / 384)


def test_global_masks_equal_torch():
    ours, theirs = mlp(), mlp()
    report = prune(ours, 0.7, scope="global")
    torch_prune.global_unstructured(
        [(theirs[i], "weight") for i in (0, 2, 4)], pruning_method=torch_prune.L1Unstructured, amount=0.7
    )
    for mine, i in zip(masks(ours), (0, 2, 4), strict=True):
        assert torch.equal(mine, theirs[i].weight_mask.bool())
    assert len(set(report.values())) > 1, "layers keep different fractions"


def test_threshold():
    model = mlp()
    weight = model[0].weight.detach().clone()
    prune(model, threshold=0.1, targets=["0"])
    assert torch.equal(masks(model)[0], weight.abs() >= 0.1)


@pytest.mark.parametrize(("structure", "sparsity"), [("2:4", 0.5), ("1:4", 0.75), ("1:8", 0.875)])
def test_n_of_m_keeps_the_largest_of_every_group(structure, sparsity):
    model = mlp()
    weight = model[0].weight.detach().abs().reshape(-1, int(structure[2:]))
    assert prune(model, mask_structure=structure, targets=["0"]) == {"0": pytest.approx(sparsity)}
    groups = masks(model)[0].reshape(weight.shape)
    kept = int(structure[0])
    assert torch.all(groups.sum(1) == kept)
    assert torch.all((weight * groups).sum(1) >= weight.topk(kept, dim=1).values.sum(1) - 1e-6)


def test_blocks_live_and_die_together():
    model = mlp()
    prune(model, 0.5, mask_structure="4x2", targets=["0"])
    blocks = masks(model)[0].reshape(4, 4, 12, 2).float().mean(dim=(1, 3))
    assert set(blocks.flatten().tolist()) == {0.0, 1.0}
    assert blocks.mean() == 0.5


def test_ties_do_not_change_the_count():
    score = torch.ones(10, 10)
    assert masks_by_sparsity({"a": score}, 0.37)["a"].sum() == 63


def test_masks_stay_through_training_and_finalize_bakes_them_in():
    model = mlp()
    prune(model, 0.75)
    before = [mask.clone() for mask in masks(model)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(5):
        loss = model(torch.randn(32, 24)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for mask, layer, old in zip(masks(model), (model[0], model[2], model[4]), before, strict=True):
        assert torch.equal(mask, old)
        assert torch.all(layer.weight[~mask] == 0)
        assert torch.all(layer.weight[mask] != 0)
    x = torch.randn(3, 24)
    expected = model(x)
    assert finalize(model) is model
    torch.testing.assert_close(model(x), expected)
    assert not masks(model)
    assert set(model.state_dict()) == set(mlp().state_dict())
    assert isinstance(model[0].weight, nn.Parameter)


def test_finalizing_a_copy_leaves_the_original_alone():
    model = mlp()
    prune(model, 0.5)
    twin = copy.deepcopy(model)
    finalize(twin)
    x = torch.randn(2, 24)
    torch.testing.assert_close(model(x), twin(x))
    finalize(model)
    torch.testing.assert_close(model(x), twin(x))


def test_pruning_again_keeps_what_is_pruned():
    model = mlp()
    prune(model, 0.5)
    first = masks(model)[0].clone()
    prune(model, 0.8)
    second = masks(model)[0]
    assert second.float().mean() == pytest.approx(0.2, abs=0.01)
    assert not torch.any(second & ~first)


def test_a_mask_hides_inf_and_nan():
    mask = Mask(torch.tensor([[True, False]]))
    assert torch.equal(mask(torch.tensor([[1.0, float("nan")]])), torch.tensor([[1.0, 0.0]]))


def test_selection():
    model = nn.ModuleDict({"encoder": mlp(), "head": nn.Linear(4, 2)})
    assert list(select(model, ["Linear"], ["head"])) == ["encoder.0", "encoder.2", "encoder.4"]
    assert list(select(model, ["encoder"], ["ReLU"])) == ["encoder", "encoder.0", "encoder.2", "encoder.4"]
    assert list(select(model, [r"re:encoder\.[02]$"])) == ["encoder.0", "encoder.2"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sparsity": 1.2}, ValueError, r"sparsity must be in \[0, 1\), got 1.2"),
        ({"sparsity": 1.0}, ValueError, "got 1.0"),
        ({"sparsity": -0.1}, ValueError, "got -0.1"),
        ({}, ValueError, "give sparsity .* or threshold"),
        ({"sparsity": 0.5, "threshold": 0.1}, ValueError, "threshold stands alone"),
        ({"sparsity": 0.5, "scope": "all"}, ValueError, "scope must be 'layer' or 'global'"),
        ({"sparsity": 0.5, "criterion": "luck"}, ValueError, "criterion must be one of magnitude"),
        ({"sparsity": 0.5, "targets": ["decoder"]}, ValueError, "target 'decoder' matches no module"),
        ({"sparsity": 0.5, "targets": "Linear"}, TypeError, r"targets must be a list of patterns"),
        ({"sparsity": 0.5, "ignore": "0"}, TypeError, r"ignore must be a list of patterns"),
        ({"sparsity": 0.5, "ignore": ["Linear"]}, ValueError, "leave no torch.nn.Linear"),
        ({"sparsity": 0.5, "mask_structure": "4by1"}, ValueError, "mask_structure must be"),
        ({"sparsity": 0.6, "mask_structure": "2:4"}, ValueError, "'2:4' means sparsity 0.5, got 0.6"),
        ({"mask_structure": "4:2"}, ValueError, "0 < N < M"),
        ({"mask_structure": "2:4", "scope": "global"}, ValueError, "scope='layer'"),
        ({"sparsity": 0.5, "mask_structure": "5x1"}, ValueError, "cannot be cut into blocks of 5 x 1"),
    ],
)
def test_bad_arguments_leave_the_model_alone(arguments, error, message):
    model = mlp()
    with pytest.raises(error, match=message):
        prune(model, **arguments)
    assert not masks(model)


def test_shared_weights_and_nan_are_refused():
    model = mlp()
    model.append(nn.Linear(16, 24))
    model[5].weight = nn.Parameter(model[0].weight.t().contiguous())
    tied = nn.ModuleDict({"embedding": nn.Embedding(8, 4), "head": nn.Linear(4, 8)})
    tied["head"].weight = tied["embedding"].weight
    with pytest.raises(ValueError, match="head.weight is shared with embedding; put 'head' into ignore"):
        prune(tied, 0.5)
    model[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="0: the weight's scores hold NaN"):
        prune(model, 0.5)


def test_finalize_refuses_other_parametrizations():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    prune(model, 0.5)
    with pytest.raises(ValueError, match="0.weight has other parametrizations"):
        finalize(model)
