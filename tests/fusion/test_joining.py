"""Sparse layers that model code calls in sequence with the same input are joined, and no others."""

import copy
import gc
import linecache
import pickle
import threading
import weakref

import pytest
import torch
from torch import nn

import sparsekit
from sparsekit import SparseLinear, convert, runtime
from sparsekit.fusion.joining import _of_thread, join_layers, joined_with, separate_layers
from sparsekit.introspect.shared_inputs import shared_inputs


class Layers(nn.Module):
    """Three layers and a function."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = nn.Linear(40, 24), nn.Linear(40, 8, bias=False), nn.Linear(40, 24)
        self.act = nn.SiLU()

    def sparse(self, dtype: str = "float32"):
        with torch.no_grad():
            for layer in self.children():
                if isinstance(layer, nn.Linear):
                    layer.weight.mul_(torch.rand_like(layer.weight) > 0.7)
        convert(self, min_sparsity=0.0, dtype=dtype)
        return self


class Attention(Layers):
    def forward(self, x):
        q = self.q(x).view(*x.shape[:-1], 2, 12)
        k = self.k(x)
        v = self.v(x).view(*x.shape[:-1], 2, 12)
        return q, k, v


class Gated(Layers):
    def forward(self, x):
        return self.k(x), self.act(self.q(x)) * self.v(x)


class Other(Layers):
    def forward(self, x, y):
        return self.q(x), self.k(y), self.v(y)


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Number of layers in every joined call."""
    found: list[int] = []
    original = runtime.joined_linear_at

    def spy(*arguments):
        found.append(len(arguments[-1]))
        return original(*arguments)

    monkeypatch.setattr(runtime, "joined_linear_at", spy)
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("shape", [(40,), (1, 40), (3, 17, 40), (0, 40)])
def test_outputs_are_the_same_bits(calls, dtype, mode, shape):
    model, x = Attention().sparse(dtype), torch.randn(shape)
    with mode():
        expected = model(x)
        assert join_layers(model) == 1
        found = model(x)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert calls == ([3] if x.numel() else [])
    assert _of_thread.computed is None or not _of_thread.computed.outputs


@torch.no_grad()
def test_gates_keep_their_activation_function(calls):
    model, x = Gated().sparse(), torch.randn(5, 40)
    assert model.q.activation == "silu"
    expected = model(x)
    assert join_layers(model) == 1
    assert all(torch.equal(one, other) for one, other in zip(model(x), expected, strict=True))
    assert calls == [3]


@torch.no_grad()
def test_layers_hold_values_alike_or_are_left_alone():
    model = Attention().sparse()
    model.k = SparseLinear.from_csr(model.k.to_csr(), dtype="bfloat16")
    assert join_layers(model) == 1
    assert [len(joined_with(layer)) for layer in (model.q, model.k, model.v)] == [2, 0, 2]
    assert join_layers(model) == 0


@torch.no_grad()
def test_another_tensor_or_a_changed_one_is_computed_anew(calls):
    model, x = Attention().sparse(), torch.randn(4, 40)
    plain = copy.deepcopy(model)
    join_layers(model)
    model.q(x)
    assert torch.equal(model.k(x.clone()), plain.k(x))
    x.add_(1.0)
    assert torch.equal(model.v(x), plain.v(x))
    assert torch.equal(model.v(x), plain.v(x))
    assert calls == [3]


@torch.no_grad()
def test_nothing_is_kept_longer_than_the_input():
    model, x = Attention().sparse(), torch.randn(4, 40)
    join_layers(model)
    model.q(x)
    outputs = [weakref.ref(one) for one in _of_thread.computed.outputs.values()]
    assert len(outputs) == 2
    del x
    gc.collect()
    assert [one() for one in outputs] == [None, None]


@torch.no_grad()
def test_threads_do_not_see_each_other():
    model = Attention().sparse()
    plain = copy.deepcopy(model)
    join_layers(model)
    wrong = []

    def run(seed: int) -> None:
        with torch.no_grad():
            x = torch.randn(9, 40, generator=torch.Generator().manual_seed(seed))
            for _ in range(50):
                pairs = zip(model(x), plain(x), strict=True)
                wrong.extend(seed for one, other in pairs if not torch.equal(one, other))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_gradients_other_types_and_wrong_inputs_are_left_to_the_layers(calls):
    model, x = Attention().sparse(), torch.randn(4, 40, requires_grad=True)
    join_layers(model)
    sum(one.sum() for one in model(x)).backward()
    assert x.grad is not None
    assert model.q.bias.grad is not None
    with torch.no_grad():
        assert model(x.half())[0].dtype is torch.float16
        assert model(x.detach().t().contiguous().t())[0].shape == (4, 2, 12)
        with pytest.raises(ValueError, match="expected 40 features in"):
            model(torch.randn(4, 39))
        assert calls == []
        model(x.detach())
    assert calls == [3]


