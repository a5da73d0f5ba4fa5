"""Distillation losses: values against plain float64 formulas, gradients, errors."""

import pytest
import torch
from torch import nn

from sparsekit.distillation import (
    LOSSES,
    AttentionMaps,
    Embeddings,
    HiddenStates,
    LayerMap,
    SoftTargets,
    SquareHead,
    Teacher,
    TopSoftTargets,
)


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
    assert torch.autograd.gradcheck(lambda s: SquareHead()([s], [target], tokens), (states,))


def test_square_head_ignores_padding_and_scale():
    torch.manual_seed(0)
    teacher = [torch.randn(2, 3, 4), 1000 * torch.randn(2, 3, 4)]
    tokens = torch.tensor([[1, 1, 0], [1, 1, 1]])
    loss = SquareHead()
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
    one = torch.zeros(1, 1, 1)
    for loss in (SquareHead(), HiddenStates(1)):
        with pytest.raises(ValueError, match="as many layers, at least one, got 1 and 2"):
            loss([one], [one] * 2, torch.ones(1, 1))
        with pytest.raises(ValueError, match=r"layer 0 of student and teacher must have the same shape"):
            loss([one], [torch.zeros(1, 1, 2)], torch.ones(1, 1))
    with pytest.raises(ValueError, match="as many layers, at least one, got 0 and 0"):
        SquareHead()([], [], torch.ones(1, 1))
    with pytest.raises(ValueError, match="projections for 1 layers, got 2"):
        HiddenStates(1)([one] * 2, [one] * 2, torch.ones(1, 1))
    with pytest.raises(ValueError, match="widths and layers must be at least 1, got 3, 0 and 1"):
        HiddenStates(3, 0)
    with pytest.raises(ValueError, match="distance must be one of cosine, mse, got 'l1'"):
        Embeddings("l1")
    with pytest.raises(ValueError, match=r"embed alike, got shapes \[2, 3\] and \[2, 4\]"):
        Embeddings()(torch.zeros(2, 3), torch.zeros(2, 4))


def test_hidden_states_equal_the_formula_and_learn_their_projection():
    torch.manual_seed(0)
    student = [torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    teacher = [torch.randn(2, 3, 6, dtype=torch.float64) for _ in range(2)]
    tokens = torch.tensor([[1, 1, 0], [1, 0, 0]])
    loss = HiddenStates(4, 6, layers=2).double()
    found = loss(student, teacher, tokens)
    wanted = 0.0
    for own, other, projection in zip(student, teacher, loss.projections, strict=True):
        error = own @ projection.weight.T - other
        wanted += sum(error[b, t].square().sum() for b, t in ((0, 0), (0, 1), (1, 0))) / (3 * 6) / 2
    torch.testing.assert_close(found, wanted)
    found.backward()
    assert all(projection.weight.grad.abs().sum() > 0 for projection in loss.projections)
    assert student[0].grad[0, 2].abs().sum() == 0, "padding"
    assert list(HiddenStates(4).parameters()) == []
    assert HiddenStates(4)(teacher_of := [torch.randn(1, 2, 4)], teacher_of, torch.ones(1, 2)) == 0


def test_attention_maps_equal_the_formula():
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 3, 5, 5, dtype=torch.float64)
    tokens = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    logits = logits.masked_fill(tokens[:, None, None, :] == 0, float("-inf"))
    student, teacher = softmax(logits[0]), softmax(logits[1])
    wanted = sum(
        teacher[b, h, t, u] * (teacher[b, h, t, u] / student[b, h, t, u]).log()
        for b in range(2)
        for h in range(3)
        for t in range(5)
        for u in range(5)
        if tokens[b, t] and tokens[b, u]
    ) / (6 * 3)
    loss = AttentionMaps()
    torch.testing.assert_close(loss([student], [teacher], tokens), wanted)
    assert loss([student], [student], tokens) == 0
    fewer = loss([student.mean(1, keepdim=True)], [teacher], tokens)
    torch.testing.assert_close(fewer, loss([student.mean(1, keepdim=True)], [teacher.mean(1, keepdim=True)], tokens))
    free = torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    other = torch.randn(1, 1, 3, 3, dtype=torch.float64).softmax(-1)
    assert torch.autograd.gradcheck(lambda s: loss([s.softmax(-1)], [other], torch.ones(1, 3)), (free,))


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_embeddings_equal_the_formula(distance):
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    cosine = (student * teacher).sum(-1) / (student.square().sum(-1) * teacher.square().sum(-1)).sqrt()
    wanted = (1 - cosine).mean() if distance == "cosine" else (student - teacher).square().mean()
    loss = Embeddings(distance)
    torch.testing.assert_close(loss(student, teacher), wanted)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), (student.requires_grad_(),))
    teacher.requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None


