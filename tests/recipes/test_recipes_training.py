"""Stages that train: movement pruning, layer-wise distillation, early stopping, resuming."""

import json
from itertools import pairwise

import pytest
import torch

pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402
from tiny_runs import WORDS, recipe_of, tiny, write_reviews  # noqa: E402

from sparsekit.distillation import Teacher  # noqa: E402
from sparsekit.pruning.criteria.magnitude import score as magnitude  # noqa: E402
from sparsekit.recipes import compress, read_recipe  # noqa: E402
from sparsekit.recipes.data.splits import read_splits  # noqa: E402
from sparsekit.recipes.stages.distill import Distill  # noqa: E402
from sparsekit.recipes.tasks.named_outputs import NamedOutputs, eager_attention  # noqa: E402
from sparsekit.training.run import Run  # noqa: E402


def weights(out):
    return load_file(out / "model.safetensors")


def log_of(out, stage):
    return [json.loads(line) for line in (out / "work" / f"{stage}.jsonl").read_text().splitlines()]


def linears(state):
    return {name: tensor for name, tensor in state.items() if ".layer." in name and tensor.dim() == 2}


def run_in_two_parts(monkeypatch, recipe, model, data, out, steps, checkpoints=None):
    """Stop a run after so many steps of a stage, and go on; `checkpoints` gets what was on disk in between."""
    whole = Run.step

    class StopError(Exception):
        pass

    def stopping(run, forward, share):
        if run.report.steps == steps:
            raise StopError
        return whole(run, forward, share)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", stopping)
        with pytest.raises(StopError):
            compress(model, recipe, data, out)
    if checkpoints is not None:
        checkpoints += [load_file(path) for path in (out / "work").glob("*.safetensors")]
    return compress(model, recipe, data, out)


def same_files(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("cache", "dtype"), [(False, torch.bfloat16), (True, torch.float32)])
def test_answers_that_are_used_once_have_the_precision_of_the_stage(
    tmp_path, classifier, reviews, monkeypatch, cache, dtype
):
    asked = set()
    plain = Teacher.forward

    def watched(teacher, **inputs):
        answers = plain(teacher, **inputs)
        asked.add(answers["logits"].dtype)
        return answers

    monkeypatch.setattr(Teacher, "forward", watched)
    stage = {"distill": {"teacher": str(classifier), "precision": "bfloat16", "cache": cache, "hidden_weight": 0.0}}
    compress(classifier, recipe_of("classification", stage), reviews, tmp_path / "out")
    assert asked == {dtype}


@pytest.mark.parametrize("stage", ["finetune", "distill"])
def test_hard_movement_pruning_reaches_its_sparsity_in_every_layer(tmp_path, classifier, reviews, stage):
    movement = {"sparsity": 0.6, "end": 0.8, "learning_rate": 0.5}
    recipe = recipe_of("classification", {stage: {"epochs": 3, "learning_rate": 1e-3, "movement": movement}})
    report = compress(classifier, recipe, reviews, tmp_path / "out")
    pruned, before = linears(weights(tmp_path / "out")), linears(load_file(classifier / "model.safetensors"))
    assert len(pruned) == 24
    for name, weight in pruned.items():
        assert int((weight == 0).sum()) == round(0.6 * weight.numel()), name
    by_magnitude = [
        magnitude(weight).flatten().topk(int((pruned[name] == 0).sum()), largest=False).indices
        for name, weight in before.items()
    ]
    assert any((pruned[name].flatten()[gone] != 0).any() for name, gone in zip(before, by_magnitude, strict=True)), (
        "learned scores choose otherwise than magnitude"
    )
    sparsities = [line["sparsity"] for line in log_of(tmp_path / "out", f"1-{stage}")]
    assert sparsities == sorted(sparsities)
    assert sparsities[0] == 0.0
    assert report["stages"][0]["sparsity"] == pytest.approx(0.6, abs=1e-3)


def test_soft_movement_pruning_falls_under_its_penalty(tmp_path, classifier, reviews):
    def reached(penalty):
        movement = {"penalty": penalty, "threshold": 0.45, "learning_rate": 0.1, "end": 0.5}
        recipe = recipe_of("classification", {"finetune": {"epochs": 3, "movement": movement}})
        return compress(classifier, recipe, reviews, tmp_path / str(penalty))["stages"][0]["sparsity"]

    assert 0.0 < reached(0.01) < reached(100.0) <= 1.0


