"""Layers with hooks stay dense, so that the hooks still run."""

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from torch import nn

from sparsekit import conversion_report, convert
from sparsekit.introspect.hooks import attached, is_plain_call


class Doubles(ModelHook):
    def post_forward(self, module, output):
        return 2 * output


REGISTERS = [name for name in dir(nn.Module) if name.startswith("register_") and name.endswith("_hook")]


@pytest.mark.parametrize("register", REGISTERS)
def test_layers_with_a_hook_of_any_kind_stay_dense(register):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    getattr(model[0], register)(lambda *_: None)
    report = conversion_report(convert(model, min_sparsity=0.0))
    assert [layer.reason for layer in report.layers] == ["it has hooks, which a new module would not run", ""]


def test_layers_with_another_forward_stay_dense():
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), torch.randn(2, 8)
    add_hook_to_module(model[0], Doubles())
    expected = model(x)
    report = conversion_report(convert(model, min_sparsity=0.0))
    assert report.layers[0].reason == "its forward was replaced, which a new module would not run"
    torch.testing.assert_close(model(x), expected)


def test_hooks_of_all_modules_run_for_what_is_fused():
    model, seen = nn.Sequential(nn.Linear(8, 8), nn.GELU()).eval(), []
    convert(model, min_sparsity=0.0)
    with nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module)):
        model(torch.randn(2, 8))
    assert seen == [model[0], model[1].original, model[1], model]


def test_every_kind_of_hook_that_runs_in_a_call_is_asked_for():
    in_a_call = {"forward", "forward_pre", "full_backward", "full_backward_pre"}
    for name in in_a_call:
        module = nn.Linear(2, 2)
        assert is_plain_call(module)
        assert not attached(module)
        handle = getattr(module, f"register_{name}_hook")(lambda *_: None)
        assert not is_plain_call(module)
        assert attached(module) == "it has hooks"
        handle.remove()
        assert is_plain_call(module)
        assert not attached(module)
