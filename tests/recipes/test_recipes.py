"""Recipes: reading them, running them on tiny models, resuming, and what is refused before anything is trained."""

import json
import textwrap

import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")

from tiny_runs import WORDS, recipe_of, tiny, write_reviews  # noqa: E402

import sparsekit  # noqa: E402
from sparsekit.bench.minilm import minilm_folder  # noqa: E402
from sparsekit.cli import app  # noqa: E402
from sparsekit.nn import Int8Embedding  # noqa: E402
from sparsekit.recipes import compress, evaluate, read_recipe  # noqa: E402
from sparsekit.recipes.data.batches import padded, windows  # noqa: E402
from sparsekit.recipes.data.labels import class_names, numbered  # noqa: E402
from sparsekit.recipes.data.tables import Rows, read_rows  # noqa: E402
from sparsekit.recipes.tasks import TASKS  # noqa: E402
from sparsekit.training import TrainSettings  # noqa: E402


def test_a_classifier_goes_through_every_stage(tmp_path, classifier, reviews):
    recipe = recipe_of(
        "classification",
        {"finetune": {"epochs": 2, "learning_rate": 1e-3, "freeze": []}},
        {"drop_layers": {"layers": 2}},
        {"prune_neurons": {"fraction": 0.25, "samples": 16}},
        {"prune_heads": {"fraction": 0.25, "samples": 16}},
        {"prune": {"sparsity": 0.6, "samples": 16}},
        {"distill": {"epochs": 2, "learning_rate": 1e-3}},
        "evaluate",
        {"convert": {"min_sparsity": 0.3, "embeddings": "int8"}},
    )
    report = compress(classifier, recipe, reviews, tmp_path / "out")
    stages = {row["stage"].partition("-")[2]: row for row in report["stages"]}
    assert list(stages) == [stage.name for stage in recipe.stages]
    assert stages["drop_layers"]["layers"] == 2
    assert stages["prune"]["sparsity"] == pytest.approx(0.6, abs=0.02)
    assert stages["convert"]["converted"] == 12
    assert stages["convert"]["embeddings"] == "int8"
    assert isinstance(sparsekit.load(tmp_path / "out").get_input_embeddings(), Int8Embedding)
    assert stages["convert"]["whole_speedup"] > 0
    assert "cosine_to_dense" not in stages["finetune"] | stages["evaluate"]
    for name in ("drop_layers", "prune", "distill", "convert"):
        assert -1.0 <= stages[name]["cosine_to_dense"] <= 1.0
    assert set(report["scores"]) == set(report["intervals"]) == {"accuracy", "f1"}
    assert stages["evaluate"]["accuracy"] == report["scores"]["accuracy"]
    low, high = report["intervals"]["accuracy"]
    assert 0.0 <= low < report["scores"]["accuracy"] < high <= 1.0
    rows = {row["name"]: row for row in report["comparison"]["rows"]}
    assert list(rows) == ["dense", "after distillation", "after float32"]
    for name in ("dense", "after float32"):
        assert {"score", "interval", "one_text_ms", "texts_per_second", "folder_mb", "memory_mb"} <= rows[name].keys()
    assert rows["after float32"]["score"] == report["scores"]["accuracy"]
    assert rows["after float32"]["folder_mb"] < rows["dense"]["folder_mb"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("## Dense beside compressed") == 1
    assert "|  | accuracy (95%) | ms/text | texts/s | MB disk | MB RAM |" in card
    assert "sparsekit.load" in card
    assert "Wilson" in card
    verified = sparsekit.verify(tmp_path / "out")
    assert verified.passed
    assert list(verified.outputs) == ["logits"]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    stored = read_recipe(tmp_path / "out" / "recipe.yaml")
    assert stored == recipe
    assert 0.0 <= evaluate(tmp_path / "out", reviews, "classification")["accuracy"] <= 1.0


@pytest.mark.parametrize("criterion", ["obert", "taylor", "fisher", "magnitude", "wanda"])
def test_weights_are_pruned_by_every_criterion(tmp_path, classifier, reviews, criterion):
    stage = {"prune": {"sparsity": 0.5, "criterion": criterion, "samples": 16}}
    report = compress(classifier, recipe_of("classification", stage), reviews, tmp_path / "out")
    assert report["stages"][0]["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert report["stages"][0]["layers"] == 24
    assert all(name.startswith("bert.encoder.layer.") for name in report["stages"][0]["too_sparse_layers"])


@pytest.mark.parametrize(("task", "criterion"), [("classification", "sparsegpt"), ("language", "wanda")])
def test_layers_differ_in_sparsity_by_what_they_can_spare(tmp_path, reviews, task, criterion):
    stage = {"prune": {"sparsity": 0.5, "criterion": criterion, "spread": 0.2, "samples": 16}}
    report = compress(tiny(tmp_path / "model", task), recipe_of(task, stage), reviews, tmp_path / "out")
    pruned = report["stages"][0]
    assert pruned["sparsity"] == pytest.approx(0.5, abs=0.02)
    assert pruned["least"] < 0.4 < 0.6 < pruned["most"] < 0.72


def test_layers_get_the_sparsities_that_the_recipe_lists(tmp_path, classifier, reviews):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(classifier)
    names = [name for name, module in model.bert.encoder.named_modules() if isinstance(module, torch.nn.Linear)]
    sparsities = {f"bert.encoder.{name}": (0.25, 0.75)[number % 2] for number, name in enumerate(names)}
    stage = {"prune": {"sparsities": sparsities, "samples": 16}}
    report = compress(classifier, recipe_of("classification", stage), reviews, tmp_path / "out")
    assert (report["stages"][0]["least"], report["stages"][0]["most"]) == pytest.approx((0.25, 0.75), abs=0.01)
    pruned = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    for name, sparsity in sparsities.items():
        assert (pruned.get_submodule(name).weight == 0).float().mean() == pytest.approx(sparsity, abs=0.01)


def test_zeros_of_a_model_pruned_elsewhere_stay(tmp_path, reviews):
    folder = tiny(tmp_path / "pruned", "classification")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    weight = model.bert.encoder.layer[0].intermediate.dense.weight
    weight.data[:, ::2] = 0
    model.save_pretrained(folder)
    recipe = recipe_of("classification", {"finetune": {"epochs": 1, "learning_rate": 1e-3}})
    compress(folder, recipe, reviews, tmp_path / "out")
    taught = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    after = taught.bert.encoder.layer[0].intermediate.dense.weight
    assert (after[:, ::2] == 0).all()
    assert not torch.equal(after, weight)


def test_embeddings_that_moved_far_are_said_so(tmp_path, reviews):
    """Pruned to 95% and never trained."""
    folder = tiny(tmp_path / "encoder", "embedding", initializer_range=0.5)
    recipe = recipe_of("embedding", {"prune": {"sparsity": 0.95, "criterion": "magnitude"}})
    report = compress(folder, recipe, reviews, tmp_path / "out")
    pruned = report["stages"][0]
    assert pruned["cosine_to_dense"] < 0.9
    assert pruned["outputs"].startswith("moved FAR from the dense model's")


@pytest.mark.parametrize("settings", [{}, {"similarity_weight": 0.3, "hidden_weight": 0, "freeze": []}])
def test_embeddings_follow_their_dense_self(tmp_path, settings):
    folder = tiny(tmp_path / "encoder", "embedding")
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"text": f"{a} {b}", "pair": f"{b} {a}"} for a in WORDS[:6] for b in WORDS[6:]]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_of("embedding", {"prune": {"sparsity": 0.5}}, {"distill": {"epochs": 2, **settings}}, pair="pair")
    report = compress(folder, recipe, pairs, tmp_path / "out", test=pairs)
    assert set(report["scores"]) == {"mrr", "recall@10"}
    assert report["scores"]["mrr"] > 0.2


