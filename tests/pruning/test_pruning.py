"""Magnitude pruning, masks that stay, selection of layers."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from sparsekit import finalize, prune
from sparsekit.introspect.selection import select
from sparsekit.pruning import Mask, Schedule, prune_obert, prune_sparsegpt
from sparsekit.pruning.calibration.input_norms import input_norms
from sparsekit.pruning.masks.from_scores import masks_by_sparsity
from sparsekit.pruning.masks.parametrization import mask_of


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
        ({"sparsity": 0.5, "scope": "all"}, ValueError, "scope must be one of layer, row, global"),
        (
            {"sparsity": 0.5, "criterion": "luck"},
            ValueError,
            "criterion must be one of sparsegpt, obert, wanda, magnitude",
        ),
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
    with pytest.raises(ValueError, match="nothing to prune: head shares its weight with embedding"):
        prune(tied, 0.5)
    with pytest.raises(ValueError, match="head.weight is shared with embedding; put 'head' into ignore"):
        prune(tied, 0.5, targets=["head"])
    model[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="0: the weight's scores hold NaN"):
        prune(model, 0.5)


def test_floor_and_ceiling_bound_every_layer_and_keep_the_total():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 10))
    for layer, scale in zip(model, (1.0, 0.3, 0.01), strict=True):
        layer.weight.data *= scale
    free, bounded = copy.deepcopy(model), copy.deepcopy(model)
    assert prune(free, 0.6, scope="global")["2"] == 1.0
    reached = prune(bounded, 0.6, scope="global", floor=0.35, ceiling=0.85)
    assert reached["2"] == pytest.approx(0.85)
    assert reached["0"] == pytest.approx(0.35)
    assert reached["1"] == pytest.approx(0.6)
    for layer, dense in zip(bounded, model, strict=True):
        assert layer.weight[mask_of(layer)].abs().min() > dense.weight[~mask_of(layer)].abs().max(), "lowest go first"
    narrow = prune(copy.deepcopy(model), 0.6, scope="global", floor=0.5, ceiling=0.8)
    assert narrow == {"0": pytest.approx(0.5), "1": pytest.approx(0.5), "2": pytest.approx(0.8)}
    equal = prune(model, 1 / 3, scope="global", floor=1 / 3, ceiling=1 / 3, mask_structure="2x1")
    assert equal == {name: pytest.approx(0.34) for name in "012"}, "whole blocks, of which 50 do not divide by three"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"floor": 0.6, "scope": "global"}, "no masks of sparsity 0.5 have between 0.6 and 1.0 in every layer"),
        ({"ceiling": 0.4, "scope": "global"}, "between 0.0 and 0.4"),
        ({"floor": -0.1, "scope": "global"}, "0 <= floor <= sparsity"),
        ({"floor": 0.2}, "floor and ceiling need a sparsity and scope='global', got 0.5 and scope='layer'"),
        ({"floor": 0.2, "scope": "global", "threshold": 0.1, "sparsity": None}, "need a sparsity"),
    ],
)
def test_bounds_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        prune(mlp(), **{"sparsity": 0.5, **arguments})


class Tied(nn.Module):
    def __init__(self, embedding: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        if embedding:
            self.table = nn.Embedding(6, 6)
            self.table.weight = self.first.weight

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(input)))


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "taylor"])
def test_layers_that_share_a_weight_share_its_mask_and_stay_tied(criterion):
    model, data = Tied(), [{"input": torch.linspace(-1, 1, 24).sin().reshape(4, 6)}]
    given = {"magnitude": {}, "wanda": {"batches": data}}.get(criterion, {"batches": data, "loss": squares})
    assert prune(model, 0.5, criterion=criterion, **given) == {"first": 0.5, "second": 0.5}
    prune(model, 2 / 3, criterion=criterion, **given)
    assert mask_of(model.first) is mask_of(model.second)
    assert len(list(model.parameters())) == 1
    with pytest.raises(ValueError, match="first.weight is shared with second; put 'first' into ignore"):
        prune(model, 0.5, ignore=["second"])
    expected = model(**data[0])
    finalize(copy.deepcopy(model))
    finalize(model)
    assert model.first.weight is model.second.weight
    assert (model.first.weight == 0).sum() == 24
    assert torch.equal(model(**data[0]), expected)


def squares(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch).square().mean()


def test_ties_that_cannot_be_kept_are_refused():
    with pytest.raises(ValueError, match="first.weight is shared with second, table; put 'first' into ignore"):
        prune(Tied(embedding=True), 0.5, targets=["first"])
    data = [{"input": torch.ones(1, 6)}]
    for refused in (lambda: prune_sparsegpt(Tied(), 0.5, data), lambda: prune_obert(Tied(), 0.5, data)):
        with pytest.raises(ValueError, match="first.weight is shared with second; put all of them into ignore, or use"):
            refused()


def test_finalize_refuses_other_parametrizations():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    prune(model, 0.5)
    with pytest.raises(ValueError, match="0.weight has other parametrizations"):
        finalize(model)


def test_wanda_equals_a_plain_reference():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 6)).double()
    batches = [{"input": torch.randn(3, 5, 12, dtype=torch.float64)} for _ in range(2)]
    weights = [model[0].weight.detach().clone(), model[2].weight.detach().clone()]
    first = torch.cat([batch["input"].flatten(0, 1) for batch in batches])
    inputs = [first, model[:2](first).detach()]
    assert prune(model, 0.5, criterion="wanda", batches=batches) == {"0": 0.5, "2": 0.5}
    for layer, weight, x in zip((model[0], model[2]), weights, inputs, strict=True):
        score = weight.abs() * x.square().sum(0).sqrt()
        for row in range(weight.shape[0]):
            lowest = set(score[row].argsort()[: weight.shape[1] // 2].tolist())
            assert set((layer.weight[row] == 0).nonzero().flatten().tolist()) == lowest


def test_padding_does_not_count_for_wanda():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, hidden, attention_mask):
            return self.linear(hidden)

    model = Model()
    hidden = torch.randn(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    before = input_norms(model, {"linear": model.linear}, [{"hidden": hidden, "attention_mask": mask}])["linear"]
    torch.testing.assert_close(before, hidden[mask.bool()].norm(dim=0))
    hidden[mask == 0] += 100.0
    after = input_norms(model, {"linear": model.linear}, [{"hidden": hidden, "attention_mask": mask}])["linear"]
    assert torch.equal(before, after)


def test_scores_of_blocks_and_n_of_m_take_wanda_too():
    torch.manual_seed(0)
    batches = [{"input": torch.randn(9, 16)}]
    for structure, sparsity in (("4x1", 0.5), ("2:4", None)):
        model = nn.Sequential(nn.Linear(16, 8))
        prune(model, sparsity, criterion="wanda", batches=batches, mask_structure=structure)
        assert (model[0].weight == 0).float().mean() == 0.5


def test_wanda_needs_batches_that_reach_every_layer():
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="criterion 'wanda' needs calibration batches"):
        prune(model, 0.5, criterion="wanda")
    with pytest.raises(ValueError, match="criterion 'magnitude' needs no batches"):
        prune(model, 0.5, batches=[{"input": torch.randn(1, 4)}])
    with pytest.raises(ValueError, match="0 did not run on the calibration batches"):
        prune(model, 0.5, criterion="wanda", batches=[{"input": torch.zeros(1, 4)}])


def test_schedules_follow_their_formulas():
    for step in range(10, 51):
        left = 1 - (step - 10) / 40
        linear = Schedule(0.9, 0.1, start=10, end=50, frequency=7, rise="linear")
        assert linear.sparsity_at(step) == pytest.approx(0.9 - 0.8 * left)
        cubic = Schedule(0.9, 0.1, start=10, end=50, frequency=7)
        assert cubic.sparsity_at(step) == pytest.approx(0.9 - 0.8 * left**3)
        assert cubic.sparsity_at(step) >= linear.sparsity_at(step) - 1e-12
    assert (cubic.sparsity_at(0), cubic.sparsity_at(51)) == (0.1, 0.9)
    assert [step for step in range(80) if cubic.prunes_at(step)] == [10, 17, 24, 31, 38, 45, 50]
    once = Schedule(0.5, start=3, rise="one_shot")
    assert [step for step in range(9) if once.prunes_at(step)] == [3]
    assert (once.sparsity_at(2), once.sparsity_at(3)) == (0.0, 0.5)


def test_a_rising_sparsity_keeps_what_is_pruned():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16))
    schedule, gone = Schedule(0.8, end=20, frequency=5), torch.zeros(16, 16, dtype=torch.bool)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(25):
        if schedule.prunes_at(step):
            prune(model, schedule.sparsity_at(step))
        optimizer.zero_grad()
        model(torch.randn(8, 16)).square().mean().backward()
        optimizer.step()
        now = model[0].weight == 0
        assert bool((now | ~gone).all())
        gone = now
    assert gone.float().mean().item() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"final_sparsity": 1.0}, "sparsities must be 0 <= initial_sparsity <= final_sparsity < 1"),
        ({"final_sparsity": 0.5, "initial_sparsity": 0.6}, "sparsities must be"),
        ({"final_sparsity": 0.5, "end": 9, "rise": "steep"}, "rise must be one of one_shot, linear, cubic"),
        ({"final_sparsity": 0.5, "start": 5, "end": 5}, "must end after its start, got 5 to 5"),
        ({"final_sparsity": 0.5, "end": 9, "frequency": 0}, "frequency at least 1, got 0 and 0"),
    ],
)
def test_schedules_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**arguments)
