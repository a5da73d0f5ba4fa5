"""Pruning warns if it moved outputs far from the dense model's."""

import copy
import warnings
from typing import NamedTuple

import pytest
import torch
from torch import nn

from sparsekit import prune
from sparsekit.fidelity import fidelity
from sparsekit.pruning import prune_obert, prune_sparsegpt


class Output(NamedTuple):
    loss: torch.Tensor
    hidden: torch.Tensor


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(16, 16, bias=False)) for _ in range(3)])

    def forward(self, hidden: torch.Tensor) -> Output:
        for block in self.blocks:
            hidden = block(hidden)
        return Output(hidden.square().mean(), hidden)


@pytest.fixture
def batches() -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    return [{"hidden": torch.randn(9, 16)} for _ in range(2)]


@pytest.mark.parametrize(
    "pruned_by",
    [
        lambda model, batches, sparsity: prune(model, sparsity, criterion="wanda", batches=batches),
        lambda model, batches, sparsity: prune_sparsegpt(model, sparsity, batches),
        lambda model, batches, sparsity: prune_obert(model, sparsity, batches, fisher_block_size=4),
    ],
)
def test_outputs_that_moved_far_are_said(batches, pruned_by):
    model = Blocks()
    dense = copy.deepcopy(model)
    with pytest.warns(
        UserWarning, match=r"moved far from the dense model's on the first batch \(cosine 0\.\d+"
    ) as seen:
        pruned_by(model, batches, 0.95)
    first = [{"hidden": batches[0]["hidden"][:4]}]
    assert seen[0].filename == __file__
    assert str(fidelity(model, dense, first)) in str(seen[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruned_by(Blocks(), batches, 0.05)


def test_without_batches_of_its_own_kind_nothing_is_run():
    model = Blocks()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(model, 0.9)
        wrong = [{"unknown": torch.randn(4, 16)}]
        prune(model, 0.9, criterion="taylor", batches=wrong, loss=lambda model, batch: model(batch["unknown"]).loss)
    with pytest.raises(TypeError, match="unexpected keyword argument 'unknown'"):
        prune(model, 0.9, criterion="wanda", batches=wrong)
