"""oBERT and the inverse Fisher matrix, against plain float64 references on small layers."""

import copy

import pytest
import torch
from tiny_networks import batches, cross_entropy, gradients, network, without_lowest
from torch import nn

from sparsekit import finalize
from sparsekit.pruning import (
    prune_obert,
)
from sparsekit.pruning.calibration.inverse_fisher import InverseFisher
from sparsekit.pruning.masks.parametrization import mask_of


def dense_fisher(found: list[torch.Tensor], row: int, columns: slice, damping: float) -> torch.Tensor:
    g = torch.stack([gradient[row, columns] for gradient in found])
    return damping * torch.eye(g.shape[1], dtype=torch.float64) + g.T @ g / len(found)


@pytest.mark.parametrize("damping", [1e-2, 1e-7])
def test_the_inverse_fisher_equals_a_dense_inverse(damping):
    torch.manual_seed(0)
    found = [torch.randn(4, 7, dtype=torch.float64) for _ in range(37)]
    inverse = InverseFisher(torch.zeros(4, 7), len(found), fisher_block_size=3, damping=damping)
    for gradient in found:
        inverse.add(gradient)
    inverse.finish()
    for row in range(4):
        for block, columns in enumerate((slice(0, 3), slice(3, 6), slice(6, 7))):
            expected = torch.linalg.inv(dense_fisher(found, row, columns, damping))
            width = expected.shape[0]
            torch.testing.assert_close(
                inverse.fisher_blocks[row, block, :width, :width], expected, rtol=1e-6, atol=1e-8
            )
            torch.testing.assert_close(inverse.diagonal()[row, columns], expected.diagonal(), rtol=1e-6, atol=1e-8)


def obert_reference(model: nn.Module, layer: str, sparsity: float, width: int, damping: float) -> torch.Tensor:
    """Scores from dense inverses; then the weights that stay minimize the quadratic, with those pruned held at zero."""
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
    arguments = {"loss": cross_entropy, "fisher_block_size": 4, "damping": damping, "max_bytes": max_bytes}
    assert prune_obert(model, 0.5, batches(), **arguments) == {"0": 0.5, "2": 0.5}
    for layer, weight in zip((model[0], model[2]), expected, strict=True):
        torch.testing.assert_close(layer.weight, weight, rtol=1e-6, atol=1e-8)
        assert torch.equal(layer.weight != 0, mask_of(layer))
    prune_obert(twin, 0.5, batches() * 2, num_gradients=4, **arguments)
    torch.testing.assert_close(finalize(twin)[0].weight, finalize(model)[0].weight)


def test_obert_correction_lowers_the_loss():
    corrected = network()
    plain = copy.deepcopy(corrected)
    prune_obert(corrected, 0.5, batches(30), loss=cross_entropy, damping=1e-3)
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
        model, sparsity, data, loss=lambda model, batch: model(batch).square().mean(), mask_structure=structure
    )
    assert list(reached.values()) == [sparsity or 0.5] * 2
    assert torch.isfinite(model[0].weight).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_gradients": 5}, "num_gradients must be between 1 and the number of batches, 4, got 5"),
        ({"fisher_block_size": 0}, "fisher_block_size must be at least 1 and damping above 0, got 0"),
        ({"damping": 0.0}, "got 50 and 0.0"),
        ({"sparsity": 1.0}, "sparsity must be in"),
        ({"mask_structure": "5x1"}, "0: .* cannot be cut into blocks of 5 x 1"),
        ({"batches": []}, "at least one batch"),
    ],
)
def test_obert_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        prune_obert(
            network(),
            **{"batches": batches(), "sparsity": 0.5, "loss": cross_entropy, **arguments},
        )
