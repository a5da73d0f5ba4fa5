"""Fidelity of outputs, against numpy in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from sparsekit import fidelity as module
from sparsekit.fidelity import FidelityMeter, fidelity


class Returns(nn.Module):
    """Returns what it was given, and notes how it was run."""

    def __init__(self, *outputs) -> None:
        super().__init__()
        self.outputs = iter(outputs)

    def forward(self, **batch) -> object:
        self.seen = self.training, torch.is_grad_enabled()
        return next(self.outputs)


def expected(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float, float]:
    found, wanted = (array.astype(np.float64).reshape(-1, array.shape[-1]) for array in (found, wanted))
    cosines = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted), cosines.mean(), cosines.min()


@pytest.mark.parametrize("chunk", [1, 7, 2**22])
def test_it_is_what_numpy_says(monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    torch.manual_seed(0)
    found, wanted = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    mine = fidelity(Returns(found), Returns(wanted), [{}])
    assert (mine.error, mine.cosine, mine.least_cosine) == pytest.approx(expected(found.numpy(), wanted.numpy()))
    assert mine.far


def test_padding_does_not_count():
    wanted = torch.randn(2, 3, 5)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    found = wanted + 100.0 * (1 - mask).unsqueeze(-1)
    result = fidelity(Returns({"hidden": found}), Returns({"hidden": wanted}), [{"attention_mask": mask}])
    assert result.error == 0.0
    assert result.least_cosine == pytest.approx(1.0)
    assert not result.far


def test_all_batches_and_all_floats_count():
    ids, loss = torch.arange(4), torch.tensor(2.0)
    good, bad = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    model = Returns(
        {"ids": ids, "loss": loss, "parts": (good, [good])}, {"ids": ids, "loss": loss, "parts": (bad, [good])}
    )
    reference = Returns(*[{"ids": ids + 1, "loss": loss, "parts": (good, [good])}] * 2)
    result = fidelity(model, reference, [{}, {}])
    assert result.cosine == pytest.approx(5 / 6)
    assert result.least_cosine == pytest.approx(0.0)


def test_what_is_masked_with_infinity_is_equal_and_what_is_not_finite_is_far():
    wanted = torch.tensor([[1.0, -float("inf")], [2.0, 3.0]])
    assert fidelity(Returns(wanted.clone()), Returns(wanted), [{}]).cosine == 1.0
    assert fidelity(Returns(torch.full((2, 2), float("nan"))), Returns(wanted), [{}]).far
    assert fidelity(Returns(torch.ones(2, 2)), Returns(wanted), [{}]).far


def test_zeros_are_near_to_zeros_only():
    zeros = torch.zeros(2, 3)
    assert fidelity(Returns(zeros), Returns(zeros), [{}]).cosine == 1.0
    result = fidelity(Returns(torch.ones(2, 3)), Returns(zeros), [{}])
    assert (result.cosine, result.error) == (0.0, float("inf"))


def test_models_are_run_in_evaluation_and_left_as_they_were():
    model, reference = Returns(torch.ones(1, 2)), Returns(torch.ones(1, 2)).eval()
    fidelity(model, reference, [{}])
    assert model.seen == reference.seen == (False, False)
    assert (model.training, reference.training) == (True, False)


def test_outputs_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"the same tensors of floats, got \[\[1, 2\]\] and \[\[1, 3\]\]"):
        FidelityMeter().add(torch.ones(1, 2), torch.ones(1, 3))
    with pytest.raises(ValueError, match="the same tensors of floats"):
        FidelityMeter().add(torch.arange(3), torch.arange(3))
    with pytest.raises(ValueError, match="on batches, got none"):
        FidelityMeter().result()
