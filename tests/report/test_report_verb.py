"""`sparsekit report` from a folder to the page, on tiny models; no test depends on how fast anything is."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import transformers
from tiny_encoders import encoder
from tiny_runs import recipe_of, tiny, write_reviews
from typer.testing import CliRunner

import sparsekit
from sparsekit.bench.models.peers import DENSE_ENGINES
from sparsekit.bench.models.problem import random_ids
from sparsekit.bench.report import times as report_times
from sparsekit.bench.report.measuring import Request, measured
from sparsekit.bench.report.quality import EngineOutputs, measured_quality
from sparsekit.bench.report.subject import open_subject
from sparsekit.bench.report.times import TimeGrid
from sparsekit.cli import app
from sparsekit.engine import compile_model
from sparsekit.recipes import compress
from sparsekit.recipes.tasks.named_outputs import NamedOutputs

_SIZES = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128}
_SHORT = TimeGrid(inputs=[(2, 8)], engines=["torch"], seconds=0.01)


def run(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dense classifier, what compress made of it, and reviews."""
    folder = tmp_path_factory.mktemp("report")
    write_reviews(folder / "reviews.jsonl")
    tiny(folder / "dense", "classification", **_SIZES)
    stages = ({"prune": {"sparsity": 0.7, "samples": 16}}, {"convert": {"dtype": "int8", "min_sparsity": 0.3}})
    recipe, reviews = recipe_of("classification", *stages), folder / "reviews.jsonl"
    compress(folder / "dense", recipe, reviews, folder / "small", test=reviews)
    return folder


def test_a_folder_is_measured_beside_its_dense_self(place, tmp_path):
    engines = ["torch", "onnxruntime"]
    options = ["--dense", place / "dense", "--test", place / "reviews.jsonl", "--seconds", 0.01]
    options += ["--input", "1x8", "--input", "3x5", *(f"--engine={name}" for name in engines)]
    told = run(place / "small", *options, "--out", tmp_path / "page.html", "--json", tmp_path / "facts.json")
    assert told.exit_code == 0, told.output
    for words in ("the dense model's accuracy", "best dense float32 engine here", f"wrote {tmp_path / 'page.html'}"):
        assert words in told.stdout.replace("\n", " ").replace("  ", " ")
    found = json.loads((tmp_path / "facts.json").read_text())
    rows = [(row["texts"], row["tokens"], row["engine"], row["kind"]) for row in found["times"]]
    kinds = {"sparsekit.engine": "ours", "sparsekit in PyTorch": "ours", **dict.fromkeys(engines, "float32")}
    assert rows == [(*shape, name, kind) for shape in ((1, 8), (3, 5)) for name, kind in kinds.items()]
    for row in found["times"]:
        assert row["quartiles"][0] <= row["ms"] <= row["quartiles"][1]
        assert not row["wrong"]
        assert bool(row["operators"]) == (row["engine"] == "sparsekit in PyTorch")
    layers = {layer["name"]: layer for layer in found["layers"]}
    query = layers["bert.encoder.layer.1.attention.self.query"]
    assert (query["dtype"], query["shape"], query["reason"]) == ("int8", [64, 64], "")
    assert query["sparsity"] == pytest.approx(0.7, abs=0.05)
    assert layers["classifier"]["reason"] == "no zeros to skip"
    scores = {(score["metric"], score["model"]): score["value"] for score in found["quality"]["scores"]}
    kept = json.loads((place / "small" / "report.json").read_text())
    assert scores["accuracy", "this model"] == pytest.approx(kept["scores"]["accuracy"], abs=1 / 48), "in the engine"
    assert scores["accuracy", "dense"] == kept["comparison"]["rows"][0]["score"]
    assert set(found["quality"]["differences"]) == {"accuracy", "f1"}
    sizes = {size["model"]: size for size in found["sizes"]}
    assert list(sizes) == ["this model, sparsekit.engine", "this model, PyTorch", "dense"]
    assert sizes["dense"]["disk"] == (place / "dense" / "model.safetensors").stat().st_size
    (command,) = found["commands"]
    for words in (f"sparsekit report {place / 'small'}", "--input 1x8", "--engine onnxruntime", "--threads 1"):
        assert words in command
    assert found["unknown"] == []
    text = (tmp_path / "page.html").read_text()
    assert "Time by operator" in text
    assert list(tmp_path.glob(".*")) == []


