"""Allocation of sparsity to layers: costs against a reference, the allocation, and pruning by it."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from sparsekit.pruning import allocate_sparsity, prune, prune_obert, prune_sparsegpt
from sparsekit.pruning.allocation import distribute, loss_curves
from sparsekit.pruning.criteria.magnitude import score as magnitude
from sparsekit.pruning.masks.from_scores import masks_by_sparsity


def mlp(*widths):
    torch.manual_seed(0)
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def squares(model, x):
    return model(x).square().mean()


def batches(width, count=8):
    return list(torch.randn(count, 4, width, generator=torch.Generator().manual_seed(1)))


def zeros_of(model, name):
    weight = model.get_submodule(name).weight
    return (weight == 0).float().mean().item()


def test_costs_equal_a_reference():
    model, data = mlp(20, 12, 16).double(), [x.double() for x in batches(20)]
    layers = {name: model.get_submodule(name) for name in ("0", "2")}
    scores = {name: magnitude(layer.weight.detach()) for name, layer in layers.items()}
    dropped = {
        name: torch.stack(
            [
                ~masks_by_sparsity({name: score}, level / 20)[name] if level < 20 else torch.ones_like(score) > 0
                for level in range(1, 21)
            ]
        )
        for name, score in scores.items()
    }
    kept = {name: (~masks[:-1]).sum(0).flatten().to(torch.uint8) for name, masks in dropped.items()}
    wanted = {name: torch.zeros(20, dtype=torch.float64) for name in layers}
    for x in data:
        model.zero_grad()
        squares(model, x).backward()
        for name, layer in layers.items():
            change = (layer.weight.detach() * layer.weight.grad * dropped[name]).sum((1, 2))
            wanted[name] += change.square() / 2 / len(data)
    found = loss_curves(model, layers, kept, data, squares)
    for name in layers:
        torch.testing.assert_close(found[name], wanted[name])


@pytest.mark.parametrize(
    ("sparsity", "least", "most"), [(0.5, 0.3, 0.7), (0.9, 0.7, 0.95), (0.37, 0.0, 1.0), (0, 0, 0)]
)
def test_what_is_given_out_adds_up_within_bounds(sparsity, least, most):
    generator = torch.Generator().manual_seed(0)
    sizes = {"a": 100, "b": 5000, "c": 1234}
    curves = {name: torch.rand(20, generator=generator).cumsum(0).square() for name in sizes}
    given = distribute(curves, sizes, sparsity, least, most)
    total = sum(part * sizes[name] for name, part in given.items())
    assert total == pytest.approx(sparsity * sum(sizes.values()))
    assert all(0.0 <= part < 1.0 or (part, most) == (1.0, 1.0) for part in given.values())
    assert all(least - 1e-9 <= part <= most + 1e-9 for part in given.values())


def test_the_next_step_goes_where_it_costs_least():
    rising = torch.tensor([1.0, 3.0, 6.0, 10.0])
    given = distribute({"cheap": rising, "dear": 10 * rising}, {"cheap": 10, "dear": 10}, 0.5, 0.0, 1.0)
    assert given == pytest.approx({"cheap": 1.0, "dear": 0.0})
    given = distribute({"small": rising, "large": rising}, {"small": 10, "large": 30}, 0.5, 0.0, 1.0)
    assert given["large"] > given["small"], "a step of a larger layer brings more for the same cost"
    dip = torch.tensor([4.0, 4.5, 5.0, 9.0])  # a first step that costs more than the next ones still comes first
    given = distribute({"dip": dip, "even": torch.tensor([3.0, 6.0, 9.0, 12.0])}, {"dip": 4, "even": 4}, 0.5, 0.0, 1.0)
    assert given == pytest.approx({"dip": 0.0, "even": 1.0})
    late = {"dear at first": torch.tensor([9.0, 10.0, 11.0, 12.0]), "even": torch.tensor([2.0, 4.0, 6.0, 8.0])}
    given = distribute(late, dict.fromkeys(late, 4), 0.5, 0.25, 0.75)  # the expensive step is below the lower bound
    assert given == pytest.approx({"dear at first": 0.75, "even": 0.25})


def test_nothing_given_out_is_negative():
    generator = torch.Generator().manual_seed(0)
    sizes = {str(i): [331_776, 110_592, 884_736][i % 3] for i in range(12)}
    for _ in range(300):
        curves = {name: torch.rand(20, generator=generator).cumsum(0) for name in sizes}
        assert min(distribute(curves, sizes, 0.15, 0.0, 0.35).values()) >= 0.0


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.loud, self.quiet = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x):
        return self.loud(x) + 0.1 * self.quiet(x)


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "taylor", "fisher"])
def test_a_layer_that_matters_less_is_pruned_more_and_the_outputs_stay_closer(criterion):
    data = batches(64, 32)
    outputs = [Branches()(x) for x in data]

    def change(sparsity):
        model = Branches()
        prune(model, sparsity)
        return sum((model(x) - y).square().mean().item() for x, y in zip(data, outputs, strict=True))

    calibration = {"magnitude": None, "wanda": [{"x": x} for x in data]}.get(criterion, data)
    model = Branches()
    given = allocate_sparsity(model, 0.5, data, loss=squares, criterion=criterion, calibration=calibration)
    assert given == pytest.approx({"loud": 0.3, "quiet": 0.7})
    assert zeros_of(model, "quiet") == 0, "nothing is pruned yet"
    assert change(given) < 0.5 * change(0.5)


def test_spread_says_how_far_and_half_a_share_is_kept():
    model, data = mlp(64, 64, 64), batches(64)
    model[0].weight.data.mul_(0.01)
    assert allocate_sparsity(model, 0.5, data, loss=squares, spread=0.1) == pytest.approx({"0": 0.6, "2": 0.4})
    assert allocate_sparsity(model, 0.9, data, loss=squares) == pytest.approx({"0": 0.95, "2": 0.85})
    assert allocate_sparsity(model, 0.5, data, loss=squares, spread=0) == pytest.approx({"0": 0.5, "2": 0.5})


def test_layers_that_share_a_weight_get_one_sparsity():
    model = mlp(32, 32, 32, 32)
    model[4].weight = model[0].weight
    given = allocate_sparsity(model, 0.5, batches(32), loss=squares)
    assert given["0"] == given["4"]
    assert (given["0"] + given["2"]) / 2 == pytest.approx(0.5)
    assert prune(model, given) == pytest.approx(given, abs=1e-3)
    with pytest.raises(ValueError, match=r"share one weight need one sparsity, got 0 0\.1, 4 0\.3"):
        prune(model, {"0": 0.1, "2": 0.2, "4": 0.3})


def test_layers_of_gpt2_are_given_what_linear_ones_are():
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    linear, turned, data = mlp(32, 48, 32), mlp(32, 48, 32), batches(32)
    for name in ("0", "2"):
        layer = turned.get_submodule(name)
        other = conv1d(layer.out_features, layer.in_features)
        other.weight.data, other.bias.data = layer.weight.data.T.contiguous(), layer.bias.data
        turned[int(name)] = other
    given = allocate_sparsity(turned, 0.5, data, loss=squares, targets=["Conv1D"])
    assert given == pytest.approx(allocate_sparsity(linear, 0.5, data, loss=squares))


def test_blocks_and_rows():
    model, data = mlp(32, 32, 32), batches(32)
    given = allocate_sparsity(model, 0.5, data, loss=squares, scope="row", mask_structure="4x1")
    reached = prune(model, given, scope="row", mask_structure="4x1")
    assert reached == pytest.approx(given, abs=1 / 32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_frozen_and_masked_weights_of_other_types(dtype):
    model = Branches().to(dtype).train().requires_grad_(False)
    prune(model, {"loud": 0.6, "quiet": 0.0})
    given = allocate_sparsity(model, 0.5, [x.to(dtype) for x in batches(64, 32)], loss=squares, spread=0.4)
    assert given == pytest.approx({"loud": 0.6, "quiet": 0.4}, abs=0.05), "what is masked already costs nothing"
    assert model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_gradients_that_are_not_finite_are_refused():
    data = batches(8)
    data[3][0] = float("inf")
    with pytest.raises(ValueError, match="0: gradients hold NaN or inf"):
        allocate_sparsity(mlp(8, 8, 8), 0.5, data, loss=squares)


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(mlp(32, 48, 32) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_every_way_to_prune_takes_sparsities_by_layer():
    given = {"layers.0.0": 0.25, "layers.0.2": 0.5, "layers.1.0": 0.75, "layers.1.2": 0.0}
    data = batches(32)
    for pruned in (
        lambda model: prune(model, given),
        lambda model: prune(model, given, criterion="wanda", batches=[{"x": x} for x in data]),
        lambda model: prune_sparsegpt(model, given, [{"x": x} for x in data]),
        lambda model: prune_obert(model, given, data, loss=squares),
    ):
        model = Blocks()
        assert pruned(model) == pytest.approx(given)
        assert {name: zeros_of(model, name) for name in given} == pytest.approx(given)


@pytest.mark.parametrize(
    ("sparsity", "arguments", "message"),
    [
        ({"0": 0.5}, {}, "there is no sparsity for 2; sparsities by layer need one for each"),
        ({"0": 0.5, "2": 0.5} | dict.fromkeys("abcde", 0.5), {}, "no layer to prune of the name a, b, c and 2 more"),
        ({"0": 0.5, "2": 1.5}, {}, r"2: sparsity must be in \[0, 1\), got 1.5"),
        ({"0": 0.5, "2": 0.5}, {"floor": 0.1}, "got one for each layer and scope='layer'"),
        ({"0": 0.5, "2": 0.5}, {"scope": "global"}, "scope='global' chooses the layers' sparsities itself"),
        ({"0": 0.5, "2": 0.5}, {"threshold": 0.1}, "threshold stands alone"),
        ({"0": 0.5, "2": 0.25}, {"mask_structure": "2:4"}, "'2:4' means sparsity 0.5, got 0.25"),
    ],
)
def test_sparsities_of_other_layers_are_refused(sparsity, arguments, message):
    model = mlp(8, 8, 8)
    with pytest.raises(ValueError, match=message):
        prune(model, sparsity, **arguments)
    assert zeros_of(model, "0") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.2}, "sparsity must be in"),
        ({"spread": -0.1}, "spread must be in"),
        ({"scope": "global"}, "scope must be row or layer"),
        ({"mask_structure": "2:4"}, "fixes every layer's sparsity"),
        ({"criterion": "luck"}, "criterion must be one of"),
        ({"batches": []}, "at least one batch"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        allocate_sparsity(mlp(8, 8, 8), **({"sparsity": 0.5, "batches": batches(8), "loss": squares} | arguments))
