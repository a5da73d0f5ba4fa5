"""Layer norms that add the residual they normalize: from numpy, as a torch operator, and in models' own code."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
import transformers
from accelerate.hooks import ModelHook, add_hook_to_module
from tolerances import layer_norm_bound
from torch import nn

from sparsekit import ops, runtime
from sparsekit.fusion.call_parts import SUM
from sparsekit.fusion.norms import AddLayerNorm, fuse_norms, split_norms
from sparsekit.fusion.rewriting import pairs_of


@pytest.fixture(autouse=True)
def kernels_for_any_size(monkeypatch):
    monkeypatch.setattr("sparsekit.fusion.norms._FEW", 0)


@pytest.mark.parametrize("shape", [(1,), (3, 1), (2, 5, 17), (7, 64), (4, 384), (3, 1000), (0, 8), (4, 0)])
@pytest.mark.parametrize("affine", [False, True])
def test_close_to_float64(isa, rng, shape, affine):
    x, added = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    x = x + np.float32(20)
    weight, bias = (rng.standard_normal(shape[-1], dtype=np.float32) if affine else None for _ in range(2))
    found = runtime.add_layer_norm(x, added, weight, bias, 1e-6)
    total = x.astype(np.float64) + added.astype(np.float64)
    apart = total - total.mean(axis=-1, keepdims=True) if total.size else total
    deviation = np.sqrt((apart**2).mean(axis=-1, keepdims=True) + 1e-6) if total.size else 1.0
    expected = apart / deviation
    bound = layer_norm_bound(total, apart, deviation)
    if affine:
        expected, bound = expected * weight + bias, np.abs(weight) * bound + 1e-6 * np.abs(bias)
    assert found.shape == shape
    assert found.dtype == np.float32
    assert np.all(np.abs(found - expected) <= bound)


@pytest.mark.parametrize("poison", [np.inf, -np.inf, np.nan])
def test_numbers_that_are_none_are_as_in_torch(isa, rng, poison):
    x, added = (rng.standard_normal((6, 33), dtype=np.float32) for _ in range(2))
    x[1, 32], added[4, 0] = poison, poison
    expected = F.layer_norm(torch.from_numpy(x + added), [33])
    torch.testing.assert_close(torch.from_numpy(runtime.add_layer_norm(x, added)), expected, equal_nan=True)


def test_arrays_that_do_not_fit_are_refused():
    x = np.ones((2, 3), np.float32)
    with pytest.raises(TypeError, match="added must be a float32 array, got float64"):
        runtime.add_layer_norm(x, x.astype(np.float64))
    with pytest.raises(ValueError, match=r"must have the same shape \[..., features\], got \(2, 3\) and \(3,\)"):
        runtime.add_layer_norm(x, x[0])
    with pytest.raises(ValueError, match=r"bias must have shape \[3\], got \[2\]"):
        runtime.add_layer_norm(x, x, bias=np.ones(2, np.float32))


def operands() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return torch.randn(2, 5, 20), torch.randn(5, 2, 20).transpose(0, 1), torch.randn(20), torch.randn(20)


def test_operator():
    x, added, weight, bias = operands()
    expected = F.layer_norm(x + added, [20], weight, bias, 1e-5)
    torch.testing.assert_close(ops.add_layer_norm(x, added, weight, bias, 1e-5), expected)
    torch.testing.assert_close(ops.add_layer_norm(x, added, None, None, 1e-5), F.layer_norm(x + added, [20]))
    for arguments in ((x, added, weight, bias, 1e-5), (x, added, None, None, 1e-3)):
        torch.library.opcheck(torch.ops.sparsekit.add_layer_norm.default, arguments)


def test_operator_refuses():
    x, added, weight, bias = operands()
    with pytest.raises(TypeError, match=r"added must be float32 on the CPU, got torch\.float64"):
        ops.add_layer_norm(x, added.double(), weight, bias, 1e-5)
    with pytest.raises(ValueError, match=r"weight must have shape \[20\]"):
        ops.add_layer_norm(x, added, weight[:3], bias, 1e-5)
    with pytest.raises(NotImplementedError, match="add_layer_norm has no gradient"):
        ops.add_layer_norm(x.requires_grad_(), added, weight, bias, 1e-5)
    with pytest.raises(NotImplementedError, match=r"train with torch\.nn\.functional\.layer_norm"):
        torch.ops.sparsekit.add_layer_norm(x, added, weight, bias, 1e-5).sum().backward()


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """The arguments of every call of our operator."""
    found: list[tuple] = []
    original = ops.add_layer_norm

    def spy(*arguments):
        found.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(ops, "add_layer_norm", spy)
    return found


class Block(nn.Module):
    """A layer and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.norm, self.drop = nn.Linear(8, 8), nn.LayerNorm(8), nn.Dropout(0.5)