def test_a_folder_alone_says_what_would_add_more(place):
    found = measured(Request(str(place / "small"), grid=_SHORT))
    assert [time.engine for time in found.times] == ["sparsekit.engine", "sparsekit in PyTorch", "torch"]
    assert found.quality is None
    assert [text.partition(" adds")[0] for text in found.unknown] == [
        "The dense model: --dense MODEL",
        "Quality: --test FILE",
    ]
    assert any("own weights" in text for text in found.time_remarks)
    alone = measured(Request(str(place / "small"), test=place / "reviews.jsonl", grid=_SHORT)).quality
    assert {score.model for score in alone.scores} == {"this model"}
    assert alone.differences == {}
    assert "at most 12 tokens of each text (--max-tokens)" in alone.remarks[0], "as its recipe says"


def test_texts_are_truncated_as_asked_for(place):
    subject, reviews = open_subject(str(place / "small")), place / "reviews.jsonl"
    quality = measured_quality(subject, None, reviews, "classification", 3)
    assert "at most 3 tokens of each text" in quality.remarks[0]
    dense = open_subject(str(place / "dense"))
    assert "at most 128 tokens" in measured_quality(dense, None, reviews, "classification").remarks[0]
    with pytest.raises(ValueError, match="reads 512 tokens at most, and data.max_tokens is 513"):
        measured_quality(subject, None, reviews, "classification", 513)


def test_a_compiled_file_is_measured_and_scored_with_the_dense_tokenizer(place, tmp_path):
    compile_model(place / "small", tmp_path / "small.bin")
    found = measured(Request(str(tmp_path / "small.bin"), grid=_SHORT))
    assert [time.engine for time in found.times] == ["sparsekit.engine"]
    assert {layer.name for layer in found.layers} >= {"0.query", "1.down", "classifier", "head_dense"}
    assert "other engines: --dense MODEL" in found.unknown[0]
    (size,) = found.sizes
    assert size.disk == size.memory == (tmp_path / "small.bin").stat().st_size
    given = str(place / "dense"), place / "reviews.jsonl"
    beside = Request(str(tmp_path / "small.bin"), *given, grid=_SHORT, max_tokens=12)  # a file has no recipe
    found = measured(beside)
    assert [time.engine for time in found.times] == ["sparsekit.engine", "torch"]
    folder = measured(Request(str(place / "small"), *given, grid=_SHORT))
    assert found.quality == folder.quality, "the same model"
    with pytest.raises(ValueError, match="has no tokenizer: --dense gives one"):
        measured(Request(str(tmp_path / "small.bin"), test=place / "reviews.jsonl", grid=_SHORT))


def test_a_dense_folder_with_zeros_is_sparse_in_both(place, tmp_path):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(place / "dense")
    sparsekit.prune(model, 0.8, ignore=["classifier"])
    sparsekit.finalize(model).save_pretrained(tmp_path)
    found = measured(Request(str(tmp_path), grid=_SHORT))
    assert [time.engine for time in found.times] == ["sparsekit.engine", "sparsekit in PyTorch", "torch"]
    layers = {layer.name: layer for layer in found.layers}
    assert layers["bert.encoder.layer.0.intermediate.dense"].layout != "dense"
    assert layers["classifier"].layout == "dense"
    dense = measured(Request(str(place / "dense"), grid=_SHORT))
    assert [time.engine for time in dense.times] == ["sparsekit.engine", "torch"], "nothing to convert"