def test_movement_pruning_resumes_bit_for_bit(tmp_path, classifier, reviews, monkeypatch):
    movement = {"sparsity": 0.6, "learning_rate": 0.5}
    stage = {"finetune": {"epochs": 2, "checkpoint_minutes": 0, "movement": movement}}
    recipe = recipe_of("classification", stage, {"distill": {"teacher": str(classifier), "epochs": 1}})
    compress(classifier, recipe, reviews, tmp_path / "whole")
    run_in_two_parts(monkeypatch, recipe, classifier, reviews, tmp_path / "parts", steps=7)
    assert same_files(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    compress(classifier, recipe, reviews, tmp_path / "parts")  # all stages are over
    assert same_files(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_movement_pruning_of_a_pruned_model_is_refused(tmp_path, classifier, reviews):
    stages = [{"prune": {"sparsity": 0.5}}, {"distill": {"movement": {"sparsity": 0.8}}}]
    with pytest.raises(ValueError, match="stage 2, distill: movement pruning begins with all weights.*use gradual"):
        compress(classifier, recipe_of("classification", *stages), reviews, tmp_path / "out")
    short = {"finetune": {"epochs": 0.2, "movement": {"sparsity": 0.8}}}
    with pytest.raises(ValueError, match="stage 1, finetune: a cubic rise must end after its start, got 0 to 0"):
        compress(classifier, recipe_of("classification", short), reviews, tmp_path / "out")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(classifier)
    model.bert.encoder.layer[0].intermediate.dense.weight.data[:, ::2] = 0
    model.save_pretrained(classifier)
    with pytest.raises(ValueError, match="stage 1, finetune: movement pruning begins with all weights"):
        compress(
            classifier,
            recipe_of("classification", {"finetune": {"movement": {"sparsity": 0.8}}}),
            reviews,
            tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"movement": {}}, "give sparsity for hard movement pruning, or penalty for soft"),
        ({"movement": {"sparsity": 0.5, "penalty": 1.0}}, "give sparsity for hard"),
        ({"movement": {"sparsity": 0.5, "threshold": 0.2}}, "threshold is of soft"),
        ({"movement": {"sparsity": 0.5}, "gradual": {"sparsity": 0.5}}, "leave out one"),
        ({"movement": {"penalty": 1.0}, "patience": 2, "evaluate_every": 1}, "leave out patience"),
        ({"movement": {"penalty": 1.0}, "shard": True}, "leave out shard"),
        ({"layer_map": {"a": "b"}, "hidden_weight": 0}, "layer_map is of hidden states and attention maps"),
        ({"soft_weight": 0, "hidden_weight": 0, "attention_weight": 0}, "nothing to follow"),
        ({"soft_weight": 0, "similarity_weight": 1}, "similarity_weight is a part of the loss"),
        ({"hidden_loss": "cosine"}, "'square_head' or 'hidden_states'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Distill.model_validate(settings)


def test_an_unknown_setting_of_movement_is_refused_with_its_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "task: classification\nstages:\n  - finetune:\n      movement:\n        sparsity: 0.5\n        scope: row\n"
    )
    with pytest.raises(ValueError, match="line 6.*allowed here: start, end, rise, sparsity, penalty, threshold"):
        read_recipe(path)


@pytest.mark.parametrize("kind", ["classification", "language"])
def test_a_narrower_student_follows_layers_through_learned_projections(tmp_path, reviews, kind, monkeypatch):
    teacher = tiny(tmp_path / "teacher", kind, hidden_size=48, num_hidden_layers=6)
    student = tiny(tmp_path / "student", kind)
    stage = {
        "teacher": str(teacher),
        "epochs": 3,
        "learning_rate": 1e-3,
        "checkpoint_minutes": 0,
        "hidden_loss": "hidden_states",
        "attention_weight": 1.0,
        "soft_weight": 0.0,
    }
    recipe = recipe_of(kind, {"distill": stage}, max_tokens=8)
    whole = compress(student, recipe, reviews, tmp_path / "whole")
    losses = [line["loss"] for line in log_of(tmp_path / "whole", "1-distill")]
    assert losses[-1] < losses[0]
    checkpoints = []
    parts = run_in_two_parts(monkeypatch, recipe, student, reviews, tmp_path / "parts", 5, checkpoints)
    shapes = [
        list(tensor.shape) for name, tensor in checkpoints[0].items() if "projections" in name and "model." in name
    ]
    assert shapes == [[48, 32]] * 4
    assert parts["stages"][0]["loss"] == whole["stages"][0]["loss"]
    assert same_files(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_student_learns_where_its_teacher_looks(tmp_path, classifier, reviews):
    stage = {"attention_weight": 1.0, "hidden_weight": 0.0, "soft_weight": 0.0, "epochs": 12, "learning_rate": 3e-3}
    recipe = recipe_of("classification", {"prune": {"sparsity": 0.7, "criterion": "magnitude"}}, {"distill": stage})
    compress(classifier, recipe, reviews, tmp_path / "out")
    losses = [line["loss"] for line in log_of(tmp_path / "out", "2-distill")]
    assert losses[-1] < 0.5 * losses[0]


def test_layers_are_mapped_by_name(tmp_path, classifier, reviews):
    rules = {r"re:bert\.encoder\.layer\.([01])": r"bert.encoder.layer.\1"}
    stages = [{"drop_layers": {"layers": 2}}, {"distill": {"layer_map": rules, "epochs": 1, "soft_weight": 0.0}}]
    by_name = compress(classifier, recipe_of("classification", *stages), reviews, tmp_path / "named")
    del stages[1]["distill"]["layer_map"]
    evenly = compress(classifier, recipe_of("classification", *stages), reviews, tmp_path / "even")
    assert by_name["stages"][1]["loss"] != evenly["stages"][1]["loss"]
    stages[1]["distill"]["layer_map"] = {"bert.encoder.layer.3": "bert.encoder.layer.3"}
    with pytest.raises(ValueError, match="stage 2, distill: no rule of bert.encoder.layer.3 fits any of bert.enc"):
        compress(classifier, recipe_of("classification", *stages), reviews, tmp_path / "out")
    stages[1]["distill"]["layer_map"] = {"bert.encoder.layer.1": "bert.encoder.layer.9"}
    with pytest.raises(ValueError, match="is to follow 'bert.encoder.layer.9'; the teacher's are bert.encoder.layer.0"):
        compress(classifier, recipe_of("classification", *stages), reviews, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_teacher_of_another_width_is_refused_with_what_to_do(tmp_path, classifier, reviews):
    teacher = tiny(tmp_path / "teacher", "classification", hidden_size=48)
    stage = {"distill": {"teacher": str(teacher)}}
    with pytest.raises(ValueError, match="has 32 and the teacher .* has 48 features: set hidden_loss: hidden_states"):
        compress(classifier, recipe_of("classification", stage), reviews, tmp_path / "out")
    shallow = tiny(tmp_path / "shallow", "classification", num_hidden_layers=2)
    stage = {"distill": {"teacher": str(shallow), "attention_weight": 1.0}}
    with pytest.raises(ValueError, match=r"more layers \(4\) than the teacher .* \(2\); say with layer_map"):
        compress(classifier, recipe_of("classification", stage), reviews, tmp_path / "out")
    report = compress(
        classifier, recipe_of("classification", {"drop_layers": {"layers": 2}}, stage), reviews, tmp_path / "o"
    )
    assert report["stages"][1]["steps"] > 0


def test_fused_attention_is_put_back_after_its_maps_were_shown(classifier):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(classifier)
    assert model.config._attn_implementation == "sdpa"
    with eager_attention(model):
        maps = NamedOutputs(model, ["attentions"])(input_ids=torch.tensor([[1, 2, 3]]))["attentions"]
    assert [list(one.shape) for one in maps] == [[1, 4, 3, 3]] * 4
    assert model.config._attn_implementation == "sdpa"


def test_a_model_without_attention_maps_is_refused():
    config = transformers.MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2)
    model = transformers.MambaForCausalLM(config).eval()
    with pytest.raises(ValueError, match="MambaForCausalLM gives no attention maps.*attention_weight: 0"):
        NamedOutputs(model, ["attentions"])(input_ids=torch.tensor([[1, 2]]))


def test_the_validation_is_apart_from_the_test_and_from_what_is_learned(tmp_path, reviews):
    rows = [{"text": f"{a} {b} {i}", "label": "pos"} for i, (a, b) in enumerate(pairwise(WORDS))]
    reviews.write_text("".join(json.dumps(row) + "\n" for row in rows * 4))
    asks = recipe_of("classification", {"finetune": {"evaluate_every": 2}}, test_part=0.25, validation_part=0.5)
    splits = read_splits(asks, reviews, None, None)
    assert [len(part) for part in (splits.test, splits.validation, splits.train)] == [9, 14, 13]
    together = sorted(text for part in splits.all for text in part.texts)
    assert together == sorted(row["text"] for row in rows * 4)
    never = recipe_of("classification", "finetune", test_part=0.25, validation_part=0.5)
    plain = read_splits(never, reviews, None, None)
    assert plain.validation is None
    assert plain.test == splits.test
    other = write_reviews(tmp_path / "other.jsonl", 12)
    given = read_splits(asks, reviews, None, other)
    assert len(given.validation) == 12
    assert given.train == plain.train


def test_patience_looks_at_the_validation_and_the_report_at_the_test(tmp_path, classifier, reviews):
    def labeled(name, label):
        path = tmp_path / name
        texts = [json.loads(line)["text"] for line in reviews.read_text().splitlines()]
        path.write_text("".join(json.dumps({"text": text, "label": label(text)}) + "\n" for text in texts))
        return path

    def is_good(text):
        return "pos" if text.split()[0] in ("good", "fine", "great") else "neg"

    data = labeled("data.jsonl", is_good)
    test = labeled("wrong.jsonl", lambda text: "neg" if is_good(text) == "pos" else "pos")
    stage = {"finetune": {"epochs": 20, "learning_rate": 2e-3, "freeze": [], "evaluate_every": 3, "patience": 4}}
    report = compress(
        classifier, recipe_of("classification", stage), data, tmp_path / "out", test=test, validation=data
    )
    scores = [line["score"] for line in log_of(tmp_path / "out", "1-finetune") if "score" in line]
    assert max(scores) > 0.9
    assert report["scores"]["accuracy"] == pytest.approx(1.0 - max(scores)), "the best weights, on the test"


def test_scores_while_training_need_validation_data(tmp_path, classifier, reviews):
    recipe = recipe_of("classification", {"finetune": {"evaluate_every": 2}}, validation_part=0)
    with pytest.raises(ValueError, match="stage 1, finetune: evaluate_every needs validation data"):
        compress(classifier, recipe, reviews, tmp_path / "out")
