"""User errors at every command: a message, status 1 or 2, and no traceback."""

import json
import shutil
import sys

import pytest

pytest.importorskip("datasets")
pytest.importorskip("transformers")

from tiny_runs import tiny, write_reviews

from sparsekit.cli import run
from sparsekit.recipes import read_recipe
from sparsekit.recipes.data.tables import read_rows

_BEGIN = "task: classification\nstages:\n"
_LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_LAUGHS.encode(), r"line 2: recipes have no aliases \(\*a\); write out"),
        (b"task: " + b"[" * 100_000, "line 1: brackets are nested more than 20 deep"),
        (b"task: " + b"{a: " * 10_000, "line 1: brackets are nested more than 20 deep"),
        (b"task: classification\n# caf\xe9\n", "line 2: byte 0xe9 is no UTF-8"),
        (b"task: classification\nseed: \x00\n", r"line 2: no YAML: character '\\x00'"),
        (b"task: a\n" * 100_000, "at most 131072 bytes"),
        (b"task: classification\nseed: 1\nseed: 2\n", "line 3: seed stands twice, first in line 2"),
        (b"task: classification\nseed: " + b"9" * 5000, "line 2: a number has at most 40 digits, got 5000"),
        (b"task: !!python/object:os.system x\n", r"line 1: recipes have no tags \(.*\); leave it out"),
        (b"task: classification\ndata: {text: 2001-01-01}\n", "line 2: YAML reads '2001-01-01' as a timestamp; put it"),
        (b"task: classification\n? [a]\n: b\n", "line 2: a key must be a word"),
        (b"", "line 1: the recipe: expected settings, such as 'task: classification', got None"),
        (b"[1, 2]\n", "line 1: the recipe: expected settings"),
        (b"stages: [evaluate]\n", "line 1: task: it is missing"),
    ],
)
def test_yaml_that_is_no_recipe_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        read_recipe(path)
    assert "\n" not in str(refused.value)
    assert "recipe.yaml" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  - finetune: {epochs: .inf}\n", "line 3: stage 1, finetune.epochs: .*finite number, got inf"),
        ("  - finetune: {epochs: .nan}\n", "line 3: stage 1, finetune.epochs: .*finite number, got nan"),
        ("  - finetune: {epochs: 1.0e+30}\n", "less than or equal to 1000000, got 1e.30"),
        ("  - finetune: {accumulate: 1000000000000}\n", "less than or equal to 65536, got 1000000000000"),
        ("  - convert: {tokens: [1, 1000000000000]}\n", "stage 1, convert.tokens.1: .*less than or equal"),
        ("  - convert: {min_sparsity: 2}\n", "less than or equal to 1, got 2"),
        ("  - evaluate\ndata: {batch_size: 1000000000000}\n", "line 4: data.batch_size: .*65536, got 1000000000000"),
        ("  - evaluate\nseed: 99999999999999999999\n", "line 4: seed: .*less than 4294967296"),
        ("  - prune: {sparsty: 0.5}\n", "stage 1, prune.sparsty: there is no such key; did you mean sparsity?"),
        ("  - prunne: {sparsity: 0.5}\n", "stage 1, prunne: there is no such key; did you mean prune?"),
        ("  - distil\n", "did you mean distill?"),
        ("  - prune: {sparsity: 0.5, criterion: wonda}\n", "expected 'sparsegpt', .* got 'wonda'; did you mean wanda?"),
        ("  - prune:\n    sparsity: 0.5\n", "its settings indented below it; got {'prune': None, 'sparsity': 0.5}"),
    ],
)
def test_settings_out_of_range_or_misspelt_are_refused(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(_BEGIN + text)
    with pytest.raises(ValueError, match=message):
        read_recipe(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "empty.jsonl has no rows"),
        ("list.json", b"[]", "list.json has no rows"),
        ("blank.csv", b"\n", "blank.csv has no rows"),
        ("torn.jsonl", b'{"text": "a"}\n{"text": ', "torn.jsonl, line 2: no JSON"),
        ("deep.jsonl", b'{"text":' + b"[" * 100_000, "deep.jsonl, line 1: brackets are nested too deeply"),
        ("number.jsonl", b'{"text": "a"}\n\n5\n', "number.jsonl, line 3: expected an object"),
        ("latin.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n', "latin.jsonl, line 2: byte 0xe9 is no UTF-8"),
        ("latin.csv", b"text,label\ncaf\xe9,1\n", "latin.csv, line 2: byte 0xe9 is no UTF-8"),
        ("shifted.csv", b"text,label\ngood, fine,1\n", "shifted.csv, line 2: 3 fields under 2 names"),
        ("quote.csv", b'text,label\n"good,1\n', "quote.csv cannot be read as csv"),
        ("bad.parquet", b"PAR1", "bad.parquet cannot be read as parquet"),
        ("nan.jsonl", b'{"text": NaN}\n', "nan.jsonl, line 1: .*NaN is no JSON number; use null"),
    ],
)
def test_tables_that_cannot_be_read_are_refused_with_their_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_rows(path, "text")


