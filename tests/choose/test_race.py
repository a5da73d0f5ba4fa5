"""Engines that do not run a model, or compute something else, end no search."""

from dataclasses import replace

import torch
import transformers

from sparsekit.bench.models.peers import MODEL_PEERS
from sparsekit.bench.models.problem import HiddenState
from sparsekit.choose import engines
from sparsekit.choose.engines import Race


def test_engines_that_fail_or_answer_wrongly_are_left_out(monkeypatch, capsys):
    monkeypatch.setattr(engines, "_SECONDS", 0.01)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=100, **sizes), add_pooling_layer=False)

    def fail(problem):
        raise RuntimeError("no such operator")

    def wrong(problem):
        expected = problem.model(problem.input_ids, problem.attention_mask).numpy()
        return lambda: expected + 10.0

    for name, prepare in (("openvino", fail), ("onnxruntime", wrong)):
        monkeypatch.setitem(MODEL_PEERS, name, replace(MODEL_PEERS[name], prepare=prepare, modules=()))
    speeds = Race(HiddenState(model), 8, 1, (), ["torch", "openvino", "onnxruntime"]).run({})
    assert list(speeds) == ["torch"]
    assert "left out: openvino does not run this model (RuntimeError: no such operator)" in capsys.readouterr().err
