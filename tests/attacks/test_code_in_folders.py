"""Folders with custom code: no command runs it, whatever is on standard input."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

transformers = pytest.importorskip("transformers")
pytest.importorskip("datasets")

import torch  # noqa: E402
from tiny_runs import recipe_of, tiny, write_reviews  # noqa: E402
from transformers import dynamic_module_utils  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import sparsekit  # noqa: E402
from sparsekit.cli import app  # noqa: E402

ROOT = Path(__file__).parents[2]
YES = "y\n" * 10


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def add_code(folder: Path, marker: Path) -> None:
    """Add code that leaves a marker when run, and a configuration and tokenizer that name it."""
    code = ["from transformers import BertConfig, BertModel, BertTokenizer", "class Config(BertConfig): pass"]
    (folder / "evil.py").write_text("\n".join([f"open({str(marker)!r}, 'w').close()", *code]))
    classes = ("AutoModel", "AutoModelForSequenceClassification", "AutoModelForCausalLM")
    auto_map = {"AutoConfig": "evil.Config"} | dict.fromkeys(classes, "evil.BertModel")
    edit(folder / "config.json", model_type="evil", auto_map=auto_map)
    tokenizer = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.BertTokenizer", None]}}
    edit(folder / "tokenizer_config.json", **tokenizer)


@pytest.fixture
def marker(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    return tmp_path / "code-ran"


@pytest.fixture
def evil(tmp_path, marker) -> Path:
    folder = tiny(tmp_path / "evil", "classification", num_hidden_layers=1)
    add_code(folder, marker)
    return folder


def refused(marker: Path, *arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=YES)
    assert not marker.exists()
    assert isinstance(result.exception, ValueError), result.output
    assert "needs code of its own, which is not run" in str(result.exception)


def test_convert(tmp_path, evil, marker):
    refused(marker, "convert", evil, "--out", tmp_path / "out")
    refused(marker, "convert", evil, "--out", tmp_path / "out", "--dense")
    assert not (tmp_path / "out").exists()


def test_bench(evil, marker):
    refused(marker, "bench", "layers", evil, "--seconds", 0.01)
    refused(marker, "bench", "model", evil, "--seconds", 0.01)


@pytest.mark.parametrize("task", ["classification", "embedding", "language"])
def test_verbs_that_train_and_score(tmp_path, evil, marker, task):
    data, out = write_reviews(tmp_path / "reviews.jsonl"), tmp_path / "out"
    (tmp_path / "recipe.yaml").write_text(recipe_of(task, {"prune": {"sparsity": 0.5}}).to_yaml())
    refused(marker, "compress", evil, "--recipe", tmp_path / "recipe.yaml", "--data", data, "--out", out)
    refused(marker, "prune", evil, "--out", out, "--data", data, "--task", task, "--sparsity", 0.5)
    refused(marker, "distill", evil, "--out", out, "--teacher", evil, "--data", data, "--task", task)
    if task != "embedding":
        refused(marker, "evaluate", evil, "--data", data, "--task", task)


def test_a_teacher_with_code(tmp_path, evil, marker):
    student = tiny(tmp_path / "student", "classification", num_hidden_layers=1)
    data = write_reviews(tmp_path / "reviews.jsonl")
    refused(marker, "distill", student, "--out", tmp_path / "out", "--teacher", evil, "--data", data)


def test_a_known_architecture_is_opened_by_its_own_class(tmp_path, evil, marker):
    """transformers' own class is used, not the folder's."""
    edit(evil / "config.json", model_type="bert")
    result = CliRunner().invoke(
        app, ["convert", str(evil), "--out", str(tmp_path / "out"), "--min-sparsity", "0"], input=YES
    )
    assert result.exit_code == 0, result.exception
    assert not marker.exists()
    assert type(sparsekit.load(tmp_path / "out")) is transformers.BertForSequenceClassification


def test_steps_of_sentence_transformers(tmp_path, evil, marker):
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    encoder = Transformer(str(tiny(tmp_path / "encoder", "embedding", num_hidden_layers=1)))
    folder = tmp_path / "sentences"
    library.SentenceTransformer(modules=[encoder, Pooling(32)]).save(str(folder))
    steps = json.loads((folder / "modules.json").read_text())
    (folder / "evil.py").write_text((evil / "evil.py").read_text())
    for step in ("evil.Config", "os.system", "sentence_transformers.util.os.system", "sentence_transformers_evil.X", 3):
        changed = [steps[0], {**steps[1], "type": step}]
        (folder / "modules.json").write_text(json.dumps(changed))
        refused(marker, "convert", folder, "--out", tmp_path / "out")
    (folder / "modules.json").write_text(json.dumps(steps))
    (folder / "evil.py").unlink()
    result = CliRunner().invoke(
        app, ["convert", str(folder), "--out", str(tmp_path / "out"), "--min-sparsity", "0"], input=YES
    )
    assert result.exit_code == 0, result.exception
    add_code(folder, marker)
    refused(marker, "convert", folder, "--out", tmp_path / "out")


def test_verify_and_load(tmp_path, marker):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=10, **sizes))
    ids = torch.ones(1, 4, dtype=torch.int64)
    sparsekit.save(model, tmp_path / "model", verify_inputs={"input_ids": ids})
    (tmp_path / "model" / "tokenizer_config.json").write_text("{}")
    add_code(tmp_path / "model", marker)
    for arguments in (
        ["verify", str(tmp_path / "model")],
        ["convert", str(tmp_path / "model"), "--out", str(tmp_path / "out")],
    ):
        result = CliRunner().invoke(app, arguments, input=YES)
        assert isinstance(result.exception, ValueError)
        assert not marker.exists()


def test_answers_on_standard_input(tmp_path, evil, marker):
    """As `yes | sparsekit convert` in a shell."""
    result = subprocess.run(
        [sys.executable, "-m", "sparsekit", "convert", str(evil), "--out", str(tmp_path / "out")],
        input=YES,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HF_HOME": str(tmp_path / "home")},
    )
    assert not marker.exists()
    assert result.returncode == 1
    assert "needs code of its own, which is not run" in result.stderr
    assert "Traceback" not in result.stderr


def calls_of_loaders(path: Path) -> list[str]:
    """Calls of loaders of transformers or sentence-transformers that bypass `from_folder`."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {id(call): call.func.attr for call in calls if isinstance(call.func, ast.Attribute)}
    return [
        f"{path}:{call.lineno}" for call in calls if names.get(id(call)) in ("from_pretrained", "SentenceTransformer")
    ]


@pytest.mark.parametrize("folder", ["sparsekit", "benchmarks"])
def test_every_folder_is_opened_in_one_place(folder):
    found = [place for path in (ROOT / folder).rglob("*.py") for place in calls_of_loaders(path)]
    assert found == []