class Nested(Block):
    def forward(self, x):
        return self.norm(self.drop(self.dense(x)) + x)


class InARow(Block):
    def forward(self, x):
        """Two lines."""
        y = self.dense(x)
        y = x + y
        y = self.norm(y)
        return y * 2


class Returned(Block):
    __secret = 3.0

    def forward(self, x, factor=None, *, shift=1.0):
        y = self.dense(x) * (self.__secret if factor is None else factor)
        y = x + (y + shift)
        return self.norm(y)


class InBranch(Block):
    def forward(self, x):
        if x.shape[0] > 1:
            y = x + self.dense(x)
            y = self.norm(y)
        else:
            y = self.norm(x)
        return y


class Child(Nested):
    def forward(self, x):
        return super().forward(x) + self.norm(x + 1.0)


@pytest.mark.parametrize("cls", [Nested, InARow, Returned, InBranch, Child])
@torch.no_grad()
def test_code_that_normalizes_a_sum(cls, calls):
    torch.manual_seed(0)
    block, x = cls().eval(), torch.randn(3, 8)
    expected, keys = block(x), list(block.state_dict())
    fused = copy.deepcopy(block)
    assert fuse_norms(fused) == 1
    torch.testing.assert_close(fused(x), expected)
    assert len(calls) == (0 if cls is Child else 1)  # a number is no tensor, and the inherited method is not its own
    assert isinstance(fused, cls)
    assert (type(fused).__name__, type(fused).__module__) == (cls.__name__, cls.__module__)
    assert list(fused.state_dict()) == keys
    assert fuse_norms(fused) == 0
    for copied in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):  # noqa: S301 - made right here
        assert torch.equal(copied(x), fused(x))
        assert type(copied) is type(fused)
    split_norms(fused)
    assert type(fused) is cls
    assert type(fused.norm) is nn.LayerNorm
    assert torch.equal(fused(x), expected)


class UsedLater(Block):
    def forward(self, x):
        y = x + self.dense(x)
        z = self.norm(y)
        return y + z


class NotInTheNextLine(Block):
    def forward(self, x):
        y = x + self.dense(x)
        x = y * 2
        y = self.norm(y)
        return x + y


class Difference(Block):
    def forward(self, x):
        return self.norm(self.dense(x) - x)


class OtherModule(Block):
    def forward(self, x):
        return self.norm(self.dense(x + x))


@pytest.mark.parametrize("cls", [UsedLater, NotInTheNextLine, Difference, OtherModule])
def test_code_that_does_anything_else_is_left_alone(cls):
    block = cls()
    assert ("norm", SUM) not in pairs_of(block)
    assert fuse_norms(block) == 0
    assert type(block) is cls


def test_norms_that_are_not_plain_are_left_alone():
    for change in (
        lambda block: setattr(block, "norm", nn.RMSNorm(8)),
        lambda block: setattr(block, "norm", nn.LayerNorm((3, 8))),
        lambda block: block.norm.register_forward_hook(lambda *_: None),
        lambda block: setattr(block, "forward", block.forward),
    ):
        block = Nested()
        change(block)
        assert fuse_norms(block) == 0


def decorated(function):
    def double(self, x):
        return 2 * function(self, x)

    return double


class Decorated(Block):
    @decorated
    def forward(self, x):
        return self.norm(self.dense(x) + x)


class NoGradient(Block):
    @torch.no_grad()
    def forward(self, x):
        return self.norm(self.dense(x) + x)


class Checkpointed(transformers.modeling_layers.GradientCheckpointingLayer):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        return self.norm(x + x)


@pytest.mark.parametrize("cls", [NoGradient, Checkpointed])
@torch.no_grad()
def test_what_decorators_and_base_classes_put_around_methods_stays(cls, calls):
    block, x = cls().eval(), torch.randn(3, 8)
    expected, wrapper = block(x), cls.forward.__code__
    assert fuse_norms(block) == 1
    assert type(block).forward.__code__ is wrapper
    assert torch.equal(copy.deepcopy(block)(x), block(x))
    torch.testing.assert_close(block(x), expected)
    assert len(calls) == 3


