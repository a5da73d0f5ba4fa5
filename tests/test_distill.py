"""Distillation losses: values against plain float64 formulas, gradients, errors."""

import pytest
import torch

from sparsekit.distill import LOSSES, HiddenStates, SoftTargets


def softmax(logits: torch.Tensor) -> torch.Tensor:
    powers = torch.exp(logits - logits.max(dim=-1, keepdim=True).values)
    return powers / powers.sum(dim=-1, keepdim=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_soft_targets_equal_the_formula(temperature, alpha):
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    labels = torch.randint(0, 5, (6,))
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    soft = (p * (p / q).log()).sum(-1).mean() * temperature**2
    hard = -softmax(student)[torch.arange(6), labels].log().mean()
    loss = SoftTargets(temperature, alpha)(student, teacher, labels)
    torch.testing.assert_close(loss, alpha * hard + (1 - alpha) * soft)


def test_gradients_and_a_teacher_without():
    torch.manual_seed(0)
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2])
    loss = SoftTargets(2.0, 0.5)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, labels), (student,))
    loss(student, teacher, labels).backward()
    assert teacher.grad is None
    states = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 3, 4, dtype=torch.float64)
    tokens = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert torch.autograd.gradcheck(lambda s: HiddenStates()([s], [target], tokens), (states,))


def test_hidden_states_ignore_padding_and_scale():
    torch.manual_seed(0)
    teacher = [torch.randn(2, 3, 4), 1000 * torch.randn(2, 3, 4)]
    tokens = torch.tensor([[1, 1, 0], [1, 1, 1]])
    loss = HiddenStates()
    assert loss(teacher, teacher, tokens) == 0
    torch.testing.assert_close(loss([torch.zeros(2, 3, 4)] * 2, teacher, tokens), torch.tensor(2.0))
    changed = [state.clone() for state in teacher]
    changed[0][0, 2] += 100.0  # padding
    assert loss(changed, teacher, tokens) == 0
    halved = loss([state * 0.5 for state in teacher], [state.half() for state in teacher], tokens)
    torch.testing.assert_close(halved, torch.tensor(0.5), rtol=1e-2, atol=1e-2)


def test_errors():
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        SoftTargets(temperature=0)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], got 1.5"):
        SoftTargets(alpha=1.5)
    with pytest.raises(ValueError, match=r"same shape, got \[2, 3\] and \[2, 4\]"):
        SoftTargets()(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="as many layers, got 1 and 2"):
        HiddenStates()([torch.zeros(1, 1, 1)], [torch.zeros(1, 1, 1)] * 2, torch.ones(1, 1))


def test_the_registry_names_every_loss():
    assert set(LOSSES.values()) == {SoftTargets, HiddenStates}
