"""Models as ONNX: they run elsewhere with any number of texts and tokens, and their weights come back."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sparsekit import conversion_report, convert, densify, prune
from sparsekit.importers import import_onnx, read_weights

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
transformers = pytest.importorskip("transformers")

from sparsekit.exporters import export_onnx  # noqa: E402
from sparsekit.exporters import onnx as exporters  # noqa: E402

SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


def texts(batch: int, tokens: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    mask = torch.ones(batch, tokens, dtype=torch.long)
    mask[-1, 1 + tokens // 2 :] = 0
    return {"input_ids": torch.randint(0, 30, (batch, tokens), generator=generator), "attention_mask": mask}


def run(path, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    outputs = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return dict(zip((output.name for output in session.get_outputs()), outputs, strict=True))


def same_weights(found: dict[str, torch.Tensor], model: nn.Module) -> None:
    expected = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_converted_bert_runs_elsewhere_and_comes_back(tmp_path):
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**SIZES)).eval()  # biases are zero, norms equal
    prune(model, 0.8)
    assert conversion_report(convert(model, min_sparsity=0.5)).converted == 7
    before = {name: type(module) for name, module in model.named_modules()}
    path = export_onnx(model, tmp_path / "bert", texts(2, 7))
    assert path == tmp_path / "bert" / "model.onnx"
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]
    assert {name: type(module) for name, module in model.named_modules()} == before
    for batch, tokens in ((1, 1), (5, 17), (2, 7)):
        found = run(path, texts(batch, tokens))
        with torch.inference_mode():
            expected = model(**texts(batch, tokens))
        assert list(found) == ["last_hidden_state", "pooler_output"]
        for name, output in found.items():
            torch.testing.assert_close(torch.from_numpy(output), expected[name], rtol=1e-4, atol=1e-5)
    same_weights(read_weights(path), densify(copy.deepcopy(model)))


def test_a_model_that_generates(tmp_path):
    config = transformers.LlamaConfig(**SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = transformers.LlamaForCausalLM(config).eval()
    prune(model, 0.5, ignore=["lm_head"])
    path = export_onnx(model, tmp_path / "llama.onnx", texts(2, 5))
    with torch.inference_mode():
        expected = model(**texts(3, 8)).logits
    found = run(path, texts(3, 8))
    assert list(found) == ["logits"]
    torch.testing.assert_close(torch.from_numpy(found["logits"]), expected, rtol=1e-4, atol=1e-5)
    weights = import_onnx(path)
    assert (weights["model.layers.0.mlp.up_proj.weight"] == 0).float().mean() == 0.5
    assert model.config.use_cache


def test_large_weights_lie_beside_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(exporters, "_MOST_INSIDE", 0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    path = export_onnx(model, tmp_path / "m.onnx", {"input": torch.randn(3, 64)})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    x = torch.randn(1, 64)
    torch.testing.assert_close(torch.from_numpy(run(path, {"input": x})["output"]), model(x).detach())
    same_weights(import_onnx(path), model)


class OnlyThree(nn.Module):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input.reshape(3, 4)


def test_what_cannot_be_exported(tmp_path):
    linear = nn.Linear(4, 4)
    for model, inputs, error, message in (
        (linear, {"input": torch.randn(1, 4)}, ValueError, r"'input' must have at least 2 in dimension 0 \(batch\)"),
        (linear, {"input": torch.randn(2, 1, 4)}, ValueError, r"at least 2 in dimension 1 \(tokens\), got shape"),
        (linear, {}, TypeError, "example_inputs must be tensors by the names"),
        (linear, {"input": 3}, TypeError, r"got \['int'\]"),
        (OnlyThree(), {"input": torch.randn(3, 4)}, ValueError, "for any number of texts.*static shape of 3"),
    ):
        with pytest.raises(error, match=f"(?s){message}"):
            export_onnx(model, tmp_path / "x.onnx", inputs)
    assert list(tmp_path.iterdir()) == []
