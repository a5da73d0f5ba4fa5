"""Criteria that need gradients, and what goes with them, against plain float64 references on small layers."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from sparsekit import finalize, prune
from sparsekit.pruning import (
    Mask,
    apply_movement,
    drop_optimizer_state,
    prune_obert,
    pruning_report,
)
from sparsekit.pruning.criteria.fisher import BlockInverse
from sparsekit.pruning.parametrization import mask_of


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5)).double()


def batches(count: int = 4, features: int = 7) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    return [
        {"input": torch.randn(8, features, dtype=torch.float64), "labels": torch.randint(0, 5, (8,))}
        for _ in range(count)
    ]


def cross_entropy(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(model(batch["input"]), batch["labels"])


def gradients(model: nn.Module, layer: str) -> list[torch.Tensor]:
    """Gradients of one layer's weight by plain backward passes on a copy."""
    twin, found = copy.deepcopy(model), []
    for batch in batches():
        twin.zero_grad()
        cross_entropy(twin, batch).backward()
        found.append(twin.get_submodule(layer).weight.grad.clone())
    return found


def dense_fisher(found: list[torch.Tensor], row: int, columns: slice, damping: float) -> torch.Tensor:
    g = torch.stack([gradient[row, columns] for gradient in found])
    return damping * torch.eye(g.shape[1], dtype=torch.float64) + g.T @ g / len(found)


def without_lowest(score: torch.Tensor, sparsity: float) -> torch.Tensor:
    dropped = round(sparsity * score.numel())
    return (score.flatten() > score.flatten().sort().values[dropped - 1]).reshape(score.shape)


def test_taylor_equals_the_formula_and_leaves_no_trace():
    model = network()
    expected = {
        name: sum((model.get_submodule(name).weight.detach() * g).square() for g in gradients(model, name))
        for name in ("0", "2")
    }
    model.train()
    model[0].weight.requires_grad_(False)
    prune(model, 0.5, criterion="taylor", batches=batches(), loss=cross_entropy)
    for name, score in expected.items():
        assert torch.equal(model.get_submodule(name).parametrizations.weight[0].mask, without_lowest(score, 0.5))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [p.requires_grad for n, p in model.named_parameters() if n.endswith("original")] == [False, True]


def test_taylor_again_keeps_what_is_pruned():
    model = network()
    prune(model, 0.4, criterion="taylor", batches=batches(), loss=cross_entropy)
    first = mask_of(model[0]).clone()
    prune(model, 0.7, criterion="taylor", batches=batches(), loss=cross_entropy)
    assert not torch.any(mask_of(model[0]) & ~first)


