"""Wrong or malicious configurations: none runs code that it names, or allocates more memory than the arrays."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from sparsekit import load, save
from sparsekit.io.untrusted import LARGEST_JSON


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "config.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.fixture
def bert(tmp_path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    save(transformers.BertModel(transformers.BertConfig(vocab_size=20, **sizes)), tmp_path / "bert")
    return tmp_path / "bert"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(model_type="os"), "model_type must be one that transformers knows, got 'os'"),
        (lambda c: c.update(model_type=["bert"]), "model_type must be"),
        (lambda c: c.pop("model_type"), "model_type must be"),
        (lambda c: c.update(architectures=["system"]), "auto classes have no 'system'"),
        (lambda c: c.update(architectures=["PreTrainedModel"]), "auto classes have no 'PreTrainedModel'"),
        (lambda c: c.update(architectures=["LlamaForCausalLM"]), "auto classes have no 'LlamaForCausalLM'"),
        (lambda c: c.update(architectures="BertModel"), "architectures must hold"),
        (lambda c: c.update(architectures=[]), "architectures must hold"),
        (lambda c: c.update(num_hidden_layers=10**9), "num_hidden_layers must be at most 1000, got 1000000000"),
        (lambda c: c.update(num_labels=10**12), "num_labels must be at most 1000"),
        (lambda c: c.update(depths=[1, 10**7]), "depths must be at most 1000, got 10000000"),
        (lambda c: c.update(num_hidden_layers=2), "encoder.layer.1.*missing"),
        (lambda c: c.update(hidden_size=10**9), r"config.json describes no model|must be"),
        (lambda c: c.update(vocab_size=10**12), "word_embeddings.weight must be"),
        (lambda c: c.update(max_position_embeddings=10**12), "must be|buffers"),
        (lambda c: c.update(dtype="load"), "describes no model"),
        (lambda c: c.update(hidden_act="__import__"), "describes no model"),
        (lambda c: c.update(to_dict=3, hidden_size="x"), "describes no model"),
    ],
)
def test_a_configuration_that_does_not_fit(bert, change, message):
    edit(bert, change)
    with pytest.raises(ValueError, match=message):
        load(bert)


def test_code_that_a_configuration_names_is_not_run(bert):
    (bert / "evil.py").write_text("raise SystemExit('code of the folder ran')")
    names = {"AutoModel": "evil.BertModel", "AutoConfig": "evil.BertConfig"}
    evil = {
        "auto_map": names,
        "attn_implementation": "someone/kernel",
        "_attn_implementation": "someone/kernel",
        "attribute_map": {"x": "_attn_implementation_internal"},
        "x": "someone/kernel",
        "experts_implementation": "someone/kernel",
        "quantization_config": {"quant_method": "someone"},
    }
    edit(bert, lambda config: config.update(evil))
    model = load(bert)
    assert model.config._attn_implementation in ("sdpa", "eager")
    assert type(model) is transformers.BertModel


def test_a_configuration_outside_of_the_folder(bert, tmp_path):
    (bert / "config.json").rename(tmp_path / "config.json")
    (bert / "config.json").symlink_to(tmp_path / "config.json")
    with pytest.raises(ValueError, match="config.json is a link out of the folder"):
        load(bert)
    (bert / "config.json").unlink()
    with (bert / "config.json").open("wb") as file:
        file.truncate(LARGEST_JSON + 1)
    with pytest.raises(ValueError, match="at most 33554432 bytes"):
        load(bert)
