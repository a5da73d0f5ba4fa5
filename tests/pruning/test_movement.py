"""Movement pruning: gradients of the scores, the penalty, the masks it leaves."""

import pytest
import torch
from tiny_networks import batches, cross_entropy, network, without_lowest
from torch import nn

from sparsekit import finalize, prune
from sparsekit.pruning import (
    Mask,
    apply_movement,
)


def learned(soft: bool) -> tuple[nn.Sequential, object]:
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
    model, movement = learned(soft)
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
    _, movement = learned(soft=True)
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
    _, hard = learned(soft=False)
    _, soft = learned(soft=True)
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
