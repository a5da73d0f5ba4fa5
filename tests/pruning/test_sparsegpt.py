"""Second-order pruning: one weight against a straightforward float64 reference, and a whole model."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sparsekit import finalize, prune
from sparsekit.pruning import prune_sparsegpt, prune_weight
from sparsekit.pruning.sparsegpt.samples import samples_of
from sparsekit.pruning.sparsegpt.solver import damped, match_targets


def problem(rows: int = 12, features: int = 20, samples: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    mixing = torch.randn(features, features)
    x = torch.randn(samples, features) @ mixing
    return torch.randn(rows, features), x


def reference(weight: torch.Tensor, hessian: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Optimal brain surgeon column by column, inverting the remaining Hessian anew at every step, in float64."""
    weight, hessian = weight.double().clone(), damped(hessian.double(), 0.01)
    features = weight.shape[1]
    saliency = torch.empty_like(weight)
    for j in range(features):
        saliency[:, j] = weight[:, j].square() / torch.linalg.inv(hessian[j:, j:])[0, 0]
    mask = saliency.flatten() > saliency.flatten().kthvalue(round(sparsity * weight.numel())).values
    mask = mask.reshape(weight.shape)
    for j in range(features):
        inverse = torch.linalg.inv(hessian[j:, j:])
        error = torch.where(mask[:, j], 0.0, weight[:, j]) / inverse[0, 0]
        weight[:, j:] -= error[:, None] * inverse[0]
    return weight * mask


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8])
def test_prune_weight_equals_the_reference(sparsity):
    weight, x = problem()
    hessian = x.T @ x
    pruned, mask = prune_weight(weight, hessian, sparsity)
    torch.testing.assert_close(pruned, reference(weight, hessian, sparsity).float(), rtol=1e-3, atol=1e-3)
    assert torch.equal(pruned != 0, mask)
    assert 1 - mask.float().mean() == pytest.approx(sparsity, abs=0.01)