def test_similarities_equal_the_formula():
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)

    def cosine(a, b):
        return float(a @ b / (a.norm() * b.norm()))

    divergence = 0.0
    for text in range(4):
        own, other = (
            torch.tensor([cosine(one[text], teacher[i]) / 0.1 for i in range(4)], dtype=torch.float64).exp()
            for one in (student, teacher)
        )
        own, other = own / own.sum(), other / other.sum()
        divergence += float((other * (other / own).log()).sum()) / 4
    loss = Embeddings("cosine", similarity_weight=2.0, temperature=0.1)
    wanted = float(Embeddings("cosine")(student, teacher)) + 2.0 * divergence
    assert float(loss(student, teacher)) == pytest.approx(wanted, rel=1e-9)
    assert float(loss(3 * teacher, teacher)) == pytest.approx(0.0, abs=1e-12)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), (student.requires_grad_(),))
    for wrong in ({"similarity_weight": -1.0}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="must not be negative and temperature must be above 0"):
            Embeddings(**wrong)


def test_layer_maps():
    assert LayerMap.even(6, 6).pairs == tuple((i, i) for i in range(6))
    assert LayerMap.even(4, 6).pairs == ((0, 0), (1, 2), (2, 3), (3, 5))
    assert LayerMap.even(1, 12).pairs == ((0, 11),)
    assert LayerMap([(1, 3), (0, 0)])("ab", "wxyz") == (["a", "b"], ["w", "z"])
    with pytest.raises(ValueError, match="a student of 7 layers cannot follow a teacher of 6"):
        LayerMap.even(7, 6)
    for pairs in ([], [(0, 1), (0, 2)], [(-1, 2)]):
        with pytest.raises(ValueError, match="each layer of the student once"):
            LayerMap(pairs)
    with pytest.raises(ValueError, match="names layer 3 of the teacher, which has 3"):
        LayerMap([(0, 3)])("ab", "xyz")
    with pytest.raises(ValueError, match="names layer 2 of the student, which has 2"):
        LayerMap([(2, 0)])("ab", "xyz")


def test_a_teacher_only_answers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    student = nn.Module()
    student.teacher = Teacher(model)
    student.train()
    assert not any(module.training for module in student.teacher.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    x = torch.randn(3, 4)
    answer = student.teacher(x)
    assert torch.equal(answer, student.teacher(x)), "no dropout"
    assert not answer.requires_grad
    with pytest.raises(ValueError, match="must not come from a student"):
        student.teacher(nn.Linear(4, 4)(x))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_top_soft_targets_with_all_classes_are_soft_targets(temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    labels = torch.randint(0, 5, (6,))
    top = teacher.topk(5)
    found = TopSoftTargets(temperature, 0.3)(student, top.values, top.indices.int(), labels)
    torch.testing.assert_close(found, SoftTargets(temperature, 0.3)(student, teacher, labels))


def test_top_soft_targets_of_texts_leave_out_what_has_no_label():
    torch.manual_seed(0)
    student = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    top = torch.randn(2, 3, 7, dtype=torch.float64).topk(2)
    labels = torch.tensor([[1, 2, -100], [0, -100, -100]])
    loss = TopSoftTargets(1.0, 0.5)
    rows = [(0, 0), (0, 1), (1, 0)]
    wanted = 0.0
    for b, t in rows:
        p, q = softmax(top.values[b, t]), softmax(student[b, t])
        soft = sum(p[k] * (p[k] / q[top.indices[b, t, k]]).log() for k in range(2))
        wanted += (0.5 * soft - 0.5 * q[labels[b, t]].log()) / len(rows)
    torch.testing.assert_close(loss(student, top.values, top.indices, labels), wanted)
    assert torch.autograd.gradcheck(lambda s: loss(s, top.values, top.indices, labels), (student,))
    with pytest.raises(ValueError, match="the teacher has a class 7, the student only 7 classes"):
        loss(student, top.values, torch.full_like(top.indices, 7), labels)
    with pytest.raises(ValueError, match="must have the student's shape but for the last dimension"):
        loss(student, top.values[:1], top.indices[:1], labels)


def test_the_registry_names_every_loss():
    assert set(LOSSES.values()) == {SoftTargets, TopSoftTargets, SquareHead, HiddenStates, AttentionMaps, Embeddings}