def test_a_layer_is_checkpointed_once():
    block, x, seen = Checkpointed().train(), torch.randn(3, 8, requires_grad=True), []

    def checkpoint(function, *inputs):
        seen.append(inputs)
        return torch.utils.checkpoint.checkpoint(function, *inputs, use_reentrant=False)

    fuse_norms(block)
    block.gradient_checkpointing, block._gradient_checkpointing_func = True, checkpoint
    block(x).sum().backward()
    assert len(seen) == 1


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda norm, seen: norm.register_forward_hook(lambda _, inputs, output: seen.append((*inputs, output))),
        lambda norm, seen: norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs)),
        lambda norm, seen: add_hook_to_module(norm, Noting(seen)),
    ],
    ids=["hook", "pre-hook", "accelerate"],
)
@torch.no_grad()
def test_whoever_listens_to_a_norm_hears_what_the_model_computes(change, is_late):
    torch.manual_seed(0)
    plain, x, heard = Nested().eval(), torch.randn(3, 8), ([], [])
    fused = copy.deepcopy(plain)
    assert not is_late or fuse_norms(fused) == 1
    for block, seen in zip((plain, fused), heard, strict=True):
        change(block.norm, seen)
    assert is_late or fuse_norms(fused) == 0
    torch.testing.assert_close(fused(x), plain(x))
    torch.testing.assert_close(heard[1], heard[0])
    assert len(heard[0]) == 1


class Noting(ModelHook):
    def __init__(self, seen: list) -> None:
        self.seen = seen

    def pre_forward(self, module, *inputs):
        self.seen.append(inputs)
        return inputs, {}


def test_code_that_cannot_be_compiled_anew_is_left_alone():
    assert fuse_norms(Decorated()) == 0, "the decorator does not say what it wraps"

    outside = 2.0

    class Closure(Block):
        def forward(self, x):
            return self.norm(self.dense(x) + x * outside)

    assert fuse_norms(Closure()) == 0
    space: dict = {"Block": Block}
    exec("class Hidden(Block):\n    def forward(self, x):\n        return self.norm(x + x)", space)  # noqa: S102
    assert fuse_norms(space["Hidden"]()) == 0


def test_what_the_kernel_does_not_compute_is_left_to_torch(calls):
    torch.manual_seed(0)
    block, x = Nested().eval(), torch.randn(3, 8)
    expected = block(x)
    fuse_norms(block)
    block(x).sum().backward()
    assert block.norm.weight.grad is not None
    assert torch.equal(block(x), expected)
    with torch.no_grad():
        block.train()(x)
        assert len(calls) == 1  # dropout is the model's own affair
        assert block.eval().double()(x.double()).dtype is torch.float64
        norm = AddLayerNorm(8)
        torch.testing.assert_close(norm(x, x[:1]), F.layer_norm(x + x[:1], [8]))
        assert torch.equal(norm(x), F.layer_norm(x, [8]))
    assert len(calls) == 1


@torch.no_grad()
def test_a_few_numbers_are_left_to_torch(calls, monkeypatch):
    norm, x = AddLayerNorm(8), torch.randn(4, 8)
    monkeypatch.setattr("sparsekit.fusion.norms._FEW", 33)
    norm(x, x)
    assert calls == []
    norm(x.repeat(2, 1), x.repeat(2, 1))
    assert len(calls) == 1


@torch.no_grad()
def test_the_compiled_module_is_one_graph():
    torch.manual_seed(0)
    block, x = Nested().eval(), torch.randn(3, 8)
    expected = block(x)
    fuse_norms(block)
    torch.testing.assert_close(torch.compile(block, backend="aot_eager", fullgraph=True)(x), expected)
    exported = torch.export.export(block, (x,))
    assert "torch.ops.sparsekit.add_layer_norm" in exported.graph_module.code


def test_errors_point_into_the_file():
    block = Nested()
    fuse_norms(block)
    with pytest.raises(RuntimeError) as error:
        block(torch.ones(3, 5))
    assert any(entry.name == "forward" and entry.path.name == "test_norms.py" for entry in error.traceback)
    lines = [entry.lineno for entry in error.traceback if entry.path.name == "test_norms.py"]
    assert "self.norm(self.drop" in Path(__file__).read_text().splitlines()[lines[-1]]
