"""The command line: readable help, errors without tracebacks, figures from the machine."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from typer.testing import CliRunner

import sparsekit
from sparsekit import runtime
from sparsekit.cli import app
from sparsekit.nn import Int8Embedding

runner = CliRunner()


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "sparsekit", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "160", "NO_COLOR": "1", **environment},
    )


VERBS = ["info", "bench", "demo", "compress", "prune", "distill", "convert", "evaluate", "report", "verify", "plot"]
VERBS += ["embed", "classify", "rank", "compile", "generate", "chat"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb):
    assert verb in runner.invoke(app, ["--help"]).stdout
    result = runner.invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_help_fits_80_columns():
    verbs = ("compress", "prune", "report", "embed", "classify", "rank", "compile", "generate", "chat")
    for verb in ([], ["bench", "layers"], *([name] for name in verbs)):
        told = command(*verb, "--help", COLUMNS="80").stdout
        assert max(map(len, told.splitlines())) <= 80


def test_the_version_is_shown():
    assert command("--version").stdout == f"sparsekit {sparsekit.__version__}\n"


def test_the_example_of_compress_is_a_recipe_and_a_command_that_exists():
    pytest.importorskip("pydantic")
    from sparsekit.recipes import make_recipe

    told = "\n".join(line.rstrip().removeprefix(" ") for line in command("compress", "--help").stdout.splitlines())
    recipe = make_recipe(yaml.safe_load(told[told.index("task:") : told.index("The command")]))
    assert [stage.name for stage in recipe.stages] == ["prune", "distill", "evaluate", "convert"]
    example = told[told.index("sparsekit compress") : told.index("Stages:")]
    named = set(re.findall(r"--\w+", example))
    assert named <= set(re.findall(r"--\w+", told[told.index("Options") :]))


def test_completion_knows_the_verbs(tmp_path):
    words = {"COMP_WORDS": "sparsekit compr", "COMP_CWORD": "1", "_SPARSEKIT_COMPLETE": "complete_bash"}
    assert command(**words).stdout.split() == ["compress"]
    assert "--install-completion" in command("--help").stdout
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)}  # the shell's name is given
    command("--install-completion", "bash", **named)
    assert "_SPARSEKIT_COMPLETE=complete_bash" in (tmp_path / ".bash_completions" / "sparsekit.sh").read_text()


def test_info_names_the_instruction_set_and_the_kernels():
    result = command("info")
    assert result.returncode == 0
    for word in (runtime.current_isa(), "processor", "threads"):
        assert word in result.stdout
    assert "spmm_" not in result.stdout
    result = command("info", "--kernels")
    for word in (runtime.current_isa(), "spmm_sell_f32_8", "threads"):
        assert word in result.stdout


def test_bench_layers_prints_and_writes_what_it_measured(tmp_path):
    file = tmp_path / "deep" / "rows.json"
    arguments = ["--shape", "32x64", "--sparsity", "0.75", "--tokens", "1", "--tokens", "20", "--seconds", "0.01"]
    engines = ["--engine", "torch", "--engine", "sparsekit"]
    result = command("bench", "layers", *arguments, *engines, "--json", str(file), "--plots", str(tmp_path / "plots"))
    assert result.returncode == 0, result.stderr
    for words in ("32 x 64, 1 token, 1 thread", "32 x 64, 20 tokens", "sparsekit 75%", "break-even"):
        assert words in result.stdout
    stored = json.loads(file.read_text())
    assert stored["environment"]["isa"] == runtime.current_isa()
    assert stored["ceilings"][0]["gflops"] > 0
    assert [(row["batch"], row["engine"], row["sparsity"]) for row in stored["rows"]] == [
        (batch, *engine) for batch in (1, 20) for engine in (("torch", None), ("sparsekit", 0.75))
    ]
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["roofline.png", "speedup.png"]
    assert list(tmp_path.rglob(".*")) == [], "no temporary files stay behind"


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["bench", "layers", "--shape", "32by64"], {}, "expected OUTxIN such as 1536x384, got '32by64'"),
        (["bench", "layers", "--engine", "abacus"], {}, "engines are sparsekit, sparsekit-bfloat16"),
        (["bench", "layers", "--sparsity", "1.5"], {}, "Invalid value for '--sparsity'"),
        (["info"], {"SPARSEKIT_ISA": "abacus"}, "instruction set 'abacus' cannot run here"),
        (["demo", "--sparsity", "2"], {}, "Invalid value for '--sparsity'"),
        (["knead"], {}, "No such command"),
    ],
)
def test_wrong_input_gets_a_message_and_no_traceback(arguments, environment, message):
    result = command(*arguments, **environment)
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_bench_model_prints_and_writes_what_it_measured(tmp_path):
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128, vocab_size=50
    )
    BertModel(config).save_pretrained(tmp_path / "encoder")
    file = tmp_path / "model.json"
    arguments = [
        "--sparsity",
        "0.9",
        "--input",
        "2x8",
        "--seconds",
        "0.01",
        "--engine",
        "torch",
        "--engine",
        "sparsekit",
    ]
    result = command("bench", "model", str(tmp_path / "encoder"), *arguments, "--json", str(file))
    assert result.returncode == 0, result.stderr
    for words in ("2 x 8 tokens", "sparsekit 90%", "ms in"):
        assert words in result.stdout
    stored = json.loads(file.read_text())
    assert stored["model"] == "encoder"
    assert [row["engine"] for row in stored["rows"]] == ["torch", "sparsekit"]


def test_bench_model_refuses_an_input_it_cannot_read():
    result = runner.invoke(app, ["bench", "model", "--input", "16"])
    assert result.exit_code == 2


@pytest.fixture
def pruned(tmp_path) -> Path:
    """A transformers folder of a small encoder without pooler, nine of ten weights zero."""
    config = transformers.BertConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128, vocab_size=50
    )
    model = transformers.BertModel(config, add_pooling_layer=False)
    sparsekit.prune(model, 0.9)
    sparsekit.finalize(model)
    model.save_pretrained(tmp_path / "pruned")
    return tmp_path / "pruned"


def test_a_folder_without_zeros_is_not_converted(pruned, tmp_path):
    model = transformers.BertModel(transformers.BertConfig.from_pretrained(pruned), add_pooling_layer=False)
    model.save_pretrained(tmp_path / "dense")
    result = command("convert", str(tmp_path / "dense"), "--out", str(tmp_path / "out"))
    assert result.returncode == 1
    assert "error: no layer has zeros" in result.stderr
    assert "sparsekit prune" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_is_compared_with_what_it_was_pruned_from(pruned, tmp_path):
    arguments = ["convert", str(pruned), "--out", str(tmp_path / "out"), "--min-sparsity", "0.5", "--reference"]
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig.from_pretrained(pruned), add_pooling_layer=False)
    model.save_pretrained(tmp_path / "another")
    result = runner.invoke(app, [*arguments, str(tmp_path / "another")])
    assert result.exit_code == 0, result.output
    lines = result.stdout.replace("\n    ", " ").splitlines()
    (place,) = (i for i, line in enumerate(lines) if line.startswith("outputs against the reference: cosine "))
    assert lines[place + 1].startswith("they moved FAR")
    result = runner.invoke(app, [*arguments, str(pruned)])
    assert "outputs against the reference: cosine 1.0000" in result.stdout
    assert "FAR" not in result.stdout


def test_convert_and_verify_a_folder(pruned, tmp_path):
    arguments = ["--dtype", "int8", "--min-sparsity", "0.5", "--ignore", "re:.*query"]
    result = runner.invoke(app, ["convert", str(pruned), "--out", str(tmp_path / "sparse"), *arguments])
    assert result.exit_code == 0, result.output
    assert "5 of 5 layers converted" in result.stdout
    assert result.stdout.startswith("whole model on 2 x 8: ")
    assert "\noutputs against the same model dense: cosine " in result.stdout
    assert "encoder.layer.0.output.dense" in result.stdout
    model = sparsekit.load(tmp_path / "sparse")
    assert model.pooler is None
    assert model.encoder.layer[0].output.dense.dtype == "int8"
    assert type(model.encoder.layer[0].attention.self.query) is torch.nn.Linear
    result = runner.invoke(app, ["verify", str(tmp_path / "sparse")])
    assert result.exit_code == 0, result.output
    assert "all errors are within their tolerances" in result.stdout
    manifest = json.loads((tmp_path / "sparse" / "sparsekit.json").read_text())
    manifest["verification"]["layers"]["encoder.layer.0.output.dense"]["tolerance"] = 0.0
    (tmp_path / "sparse" / "sparsekit.json").write_text(json.dumps(manifest))
    result = runner.invoke(app, ["verify", str(tmp_path / "sparse")])
    assert result.exit_code == 1
    assert "output last_hidden_state" in result.stdout
    assert "1 of 6 errors are too large" in result.stdout


def test_convert_stores_word_embeddings_in_int8(pruned, tmp_path):
    arguments = ["convert", str(pruned), "--out", str(tmp_path / "sparse"), "--min-sparsity", "0.5", "--embeddings"]
    result = runner.invoke(app, [*arguments, "int8"])
    assert result.exit_code == 0, result.output
    assert "word embeddings in int8: embeddings.word_embeddings (" in result.stdout
    model = sparsekit.load(tmp_path / "sparse")
    assert isinstance(model.get_input_embeddings(), Int8Embedding)
    result = runner.invoke(app, ["verify", str(tmp_path / "sparse")])
    assert result.exit_code == 0, result.output
    assert "codes and scales of embeddings embeddings.word_embeddings (" in result.stdout
    result = command(*arguments, "int4")
    assert result.returncode == 1
    assert "embeddings must be one of float32, int8, got 'int4'" in result.stderr


def test_convert_writes_a_dense_folder_of_a_sparse_one(pruned, tmp_path):
    (pruned / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat\n")
    for source, out, more in ((pruned, "sparse", ["--min-sparsity", "0"]), (tmp_path / "sparse", "dense", ["--dense"])):
        result = runner.invoke(app, ["convert", str(source), "--out", str(tmp_path / out), *more])
        assert result.exit_code == 0, result.output
    assert (tmp_path / "dense" / "tokenizer.json").exists()
    ids = torch.arange(6).reshape(1, 6)
    before, after = (
        transformers.BertModel.from_pretrained(folder, add_pooling_layer=False)(ids).last_hidden_state
        for folder in (pruned, tmp_path / "dense")
    )
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({}, r"no folder no/such-model, nor a model of this name in the local hub cache.*hf download no/such-model"),
        ({"architectures": ["Abacus"]}, r"must name a class of transformers in architectures, got \['Abacus'\]"),
        ({"num_hidden_layers": 2}, r"has no weights for \['encoder.layer.1"),
    ],
)
def test_folders_that_cannot_be_converted(pruned, tmp_path, monkeypatch, edit, message):
    config = json.loads((pruned / "config.json").read_text())
    (pruned / "config.json").write_text(json.dumps({**config, **edit}))
    result = runner.invoke(app, ["convert", str(pruned) if edit else "no/such-model", "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert re.search(message, str(result.exception), re.DOTALL)
    assert not (tmp_path / "out").exists()


def test_verify_says_what_is_wrong_without_a_traceback(pruned):
    result = command("verify", str(pruned))
    assert result.returncode == 1
    assert "has no sparsekit.json; expected a folder that sparsekit.save wrote" in result.stderr
    assert "Traceback" not in result.stderr