class WithLoss(nn.Module):
    """Like a transformers model: the loss is in the output where there are labels."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.spare = network(), nn.Linear(2, 2)

    def forward(self, input: torch.Tensor, labels: torch.Tensor | None = None) -> SimpleNamespace:
        logits = self.body(input)
        return SimpleNamespace(loss=None if labels is None else F.cross_entropy(logits, labels), logits=logits)


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
def test_the_loss_of_the_output_is_the_default(criterion):
    model, plain = WithLoss(), network()
    prune(model, 0.5, criterion=criterion, batches=batches(), targets=["body"])
    prune(plain, 0.5, criterion=criterion, batches=batches(), loss=cross_entropy)
    for index in (0, 2):
        assert torch.equal(mask_of(model.body[index]), mask_of(plain[index]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batches": [{"input": batches()[0]["input"]}]}, ValueError, "output must have a loss, got SimpleNamespace"),
        ({"batches": [batches()[0]["input"]]}, TypeError, "a batch must be a mapping .* got Tensor"),
        ({"loss": lambda model, batch: model(**batch).logits}, ValueError, r"scalar tensor, got shape \[8, 5\]"),
        ({"loss": lambda model, batch: 1.0}, ValueError, "scalar tensor, got float"),
        ({"loss": lambda model, batch: model(**batch).loss.detach()}, ValueError, "without gradient"),
        ({"targets": ["Linear"]}, ValueError, "the loss of a batch does not depend on spare; put into ignore"),
        ({"criterion": "magnitude", "batches": (), "loss": cross_entropy}, ValueError, "'magnitude' takes no loss"),
        ({"batches": ()}, ValueError, "'taylor' needs calibration batches"),
    ],
)
def test_losses_that_cannot_be_are_refused(arguments, error, message):
    model = WithLoss()
    with pytest.raises(error, match=message):
        prune(model, 0.5, **{"criterion": "taylor", "batches": batches(), "targets": ["body"], **arguments})
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("damping", [1e-2, 1e-7])
def test_the_inverse_fisher_equals_a_dense_inverse(damping):
    torch.manual_seed(0)
    found = [torch.randn(4, 7, dtype=torch.float64) for _ in range(37)]
    inverse = BlockInverse(torch.zeros(4, 7), len(found), block_size=3, damping=damping)
    for gradient in found:
        inverse.add(gradient)
    inverse.finish()
    for row in range(4):
        for block, columns in enumerate((slice(0, 3), slice(3, 6), slice(6, 7))):
            expected = torch.linalg.inv(dense_fisher(found, row, columns, damping))
            width = expected.shape[0]
            torch.testing.assert_close(inverse.blocks[row, block, :width, :width], expected, rtol=1e-6, atol=1e-8)
            torch.testing.assert_close(inverse.diagonal()[row, columns], expected.diagonal(), rtol=1e-6, atol=1e-8)


def obert_reference(model: nn.Module, layer: str, sparsity: float, width: int, damping: float) -> torch.Tensor:
    """Scores from dense inverses; then the weights that stay minimise the quadratic, with those pruned held at zero."""
    found, weight = gradients(model, layer), model.get_submodule(layer).weight.detach().clone()
    spans = [slice(first, first + width) for first in range(0, weight.shape[1], width)]
    score = torch.empty_like(weight)
    for row in range(weight.shape[0]):
        for span in spans:
            inverse = torch.linalg.inv(dense_fisher(found, row, span, damping))
            score[row, span] = weight[row, span].square() / (2 * inverse.diagonal())
    mask = without_lowest(score, sparsity)
    for row in range(weight.shape[0]):
        for span in spans:
            fisher, kept, part = dense_fisher(found, row, span, damping), mask[row, span], weight[row, span]
            part[kept] += torch.linalg.solve(fisher[kept][:, kept], fisher[kept][:, ~kept] @ part[~kept])
            part[~kept] = 0.0
    return weight


@pytest.mark.parametrize("max_bytes", [2**31, 1])
def test_obert_equals_the_reference(max_bytes):
    model, damping = network(), 1e-4
    expected = [obert_reference(model, name, 0.5, 4, damping) for name in ("0", "2")]
    twin = copy.deepcopy(model)
    arguments = {"loss": cross_entropy, "block_size": 4, "damping": damping, "max_bytes": max_bytes}
    assert prune_obert(model, batches(), 0.5, **arguments) == {"0": 0.5, "2": 0.5}
    for layer, weight in zip((model[0], model[2]), expected, strict=True):
        torch.testing.assert_close(layer.weight, weight, rtol=1e-6, atol=1e-8)
        assert torch.equal(layer.weight != 0, mask_of(layer))
    prune_obert(twin, batches() * 2, 0.5, num_gradients=4, **arguments)
    torch.testing.assert_close(finalize(twin)[0].weight, finalize(model)[0].weight)


def test_obert_correction_lowers_the_loss():
    corrected = network()
    plain = copy.deepcopy(corrected)
    prune_obert(corrected, batches(30), 0.5, loss=cross_entropy, damping=1e-3)
    for layer in (plain[0], plain[2]):
        layer.register_parameter("dense", nn.Parameter(layer.weight.detach().clone()))
    for layer, other in ((plain[0], corrected[0]), (plain[2], corrected[2])):
        layer.weight.data *= mask_of(other)
    losses = [sum(cross_entropy(model, batch) for batch in batches(30)) for model in (corrected, plain)]
    assert losses[0] < losses[1]


@pytest.mark.parametrize(("structure", "sparsity"), [("2:4", None), ("4x1", 0.5), ("1:8", 0.875)])
def test_obert_structures(structure, sparsity):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 8))
    data = [torch.randn(4, 16) for _ in range(5)]
    reached = prune_obert(
        model, data, sparsity, loss=lambda model, batch: model(batch).square().mean(), mask_structure=structure
    )
    assert list(reached.values()) == [sparsity or 0.5] * 2
    assert torch.isfinite(model[0].weight).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_gradients": 5}, "num_gradients must be between 1 and the number of batches, 4, got 5"),
        ({"block_size": 0}, "block_size must be at least 1 and damping above 0, got 0"),
        ({"damping": 0.0}, "got 50 and 0.0"),
        ({"sparsity": 1.0}, "sparsity must be in"),
        ({"mask_structure": "5x1"}, "0: .* cannot be cut into blocks of 5 x 1"),
        ({"batches": []}, "at least one batch"),
    ],
)
def test_obert_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        prune_obert(
            network(), **{"batches": batches(), "sparsity": 0.5, "loss": cross_entropy, "block_size": 50, **arguments}
        )


def learnt(soft: bool) -> tuple[nn.Sequential, object]:
    """A network under movement pruning with scores that differ, half of its weights masked or about so."""
    model = network()
    movement = apply_movement(model, soft=soft)
    for scores in movement.score_parameters():
        scores.data.copy_(torch.randn_like(scores) - (2.0 if soft else 0.0))
    if not soft:
        movement.set_sparsity(0.5)
    return model, movement


@pytest.mark.parametrize("soft", [False, True])
def test_movement_gradients_are_the_formulas(soft):
    model, movement = learnt(soft)
    weight = model[0].parametrizations.weight.original
    scores, score = movement.score_parameters()[0], movement.score_parameters()[0].detach()
    mask = torch.sigmoid(score) > 0.1 if soft else without_lowest(score, 0.5)
    assert 0 < mask.sum() < mask.numel()
    assert torch.equal(model[0].weight, weight * mask)
    plain = network()
    for layer, other in zip((plain[0], plain[2]), (model[0], model[2]), strict=True):
        layer.weight.data.copy_(other.weight)
    cross_entropy(plain, batches()[0]).backward()
    cross_entropy(model, batches()[0]).backward()
    torch.testing.assert_close(scores.grad, plain[0].weight.grad * weight.detach())
    torch.testing.assert_close(weight.grad, plain[0].weight.grad * mask)


def test_the_soft_penalty_is_the_mean_of_the_sigmoids():
    _, movement = learnt(soft=True)
    scores = movement.score_parameters()
    flat = torch.cat([one.detach().flatten() for one in scores]).requires_grad_(True)
    expected = torch.sigmoid(flat).mean()
    expected.backward()
    movement.penalty().backward()
    torch.testing.assert_close(movement.penalty().detach(), expected.detach())
    torch.testing.assert_close(torch.cat([one.grad.flatten() for one in scores]), flat.grad)
    assert movement.sparsity() == pytest.approx((torch.sigmoid(flat) <= 0.1).double().mean().item())


@pytest.mark.parametrize("soft", [False, True])
def test_movement_trains_and_finishes_as_an_ordinary_mask(soft):
    model = network()
    movement = apply_movement(model, soft=soft)
    weights = [p for n, p in model.named_parameters() if "scores" not in n]
    groups = [{"params": movement.score_parameters(), "lr": 1.0}, {"params": weights}]
    optimizer = torch.optim.Adam(groups, lr=0.01)
    for step in range(40):
        if not soft:
            movement.set_sparsity(0.5 * step / 39)
        loss = cross_entropy(model, batches()[step % 4]) + (10.0 * movement.penalty() if soft else 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    wanted, before = movement.sparsity(), model(batches()[0]["input"])
    assert 0.0 < wanted < 1.0
    assert soft or wanted == pytest.approx(0.5, abs=0.02)
    original = model[0].parametrizations.weight.original
    reached = movement.finish()
    assert sum(reached[name] * model.get_submodule(name).weight.numel() for name in reached) / 72 == pytest.approx(
        wanted
    )
    assert type(model[0].parametrizations.weight[0]) is Mask
    assert model[0].parametrizations.weight.original is original
    assert set(finalize(model).state_dict()) == set(network().state_dict())
    assert torch.equal(model(batches()[0]["input"]), before)
    with pytest.raises(ValueError, match="movement pruning is finished"):
        movement.set_sparsity(0.5)


def test_movement_refuses_what_does_not_fit():
    _, hard = learnt(soft=False)
    _, soft = learnt(soft=True)
    with pytest.raises(ValueError, match="hard movement pruning has no penalty"):
        hard.penalty()
    with pytest.raises(ValueError, match="soft movement pruning has no set sparsity"):
        soft.set_sparsity(0.5)
    with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\), got 1.0"):
        hard.set_sparsity(1.0)
    with pytest.raises(ValueError, match="threshold must be in"):
        apply_movement(network(), soft=True, threshold=0.5)
    masked = network()
    prune(masked, 0.5)
    with pytest.raises(ValueError, match="0.weight has a mask or another parametrization"):
        apply_movement(masked)


def test_report_counts_zeros_dead_rows_and_dead_columns():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5), Conv1D(2, 50))
    for layer in model:
        nn.init.ones_(layer.weight)
    model[0].weight.data[1] = 0.0
    model[0].weight.data[:, [0, 3]] = 0.0
    model[2].weight.data[1:, :] = 0.0
    report = pruning_report(model)
    assert [(row.name, row.shape, row.nnz, row.dead_rows, row.dead_columns) for row in report.layers] == [
        ("0", (3, 4), 4, 1, 2),
        ("1", (5, 3), 15, 0, 0),
        ("2", (2, 50), 2, 0, 49),
    ]
    assert report.over_pruned == ("0", "2")
    assert pruning_report(model, limit=0.98).over_pruned == ("0",)
    assert report.sparsity == pytest.approx(1 - 21 / 127)
    assert report.to_dict()["layers"][0]["sparsity"] == pytest.approx(2 / 3)
    assert str(report).splitlines()[3].split() == ["2", "2", "x", "50", "98.0%", "0", "49", "over-pruned"]
    prune(model, 0.5, targets=["1"])
    assert pruning_report(model).to_dict() == pruning_report(finalize(model)).to_dict()
    with pytest.raises(ValueError, match="no torch.nn.Linear"):
        pruning_report(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match=r"limit must be in \[0, 1\], got 97"):
        pruning_report(model, limit=97)


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.AdamW(parameters, lr=0.1, amsgrad=True),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    ],
)
def test_optimizer_state_of_masked_weights_is_dropped(make):
    model = network()
    optimizer = make(model.parameters())
    drop_optimizer_state(optimizer, model)
    cross_entropy(model, batches()[0]).backward()
    optimizer.step()
    prune(model, 0.5, ignore=["2"])
    weight = model[0].parametrizations.weight.original
    before = {key: value.clone() for key, value in optimizer.state[weight].items() if torch.is_tensor(value)}
    untouched = copy.deepcopy(optimizer.state[model[2].weight])
    drop_optimizer_state(optimizer, model)
    mask = mask_of(model[0])
    for key, value in before.items():
        now = optimizer.state[weight][key]
        assert torch.equal(now, value * mask if value.shape == mask.shape else value), key
    assert any(value.shape == mask.shape for value in before.values())
    for key, value in untouched.items():
        assert torch.equal(torch.as_tensor(optimizer.state[model[2].weight][key]), torch.as_tensor(value))