def test_prune_weight_in_narrow_blocks_equals_one_block_for_a_given_mask():
    """Which columns are corrected when must not matter: a structure that fixes the mask fixes the result."""
    weight, x = problem(8, 24)
    weight[:, 1::2] *= 1e-3  # so that 1:2 always drops the odd columns
    hessian = torch.diag((x.T @ x).diagonal()) + 0.01 * x.T @ x
    results = [prune_weight(weight, hessian, 0.5, mask_structure="1:2", column_block=width)[0] for width in (4, 8, 24)]
    torch.testing.assert_close(results[0], results[2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(results[1], results[2], rtol=1e-4, atol=1e-4)


def test_correction_beats_magnitude():
    torch.manual_seed(0)
    weight = torch.randn(30, 40)
    x = torch.randn(300, 10) @ torch.randn(10, 40) + 0.1 * torch.randn(300, 40)  # inputs that can stand in for others
    pruned, _ = prune_weight(weight, x.T @ x, 0.7)
    layer = nn.Linear(40, 30, bias=False)
    layer.weight.data.copy_(weight)
    prune(nn.Sequential(layer), 0.7)
    error = (x @ (pruned - weight).T).square().sum()
    assert error < 0.8 * (x @ (layer.weight - weight).T).square().sum()


def test_match_targets_is_the_least_squares_solution():
    weight, x0 = problem(6, 10)
    x = x0 + 0.3 * torch.randn_like(x0)
    matched = match_targets(weight, x.T @ x, x0.T @ x, damping=1e-6)
    wanted = torch.linalg.lstsq(x, x0 @ weight.T).solution.T
    torch.testing.assert_close(matched, wanted, rtol=1e-2, atol=1e-2)


def test_constant_and_dead_inputs_are_no_trouble():
    weight, x = problem()
    x[:, 3] = 0.0
    x[:, 5] = 1.0
    pruned, mask = prune_weight(weight, x.T @ x, 0.5)
    assert torch.isfinite(pruned).all()
    zero, _ = prune_weight(weight, torch.zeros(20, 20), 0.5)
    assert torch.isfinite(zero).all()
    assert mask.any()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, hidden: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return hidden + scale * self.down(torch.tanh(self.left(hidden)) * torch.sigmoid(self.right(hidden)))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(16, 4)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        hidden = self.embedding(input_ids)
        for block in self.blocks:
            hidden = block(hidden, scale=0.5)
        return self.head(hidden)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


def batches(count: int = 4) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    return [
        {"input_ids": torch.randint(0, 50, (8, 12)), "attention_mask": torch.ones(8, 12, dtype=torch.int64)}
        for _ in range(count)
    ]


def test_sparsegpt_prunes_every_layer_and_beats_magnitude(model):
    dense, plain = copy.deepcopy(model), copy.deepcopy(model)
    done: list[str] = []
    model.train()
    report = prune_sparsegpt(model, 0.6, batches(), ignore=["head"], on_layer=done.append)
    assert model.training
    assert list(report) == done
    assert len(done) == 9
    assert all(sparsity == pytest.approx(0.6, abs=0.02) for sparsity in report.values())
    prune(plain, 0.6, ignore=["head"])
    fresh = batches(6)[-1]
    with torch.no_grad():
        wanted = dense(**fresh)
        assert (model(**fresh) - wanted).square().mean() < (plain(**fresh) - wanted).square().mean()
    finalize(model)
    assert (model.blocks[0].left.weight == 0).float().mean() == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize(("structure", "sparsity"), [("2:4", 0.5), ("1:8", 0.875), ("4x1", 0.5)])
def test_structures(model, structure, sparsity):
    prune_sparsegpt(model, sparsity, batches(), ignore=["head"], mask_structure=structure)
    weight = finalize(model).blocks[1].down.weight
    assert (weight == 0).float().mean() == pytest.approx(sparsity, abs=0.01)


def test_a_group_that_does_not_divide_the_column_block():
    weight, x = problem(6, 384 // 2)
    _, mask = prune_weight(weight, x.T @ x, 2 / 3, mask_structure="1:3")
    assert torch.all(mask.reshape(-1, 3).sum(1) == 1)


class CachingBlock(Block):
    """Like a decoder's block: what it keeps from earlier calls would spoil later ones."""

    def forward(self, hidden: torch.Tensor, scale: float = 1.0, cache: list | None = None) -> torch.Tensor:
        if cache is not None:
            cache.append(hidden)
            hidden = torch.stack(cache).mean(0)
        return super().forward(hidden, scale)


class CachingModel(Model):
    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(use_cache=True)
        self.blocks = nn.ModuleList(CachingBlock() for _ in range(3))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        hidden = self.embedding(input_ids)
        for number, block in enumerate(self.blocks):
            hidden = block(hidden, scale=0.1 * (number + 1), cache=[] if self.config.use_cache else None)
        return self.head(hidden)


def test_every_block_gets_its_own_arguments_and_no_cache():
    torch.manual_seed(0)
    model = CachingModel()
    plain = copy.deepcopy(model)
    plain.config.use_cache = False
    prune_sparsegpt(model, 0.5, batches(), ignore=["head"])
    prune_sparsegpt(plain, 0.5, batches(), ignore=["head"])
    assert model.config.use_cache
    for mine, other in zip(model.blocks, plain.blocks, strict=True):
        assert torch.equal(mine.down.weight, other.down.weight)
    samples = samples_of(model, list(model.blocks), batches(1))
    assert [kwargs["scale"] for _, kwargs in samples[0].arguments] == pytest.approx([0.1, 0.2, 0.3])


def test_padding_does_not_count(model):
    twin = copy.deepcopy(model)
    clean, padded = batches(), batches()
    for batch in padded:
        batch["input_ids"] = torch.cat([batch["input_ids"], torch.zeros(8, 5, dtype=torch.int64)], 1)
        batch["attention_mask"] = torch.cat([batch["attention_mask"], torch.zeros(8, 5, dtype=torch.int64)], 1)
    prune_sparsegpt(model, 0.5, clean, ignore=["head"])
    prune_sparsegpt(twin, 0.5, padded, ignore=["head"])
    torch.testing.assert_close(model.blocks[2].down.weight, twin.blocks[2].down.weight, rtol=1e-3, atol=1e-4)


def test_a_layer_that_never_runs_is_named(model):
    model.blocks[1].spare = nn.Linear(16, 16)
    with pytest.raises(ValueError, match="spare did not run on the calibration batches"):
        prune_sparsegpt(model, 0.5, batches(1), ignore=["head"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": []}, "at least one batch"),
        ({"sparsity": 1.5}, "sparsity must be in"),
        ({"ignore": []}, "head lie outside the model's transformer blocks blocks.0, ..."),
        ({"targets": ["head"], "ignore": []}, "no nn.ModuleList"),
        ({"mask_structure": "7x1"}, "blocks.0.left: .* cannot be cut"),
        ({"mask_structure": "2:4", "sparsity": 0.9}, "means sparsity 0.5, got 0.9"),
    ],
)
def test_bad_arguments(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        prune_sparsegpt(model, **{"batches": batches(1), "sparsity": 0.5, "ignore": ["head"], **arguments})