def test_embeddings_are_scored_by_similarity_and_by_retrieval(tmp_path):
    tiny(tmp_path / "dense", "embedding", **_SIZES)
    rows = [{"text": f"good film {i}", "pair": f"good story {i}", "label": i / 20} for i in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    request = Request(str(tmp_path / "dense"), str(tmp_path / "dense"), tmp_path / "pairs.jsonl", grid=_SHORT)
    quality = measured(request).quality
    ours, dense = ([score.value for score in quality.scores if score.model == name] for name in ("this model", "dense"))
    assert ours == pytest.approx(dense, abs=0.02), "the engine computes what PyTorch does"
    assert [score.metric for score in quality.scores] == ["spearman"] * 2
    for row in rows:
        del row["label"]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [score.metric for score in measured(request).quality.scores] == ["mrr", "recall@10"] * 2


def test_the_engine_has_the_outputs_that_tasks_score():
    torch.manual_seed(0)
    ids = torch.randint(5, 97, (3, 7))
    mask = torch.ones_like(ids)
    mask[0, 3:] = mask[2, 1:] = 0
    model = encoder("bert")
    types = torch.randint(0, 2, ids.shape)
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    with torch.inference_mode():
        expected = NamedOutputs(model)(**batch)["embeddings"]
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        found = EngineOutputs(open_subject(folder).core, "embeddings")(**batch)["embeddings"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_what_the_engine_does_not_run_is_measured_in_pytorch(tmp_path):
    sizes = {"vocab_size": 97, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    model = transformers.AlbertModel(transformers.AlbertConfig(embedding_size=16, num_hidden_layers=1, **sizes)).eval()
    sparsekit.prune(model, 0.8)
    sparsekit.finalize(model).save_pretrained(tmp_path)
    found = measured(Request(str(tmp_path), grid=_SHORT))
    assert [time.engine for time in found.times] == ["sparsekit in PyTorch", "torch"]
    assert any("sparsekit.engine does not run this model" in text and "albert" in text for text in found.time_remarks)
    assert any(layer.sparsity > 0.7 for layer in found.layers)
    assert [size.model for size in found.sizes] == ["this model, PyTorch"]


def test_an_engine_that_fails_is_left_out_with_its_reason(place, monkeypatch):
    peer = report_times.MODEL_PEERS["torch"]

    def prepare(problem):
        raise NotImplementedError("no such operator\nin a long trace")

    monkeypatch.setitem(report_times.MODEL_PEERS, "torch", type(peer)(prepare, (), sparse=False))
    found = measured(Request(str(place / "small"), grid=_SHORT))
    assert "torch" not in {time.engine for time in found.times}
    assert any("torch does not run this model (NotImplementedError: no such operator)" in t for t in found.time_remarks)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "nothing"}, FileNotFoundError, "there is no folder nothing"),
        ({"test": "nothing.jsonl"}, FileNotFoundError, "nothing.jsonl does not exist"),
        ({"task": "language"}, ValueError, "task must be one of classification, embedding, got 'language'"),
        ({"model": "language"}, ValueError, "is a language model, and|sparsekit bench language"),
        (
            {"grid": TimeGrid(inputs=[(1, 513)], engines=[])},
            ValueError,
            "reads 512 tokens at most, got an input of 513",
        ),
        ({"dense": "other", "test": "reviews.jsonl"}, ValueError, "must have the same classes in config.json"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(place, monkeypatch, changes, error, message):
    monkeypatch.chdir(place)
    if not (place / "language").exists():
        tiny(place / "language", "language", num_hidden_layers=1)
        shutil.copytree(place / "dense", place / "other")
        config = json.loads((place / "other" / "config.json").read_text())
        config |= {"id2label": {"0": "pos", "1": "neg"}, "label2id": {"pos": 0, "neg": 1}}
        (place / "other" / "config.json").write_text(json.dumps(config))
    given = {"model": "small", "grid": _SHORT} | changes
    if "test" in given:
        given["test"] = Path(given["test"])
    with pytest.raises(error, match=message):
        measured(Request(**given))


def test_a_page_of_a_language_model_is_refused_by_the_verb_too(place, tmp_path):
    tiny(tmp_path / "language", "language", num_hidden_layers=1)
    compile_model(tmp_path / "language", tmp_path / "language.bin")
    for source in ("language", "language.bin"):
        with pytest.raises(ValueError, match="language model|decoder"):
            run(tmp_path / source, "--seconds", 0.01)


def test_an_engine_of_ours_is_none_of_the_dense_ones(place):
    assert {"torch", "onnxruntime", "onnxruntime-int8", "openvino", "openvino-int8", "ctranslate2-int8"} <= set(
        DENSE_ENGINES
    )
    assert not any("sparsekit" in name or "reduce-range" in name for name in DENSE_ENGINES)
    with pytest.raises(ValueError, match="engines are torch, onnxruntime"):
        run(place / "small", "--engine", "sparsekit")


def test_random_ids_have_no_padding():
    ids = random_ids(50, 20, 7, 1)
    assert ids.shape == (50, 20)
    assert set(ids.unique().tolist()) == {0, 2, 3, 4, 5, 6}
    assert 1 in random_ids(50, 20, 7, None)
