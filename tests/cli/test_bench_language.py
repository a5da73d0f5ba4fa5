"""The benchmark of language models: all engines decode the same tokens, each in a separate process."""

import json

import pytest
import tokenizers
import torch
import transformers
from typer.testing import CliRunner

from sparsekit.bench.language.benchmark import LanguageGrid, Speed, measured
from sparsekit.bench.language.engines import OfLlamaCpp
from sparsekit.bench.language.gguf_file import write_gguf
from sparsekit.bench.language.models import LANGUAGE_PEERS, candidates
from sparsekit.bench.language.process import EngineProcess
from sparsekit.cli import app

VOCABULARY = 300


def write_tokenizer(folder):
    words = tokenizers.Tokenizer(tokenizers.models.BPE())
    words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator(["a film that knows what it wants to be, and gets there without hurry"] * 9, trainer)
    words.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
        initializer_range=0.3,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def next_token(folder, prompt):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(torch.tensor([prompt])).logits[0, -1].argmax().item()


@pytest.fixture(scope="module")
def result(llama, tmp_path_factory):
    engines = ("sparsekit-engine", "sparsekit-engine-int4", "torch")
    grid = LanguageGrid(sparsities=(0.0, 0.5), prompt=40, new_tokens=4, engines=engines, rounds=3)
    return measured(llama, "llama", grid, tmp_path_factory.mktemp("work"))


def test_rows_of_all_engines(result):
    found = [(row["engine"], row["sparsity"]) for row in result["rows"]]
    assert found == [
        ("sparsekit-engine", 0.0),
        ("sparsekit-engine", 0.5),
        ("sparsekit-engine-int4", 0.0),
        ("sparsekit-engine-int4", 0.5),
        ("torch", None),
    ]
    for row in result["rows"]:
        for what in ("prefill", "decode", "decode_many"):
            assert 0 < row[what]["low"] <= row[what]["median"] <= row[what]["high"]
        assert row["resident_bytes"] > row["file_bytes"] > 0
    assert json.loads(json.dumps(result))["rows"] == result["rows"]


def test_engines_agree_on_the_dense_model(result):
    tokens = {row["engine"]: row["token"] for row in result["rows"] if not row["sparsity"]}
    assert tokens["sparsekit-engine"] == tokens["torch"]


def test_speed_is_tokens_over_seconds():
    assert Speed.of(100, [1.0, 2.0, 4.0]) == Speed(50.0, pytest.approx(100 / 3), pytest.approx(200 / 3))
    assert Speed.of(100, [1.0, 2.0, 4.0]).noisy
    assert not Speed.of(100, [1.0, 1.0, 1.1]).noisy


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
def test_llama_cpp_continues_as_transformers(llama, tmp_path, kind):
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gguf")
    write_gguf(llama, tmp_path / "model.gguf", kind)
    engine = OfLlamaCpp(tmp_path / "model.gguf", 1, 64)
    for length in (1, 7, 30):
        prompt = torch.randint(2, VOCABULARY, (length,), generator=torch.Generator().manual_seed(length)).tolist()
        seconds, token = engine.first_token(prompt)
        assert token == next_token(llama, prompt)
        assert seconds > 0
    assert engine.decode([[5, 6], [7, 8, 9]], 3) > 0


def test_other_families_are_refused_as_gguf(tmp_path):
    pytest.importorskip("gguf")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="only Llamas are written as GGUF, got 'gpt2'"):
        write_gguf(tmp_path, tmp_path / "model.gguf", "Q8_0")


def test_an_engine_that_ends_is_said(tmp_path):
    with pytest.raises(RuntimeError, match=r"an engine ended: [\s\S]*No such file"):
        EngineProcess("sparsekit", tmp_path / "missing", 1, 16)


def test_the_other_benchmark_says_which_one_to_take(llama):
    shown = CliRunner().invoke(app, ["bench", "model", str(llama)])
    assert shown.exit_code == 2
    assert "bench language" in shown.output


def test_every_type_of_weight_is_an_engine():
    assert {"sparsekit-engine-int4", "sparsekit-engine-int8-4x1", "llama.cpp-Q4_0"} <= set(LANGUAGE_PEERS)
    assert "sparsekit-engine-int4-4x1" not in LANGUAGE_PEERS


def test_the_command_shows_and_stores(llama, tmp_path):
    arguments = ["bench", "language", str(llama), "--sparsity", "0.5", "--prompt", "20", "--new-tokens", "3"]
    arguments += ["--rounds", "3", "--engine", "sparsekit-engine-int8", "--work", str(tmp_path / "work")]
    shown = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "out.json")])
    assert shown.exit_code == 0, shown.output
    assert "tokens a second" in shown.output
    assert json.loads((tmp_path / "out.json").read_text())["rows"][0]["engine"] == "sparsekit-engine-int8"


def test_embeddings_of_another_type_than_the_layers(llama, tmp_path):
    sizes = {
        embeddings: candidates(llama, ["sparsekit-engine-int8"], [0.5], embeddings, tmp_path)[0].file_bytes
        for embeddings in (None, "int4", "float32")
    }
    assert sizes["int4"] < sizes[None] < sizes["float32"]
    with pytest.raises(ValueError, match="embeddings must be one of float32, int8, int4, got 'int2'"):
        candidates(llama, ["sparsekit-engine-int8"], [0.5], "int2", tmp_path)
