"""Criteria that need gradients, against plain float64 references on small layers."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from tiny_networks import batches, cross_entropy, gradients, network, without_lowest
from torch import nn

from sparsekit import prune
from sparsekit.pruning.masks.parametrization import mask_of


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