def test_a_language_model_follows_the_largest_logits(tmp_path, reviews):
    folder = tiny(tmp_path / "language", "language")
    recipe = recipe_of(
        "language",
        {"prune": {"sparsity": 0.5, "criterion": "wanda", "samples": 8}},
        {"distill": {"epochs": 2, "alpha": 0.5, "hidden_weight": 0.1, "top_k": 8}},
        {"distill": {"epochs": 1, "alpha": 0.0, "hidden_weight": 0.0, "cache": False}},
    )
    report = compress(folder, recipe, reviews, tmp_path / "out")
    assert 1.0 < report["scores"]["perplexity"] < 1e6


def test_a_mixture_goes_on_with_the_masks_of_its_experts(tmp_path, reviews):
    folder = tiny(tmp_path / "mixture", "mixture", num_hidden_layers=1)
    recipe = recipe_of(
        "language",
        {"prune": {"sparsity": 0.5, "criterion": "magnitude"}},
        {"distill": {"epochs": 1, "hidden_weight": 0.0, "cache": False}},
        {"convert": {"min_sparsity": 0.4}},
    )
    report = compress(folder, recipe, reviews, tmp_path / "out")
    stages = {row["stage"].partition("-")[2]: row for row in report["stages"]}
    assert stages["distill"]["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert stages["convert"]["converted"] == 4 + 2 * 2


def test_test_data_without_labels_are_refused_before_training(tmp_path, classifier, reviews):
    rows = [json.loads(line) | {"label": None} for line in reviews.read_text().splitlines()]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_of("classification", {"finetune": {"epochs": 1}})
    with pytest.raises(ValueError, match="no row of the test data has a label"):
        compress(classifier, recipe, reviews, tmp_path / "out", test=tmp_path / "test.jsonl")
    assert not (tmp_path / "out" / "work").exists()


def test_pruning_rises_while_a_student_learns(tmp_path, classifier, reviews):
    gradual = {"sparsity": 0.7, "frequency": 2, "end": 0.8}
    recipe = recipe_of(
        "classification", {"distill": {"epochs": 3, "gradual": gradual}}, {"convert": {"min_sparsity": 0}}
    )
    compress(classifier, recipe, reviews, tmp_path / "out")
    log = (tmp_path / "out" / "work" / "1-distill.jsonl").read_text().splitlines()
    assert json.loads(log[0])["sparsity"] == 0.0
    assert json.loads(log[-1])["sparsity"] == pytest.approx(0.7, abs=0.01)


def test_a_run_goes_on_from_its_checkpoints(tmp_path, classifier, reviews):
    stages = ({"prune": {"sparsity": 0.5}}, {"distill": {"epochs": 2, "checkpoint_minutes": 0}})
    whole = compress(classifier, recipe_of("classification", *stages), reviews, tmp_path / "whole")
    again = compress(classifier, recipe_of("classification", *stages), reviews, tmp_path / "whole")
    assert again["scores"] == whole["scores"]
    assert [row.get("loss") for row in again["stages"]] == [row.get("loss") for row in whole["stages"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: classification\nstages:\n  - prune: {sparsity: 1.2}\n", "line 3.*less than 1"),
        (
            "task: classification\nstages:\n  - prune:\n      sparsity: 0.5\n      color: red\n",
            "line 5.*allowed here: .*sparsity",
        ),
        ("task: classification\nstages:\n  - bake: {}\n", "line 3.*finetune"),
        ("task: painting\nstages: [evaluate]\n", "line 1.*classification"),
        ("task: classification\nstages: []\n", "line 2"),
        ("task: classification\nstages:\n  - prune: {sparsity: 0.5\n", "no YAML"),
        ("task: classification\nstages:\n  - prune\n", "give sparsity"),
        ("task: language\nstages:\n  - prune: {mask_structure: 1:4}\n", "line 3.*put it in quotes: '1:4'"),
        ('task: language\nstages:\n  - prune: {mask_structure: "2:4", spread: 0.2}\n', "line 3.*sparsity is free"),
        ("task: language\nstages:\n  - prune: {sparsity: 0.5, sparsities: {a: 0.5}}\n", "line 3.*leave out sparsity"),
        ("task: language\nstages:\n  - prune:\n      sparsities: {a: 1.5}\n", "line 4.*sparsities.a.*less than 1"),
        ('task: language\nstages:\n  - prune: {sparsities: {a: 0.5}, mask_structure: "1:4"}\n', "a: .*means sparsity"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(textwrap.dedent(text))
    with pytest.raises(ValueError, match=message):
        read_recipe(path)


def test_wrong_data_and_models_are_refused(tmp_path, classifier, reviews):
    recipe = recipe_of("classification", "evaluate")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        compress(classifier, recipe, tmp_path / "none.jsonl", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no model folder"):
        compress(tmp_path, recipe, reviews, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="the model .*none does not exist"):
        compress(tmp_path / "none", recipe, reviews, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="the recipe .*none.yaml does not exist"):
        compress(classifier, tmp_path / "none.yaml", reviews, tmp_path / "out")
    empty = tmp_path / "empty.csv"
    empty.write_text("text,label\n")
    with pytest.raises(ValueError, match="no rows"):
        compress(classifier, recipe, empty, tmp_path / "out")
    with pytest.raises(ValueError, match="no column 'body', only text, label"):
        compress(classifier, recipe_of("classification", "evaluate", text="body"), reviews, tmp_path / "out")
    (tmp_path / "texts.toml").write_text("")
    with pytest.raises(ValueError, match="must end in"):
        read_rows(tmp_path / "texts.toml", "text")
    assert not (tmp_path / "out" / "report.json").exists()


def test_stages_that_cannot_work_are_refused_before_training(tmp_path, classifier, reviews):
    def refused(message, *stages, error=ValueError, task="classification", model=classifier):
        with pytest.raises(error, match=message):
            compress(model, recipe_of(task, *stages), reviews, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    train = {"finetune": {"epochs": 1}}
    refused("stage 2, distill: it needs a teacher", train, "distill")
    refused("stage 2, drop_layers: the model has 4 layers", train, {"drop_layers": {"layers": 5}})
    refused("the model nowhere does not exist", train, {"distill": {"teacher": "nowhere"}}, error=FileNotFoundError)
    other = tiny(tmp_path / "other", "classification")
    tokenizer = transformers.AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["unheard"])
    tokenizer.save_pretrained(other)
    refused("another vocabulary", train, {"distill": {"teacher": str(other)}})
    refused("similarity_weight is of embeddings", {"prune": {"sparsity": 0.5}}, {"distill": {"similarity_weight": 1}})
    encoder = tiny(tmp_path / "encoder", "embedding")
    refused("no labels", train, task="embedding", model=encoder)
    for asks in ({"spread": 0.2}, {"criterion": "taylor"}):
        refused("needs a loss", {"prune": {"sparsity": 0.5, **asks}}, task="embedding", model=encoder)


def test_stages_train_with_the_defaults_of_the_loop():
    assert recipe_of("classification", "finetune").stages[0].settings.loop_settings(seed=3) == TrainSettings(seed=3)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ""])
def test_tables_of_every_kind_read_alike(tmp_path, reviews, suffix):
    import datasets

    table = datasets.load_dataset("json", data_files=str(reviews), split="train")
    path = tmp_path / f"table{suffix}"
    writers = {".jsonl": table.to_json, ".csv": table.to_csv, ".parquet": table.to_parquet, "": table.save_to_disk}
    writers[suffix](str(path))
    rows = read_rows(path, "text", label="label")
    assert rows == read_rows(reviews, "text", label="label")
    assert len(rows) == 48


def test_labels_keep_their_numbers():
    tables = [Rows(["a"] * 12, [], list(range(12))), Rows(["b"], [], [2])]
    names = class_names(tables, ["LABEL_0", "LABEL_1"], new_head=True)
    assert names == [str(i) for i in range(12)]
    assert numbered(tables[0], names).labels == list(range(12))
    known = ["neg", "neutral", "pos"]
    two = Rows(["a", "b", "c"], [], ["pos", "neg", None])
    assert class_names([two], known, new_head=False) == known  # one of the model's classes is not in the data
    assert numbered(two, known).labels == [2, 0, -100]
    assert numbered(Rows(["a"], [], [2]), known).labels == [2]
    with pytest.raises(ValueError, match="model's classes are neg, neutral, pos.*labels are bad, good.*finetune"):
        class_names([Rows(["a", "b"], [], ["good", "bad"])], known, new_head=False)
    with pytest.raises(ValueError, match="two labels"):
        class_names([Rows(["a"], [], ["good"])], known, new_head=True)


def test_a_model_without_a_head_is_not_scored(tmp_path, reviews):
    encoder = tiny(tmp_path / "encoder", "embedding")
    with pytest.raises(ValueError, match="has no classifier.*begin with a finetune"):
        evaluate(encoder, reviews, "classification")


def test_texts_without_labels_count_for_no_score(tmp_path, classifier, reviews):
    half = tmp_path / "half.jsonl"
    rows = [json.loads(line) for line in reviews.read_text().splitlines()]
    half.write_text(
        "".join(json.dumps(row | {"label": row["label"] if i % 3 else None}) + "\n" for i, row in enumerate(rows))
    )
    stages = ({"finetune": {"epochs": 1}}, {"prune": {"sparsity": 0.3, "criterion": "taylor", "spread": 0.1}})
    report = compress(classifier, recipe_of("classification", *stages), half, tmp_path / "out")
    only = tmp_path / "only.jsonl"
    only.write_text("".join(json.dumps(row) + "\n" for i, row in enumerate(rows) if i % 3))
    model = tmp_path / "out"
    assert evaluate(model, half, "classification") == evaluate(model, only, "classification")
    assert report["stages"][1]["sparsity"] == pytest.approx(0.3, abs=0.02)


def test_a_folder_of_another_run_is_refused(tmp_path, classifier, reviews):
    compress(classifier, recipe_of("classification", {"prune": {"sparsity": 0.5}}), reviews, tmp_path / "out")
    with pytest.raises(ValueError, match="run with another recipe"):
        compress(classifier, recipe_of("classification", {"prune": {"sparsity": 0.6}}), reviews, tmp_path / "out")
    more = write_reviews(tmp_path / "more.jsonl", 50)
    with pytest.raises(ValueError, match="run with another data"):
        compress(classifier, recipe_of("classification", {"prune": {"sparsity": 0.5}}), more, tmp_path / "out")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"distill": {"soft_weight": 0, "hidden_weight": 0}}, "nothing to follow"),
        ({"distill": {"patience": 2}}, "evaluate_every"),
        ({"distill": {"gradual": {"sparsity": 0.5, "start": 0.8, "end": 0.2}}}, "must end after its start"),
        ({"distill": {"gradual": {"sparsity": 0.5, "mask_structure": "2:4"}}}, "cannot rise"),
        ({"prune": {"sparsity": 0.5, "scope": "global"}}, "leave out scope"),
        ({"prune": {"sparsity": 0.5, "mask_structure": "4*1"}}, "mask_structure"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(stage, message):
    with pytest.raises(ValueError, match=message):
        recipe_of("classification", stage)


def test_embeddings_are_compared_with_similarities(tmp_path):
    folder = tiny(tmp_path / "encoder", "embedding")
    path = tmp_path / "pairs.jsonl"
    rows = [{"text": a, "pair": b, "label": float(a == b)} for a in WORDS[:4] for b in WORDS[:4]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert evaluate(folder, path, "embedding")["spearman"] == pytest.approx(1.0, abs=0.5)


def test_the_verbs_of_the_command_line(tmp_path, classifier, reviews):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("task: classification\nstages:\n  - prune: {sparsity: 0.5, samples: 8}\n")
    run = CliRunner()
    out = str(tmp_path / "out")
    told = run.invoke(app, ["compress", str(classifier), "--recipe", str(recipe), "--data", str(reviews), "--out", out])
    assert told.exit_code == 0, told.output
    assert "accuracy" in told.output
    pruned = str(tmp_path / "pruned")
    arguments = [
        "prune",
        str(classifier),
        "--out",
        pruned,
        "--data",
        str(reviews),
        "--mask-structure",
        "2:4",
        "--samples",
        "8",
    ]
    assert run.invoke(app, arguments).exit_code == 0
    taught = str(tmp_path / "taught")
    arguments = ["distill", pruned, "--out", taught, "--teacher", str(classifier), "--data", str(reviews)]
    assert run.invoke(app, arguments).exit_code == 0
    weight = transformers.AutoModelForSequenceClassification.from_pretrained(taught).bert.encoder.layer[0]
    assert float((weight.intermediate.dense.weight == 0).float().mean()) == 0.5
    told = run.invoke(app, ["evaluate", taught, "--data", str(reviews)])
    assert told.exit_code == 0
    assert "accuracy 0." in told.output


def test_batches_hold_every_text_once_and_windows_every_token():
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True)
    rows = Rows([" ".join(WORDS[: 1 + i % 9]) for i in range(21)], [], list(range(21)))
    batches = padded(tokenizer, rows, 4, 16)
    assert sorted(torch.cat([batch["labels"] for batch in batches]).tolist()) == list(range(21))
    lengths = [int(batch["attention_mask"].sum(1).max()) for batch in batches]
    assert lengths == sorted(lengths)
    found = TASKS["language"].batches(tokenizer, rows, 2, 8)
    assert all(batch["input_ids"].shape[1] == 8 for batch in found)
    assert torch.equal(found[0]["labels"][:, :-1], found[0]["input_ids"][:, 1:])
    assert (found[0]["labels"][:, -1] == -100).all()
    with pytest.raises(ValueError, match="fewer than one window"):
        windows(tokenizer, rows, 2, 100_000)