def test_rows_of_json_are_read_alike_as_lines_and_as_a_list(tmp_path):
    rows = [{"text": "good", "label": 1}, {"text": "bad"}, {"label": 0, "text": "fine", "more": {}}]
    (tmp_path / "lines.jsonl").write_text("\ufeff" + "\n".join(map(json.dumps, rows)))
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=2))
    lines, whole = (read_rows(tmp_path / name, "text", label="label") for name in ("lines.jsonl", "list.json"))
    assert lines == whole
    assert lines.texts == ["good", "bad", "fine"]
    assert lines.labels == [1, None, 0]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a model, copies of it that are damaged, a table and a recipe."""
    folder = tmp_path_factory.mktemp("files")
    good = tiny(folder / "good", "classification")
    write_reviews(folder / "reviews.jsonl")
    (folder / "recipe.yaml").write_text(_BEGIN + "  - evaluate\n")
    config = json.loads((good / "config.json").read_text())
    for name, file, content in (
        ("weights", "model.safetensors", b"xxxx"),
        ("torn", "model.safetensors", (good / "model.safetensors").read_bytes()[:-100]),
        ("tokens", "tokenizer.json", b"{}"),
        ("words", "tokenizer.json", b'{"added_tokens": [], "model": 1}'),
        ("heads", "config.json", json.dumps(config | {"num_attention_heads": 0}).encode()),
        ("width", "config.json", json.dumps(config | {"intermediate_size": 32}).encode()),
        ("vocabulary", "config.json", json.dumps(config | {"vocab_size": "x"}).encode()),
        ("json", "config.json", b"{"),
    ):
        shutil.copytree(good, folder / name)
        (folder / name / file).write_bytes(content)
    return folder


def refused(monkeypatch, capsys, folder, arguments):
    """Error message of a command line, run in the folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["sparsekit", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code in (1, 2)
    told = capsys.readouterr().err
    assert "Traceback" not in told
    return told


_RUN = "--data reviews.jsonl --out out"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (f"compress good --recipe none.yaml {_RUN}", "the recipe none.yaml does not exist"),
        (f"compress good --recipe good {_RUN}", "the recipe good is a folder; expected a YAML file"),
        (f"compress none --recipe recipe.yaml {_RUN}", "the model none does not exist"),
        ("compress good --recipe recipe.yaml --data none.csv --out out", "none.csv does not exist"),
        (f"compress good --recipe recipe.yaml {_RUN} --test none.csv", "none.csv does not exist"),
        (
            "compress good --recipe recipe.yaml --data reviews.jsonl --out recipe.yaml",
            "it is a file",
        ),
        ("prune good --out out --data reviews.jsonl --sparsity 0.5 --criterion wonda", "did you mean wanda?"),
        ("prune good --out out --data reviews.jsonl --sparsity 0.5 --task painting", "task: expected 'classification'"),
        ("prune good --out out --data reviews.jsonl --mask-structure 4x", "mask_structure must be"),
        ("prune good --out out --data reviews.jsonl", "give sparsity, a fraction such as 0.8, or a mask_structure"),
        ("prune good --out good --data reviews.jsonl --sparsity 0.5", "good is the model, which the compressed model"),
        ("distill good --out out --data reviews.jsonl --teacher none", "the model none does not exist"),
        ("distill good --out out --data reviews.jsonl --teacher good --epochs inf", "finite number, got inf"),
        ("distill good --out out --data reviews.jsonl --teacher good --epochs 0", "greater than 0, got 0.0"),
        ("evaluate none --data reviews.jsonl", "the model none does not exist"),
        ("evaluate recipe.yaml --data reviews.jsonl", "no model folder"),
        ("evaluate good --data good", "good is no folder that datasets saved"),
        ("evaluate good --data reviews.jsonl --task x", "task: expected"),
        ("plot none", "none does not exist"),
        ("plot good", "good has no logs in work"),
        ("plot recipe.yaml", "is no log of train"),
        ("convert none --out out", "there is no folder none"),
        ("convert good --out out --ignore re:(", "'re:(' is no regular expression"),
        ("convert good --out out --dtype int3", "got 'int3'"),
        ("verify good", "has no sparsekit.json"),
        ("bench model none", "the model none does not exist"),
        ("bench layers none", "the model none does not exist"),
        ("bench model weights", "weights is damaged"),
        *((f"evaluate {name} --data reviews.jsonl", f"{name}.* is damaged, or its") for name in ("weights", "torn")),
        *((f"evaluate {name} --data reviews.jsonl", f"{name} is damaged, or") for name in ("tokens", "words", "heads")),
        *((f"evaluate {name} --data reviews.jsonl", f"{name} is damaged") for name in ("width", "vocabulary")),
        *(
            (f"convert {name} --out out", f"{name} is damaged")
            for name in ("weights", "torn", "tokens", "heads", "width")
        ),
        ("evaluate json --data reviews.jsonl", "not a valid JSON file"),
    ],
)
def test_every_verb_refuses_in_words(monkeypatch, capsys, files, arguments, message):
    import re

    told = refused(monkeypatch, capsys, files, arguments)
    assert re.search(message if ".*" in message else re.escape(message), told), told
    assert not (files / "out").exists()
