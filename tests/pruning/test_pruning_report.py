"""The report on zeros, and optimizers that forget pruned weights."""

import copy

import pytest
import torch
from tiny_networks import batches, cross_entropy, network
from torch import nn
from transformers.pytorch_utils import Conv1D

from sparsekit import finalize, prune
from sparsekit.pruning import (
    drop_optimizer_state,
    pruning_report,
)
from sparsekit.pruning.masks.parametrization import mask_of


def test_report_counts_zeros_empty_rows_and_empty_columns():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5), Conv1D(2, 50))
    for layer in model:
        nn.init.ones_(layer.weight)
    model[0].weight.data[1] = 0.0
    model[0].weight.data[:, [0, 3]] = 0.0
    model[2].weight.data[1:, :] = 0.0
    report = pruning_report(model)
    assert [(row.name, row.shape, row.nnz, row.empty_rows, row.empty_columns) for row in report.layers] == [
        ("0", (3, 4), 4, 1, 2),
        ("1", (5, 3), 15, 0, 0),
        ("2", (2, 50), 2, 0, 49),
    ]
    assert report.too_sparse == ("0", "2")
    assert pruning_report(model, limit=0.98).too_sparse == ("0",)
    assert report.sparsity == pytest.approx(1 - 21 / 127)
    assert report.to_dict()["layers"][0]["sparsity"] == pytest.approx(2 / 3)
    assert str(report).splitlines()[3].split() == ["2", "2", "x", "50", "98.0%", "0", "49", "too", "sparse"]
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
