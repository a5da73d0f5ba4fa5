"""The command line: help that can be read, errors without tracebacks, figures that come from the machine."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from sparsekit import runtime
from sparsekit.cli import app

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


@pytest.mark.parametrize("verb", ["info", "bench", "demo"])
def test_every_verb_has_help(verb):
    assert verb in runner.invoke(app, ["--help"]).stdout
    result = runner.invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_info_names_the_instruction_set_and_the_kernels():
    result = command("info")
    assert result.returncode == 0
    for word in (runtime.current_isa(), "spmm_quads_f32_64", "threads"):
        assert word in result.stdout


def test_bench_layers_prints_and_writes_what_it_measured(tmp_path):
    file = tmp_path / "deep" / "rows.json"
    arguments = ["--shape", "32x64", "--sparsity", "0.75", "--batch", "1", "--batch", "20", "--seconds", "0.01"]
    engines = ["--engine", "torch", "--engine", "sparsekit"]
    result = command("bench", "layers", *arguments, *engines, "--json", str(file), "--plots", str(tmp_path / "plots"))
    assert result.returncode == 0, result.stderr
    for words in ("32 x 64, 20 tokens", "sparsekit 75%", "pays from"):
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
        (["bench", "layers", "--engine", "abacus"], {}, "engines are sparsekit, sparsekit-bf16"),
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