@torch.no_grad()
def test_compiled_exported_and_vmapped(calls):
    model, x = Attention().sparse(), torch.randn(4, 40)
    expected = model(x)
    join_layers(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)
    assert "torch.ops.sparsekit.linear" in torch.export.export(model, (x,)).graph_module.code
    assert calls == []


@torch.no_grad()
def test_state_dicts_copies_and_the_way_back(calls):
    model, x = Attention().sparse("int8"), torch.randn(4, 40)
    keys, expected = list(model.state_dict()), model(x)
    join_layers(model)
    assert list(model.state_dict()) == keys
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - made right here
        assert joined_with(copied.q) == (copied.q, copied.k, copied.v)
        assert all(torch.equal(one, other) for one, other in zip(copied(x), expected, strict=True))
    fresh = Attention()
    sparsekit.load_state_dict(fresh, model.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(fresh(x), expected, strict=True))
    assert calls == [3, 3]
    separate_layers(model)
    assert not any(joined_with(layer) for layer in model.modules())
    sparsekit.densify(join_layers(model) and model)
    assert type(model.q) is nn.Linear


def runs(line: str) -> tuple:
    """What is found when the line stands between the calls."""
    name = f"<between {line}>"
    source = f"class Made(Layers):\n    def forward(self, x, y=None):\n        q = self.q(x)\n        {line}\n"
    source += "        v = self.v(x)\n        return q, v\n"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    space: dict = {"Layers": Layers, "__name__": __name__}
    exec(compile(source, name, "exec"), space)  # noqa: S102
    return shared_inputs(space["Made"], frozenset("qkv"))


@pytest.mark.parametrize(
    "line",
    [
        *("pass", "y = x.shape", "k = self.k(x).relu()", "y = self.act(y)", "k = self.act(self.k(x).view(-1))"),
        *("y = (*x.shape, 2); k = self.k(x).view(y)", "print(x.size(0), x.dtype)"),
        *("y = torch.relu(x)", "y = F.gelu(x.t())"),
    ],
)
def test_lines_between_that_leave_the_input_alone(line):
    found = runs(line)
    assert len(found) == 1
    assert found[0][0] == "q"
    assert found[0][-1] == "v"


@pytest.mark.parametrize(
    "line",
    [
        "x = x + 1",
        "x += 1",
        "y = x[0]",
        "y.add_(1)",
        "y[0] = 1",
        "y *= 2",
        "torch.add(y, y, out=y)",
        "y = print(x)",
        "if y: return q",
        "y = y or self.k(x)",
        "for x in y: pass",
        "return q",
        "self.act(x.view(-1))",
        "y = x.view(-1); self.act(y)",
        "y, z = x.t().chunk(2); self.act(z)",
        "(y := x[0]); self.act(y)",
        "self.kept = x.t(); self.act(self.kept)",
        "y = self.act(x); self.act(y)",
        *("F.relu(x.view(-1), inplace=True)", "F.relu(x, True)", "torch.relu_(x.view(-1))", "torch.relu(x, **y)"),
        "torch.utils.checkpoint.checkpoint(y, x)",
        "print(other=x.view(-1))",
    ],
)
def test_lines_between_that_may_not(line):
    assert not any({"q", "v"} <= set(run) for run in runs(line))


def test_inputs_that_differ_are_not_shared():
    assert shared_inputs(Other, frozenset("qkv")) == (("k", "v"),)


class WritesToAView(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        q = self.q(x)
        self.act(x.view(-1))
        return q, self.v(x)


class WritesFirst(Layers):
    def forward(self, x):
        return self.q(x), self.k(x), self.v(x)


@pytest.mark.parametrize("cls", [WritesToAView, WritesFirst])
@torch.inference_mode()
def test_an_input_that_is_written_to_through_a_view_is_read_anew(cls, calls):
    model, x = cls().sparse(), torch.randn(4, 40)
    plain, heard = copy.deepcopy(model), []
    for one in (model, plain):
        if cls is WritesFirst:
            one.k.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0].view(-1).relu_()))
    assert join_layers(model) == 0
    found, expected = model(x.clone()), plain(x.clone())
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert calls == []


@torch.no_grad()
def test_what_stands_between_must_be_a_linear_layer():
    class Acts(Layers):
        def forward(self, x):
            return self.q(x), self.act(x), self.k(x), self.v(x)

    model = Acts().sparse()
    assert join_layers(model) == 1
    assert joined_with(model.q) == ()
    assert joined_with(model.k) == (model.k, model.v)
