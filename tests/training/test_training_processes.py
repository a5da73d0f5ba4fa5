"""Two processes that train one model over gloo, whole or sharded: the result of one, and resumed bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_training import loss_of, make_batches, make_model, same
from torch import nn

pytest.importorskip("datasets")
pytest.importorskip("transformers")

from safetensors.torch import load_file
from tiny_runs import recipe_of, tiny, write_reviews

from sparsekit.pruning import Schedule, apply_movement, prune
from sparsekit.recipes import compress
from sparsekit.training import GradualMovement, GradualPruning, TrainSettings, train

_START = """
import sys
import torch
from pathlib import Path
sys.path[:0] = {paths!r}
from test_training import loss_of, make_batches, make_model
from sparsekit.pruning import Schedule
from sparsekit.training import GradualPruning, TrainSettings, join_group, train
from sparsekit.training.processes import process_count, process_number

join_group()
assert process_count() == 2
out = Path({out!r})


def store(model, name):
    torch.save(dict(model.state_dict()), out / f"{{name}}-{{process_number()}}.pt")


"""


def run_twice(out, script):
    """Run a script in two processes; it has `out` and `store(model, name)`."""
    path = out / "two.py"
    path.write_text(_START.format(paths=[str(folder) for folder in Path(__file__).parents[:2]], out=str(out)) + script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert found.returncode == 0, found.stderr[-3000:]


def stored(out, name):
    """State of a model in both processes, which must be the same."""
    first, second = (torch.load(out / f"{name}-{number}.pt", weights_only=True) for number in (0, 1))
    assert same(first, second)
    return first


_PRUNING = """
model = make_model().eval()
pruning = GradualPruning(model, Schedule(0.5, end=4, frequency=2))
settings = TrainSettings(epochs=2, learning_rate=0.01)
train(model, make_batches(), loss_of, settings, before_step=pruning)
store(model, "pruned")
"""


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path):
    run_twice(tmp_path, _PRUNING)
    model = make_model().eval()
    pruning = GradualPruning(model, Schedule(0.5, end=4, frequency=2))
    settings = TrainSettings(epochs=2, learning_rate=0.01, accumulate=2)
    train(model, make_batches(), loss_of, settings, before_step=pruning)
    torch.testing.assert_close(stored(tmp_path, "pruned"), dict(model.state_dict()), rtol=1e-5, atol=1e-6)


_DROPOUT = """
import time
import sparsekit.training.checkpoint as checkpoints

write = checkpoints.write_tensors


def write_slowly(*arguments):
    time.sleep(0.2)
    write(*arguments)


checkpoints.write_tensors = write_slowly


def stop(step):
    if step == 5:
        raise KeyboardInterrupt


settings = TrainSettings(epochs=2, learning_rate=0.01, checkpoint_minutes=0)
whole = make_model().train()
train(whole, make_batches(), loss_of, settings)
store(whole, "whole")
path = out / "run.safetensors"
try:
    train(make_model().train(), make_batches(), loss_of, settings, before_step=stop, checkpoint=path)
except KeyboardInterrupt:
    pass
resumed = make_model(seed=3).train()
train(resumed, make_batches(), loss_of, settings, checkpoint=path)
store(resumed, "resumed")
"""


@pytest.mark.slow
def test_two_processes_resume_bit_for_bit_with_dropout_of_their_own(tmp_path):
    run_twice(tmp_path, _DROPOUT)
    assert same(stored(tmp_path, "whole"), stored(tmp_path, "resumed"))
    settings = TrainSettings(epochs=2, learning_rate=0.01, checkpoint_minutes=0)
    with pytest.raises(ValueError, match="of a run of 2 processes, and this one has 1; start as many"):
        train(make_model(), make_batches(), loss_of, settings, checkpoint=tmp_path / "run.safetensors")


_APART = """
settings = TrainSettings(epochs=1, checkpoint_minutes=0)
paths = [out / "first.safetensors", out / "second.safetensors"]
train(make_model(), make_batches(), loss_of, settings, checkpoint=paths[0])
try:
    train(make_model(), make_batches(), loss_of, settings, checkpoint=paths[process_number()])
except ValueError as error:
    assert "would go on from steps 6, 0: have" in str(error), error
else:
    raise AssertionError("not refused")
"""


@pytest.mark.slow
def test_a_checkpoint_that_one_process_does_not_see_is_refused(tmp_path):
    run_twice(tmp_path, _APART)


class Blocks(nn.Module):
    """Blocks in a list, as transformers have them, between layers that are in none."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.1)) for _ in range(3))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def blocks(seed=0):
    torch.manual_seed(seed)
    return Blocks()


def accuracy(model):
    return float(sum((model(x).argmax(1) == y).sum() for x, y in make_batches()))


def gradual(model):
    prune(model.blocks, 0.3, targets=["1.0"])  # one layer has its mask already
    return GradualPruning(model, Schedule(0.5, start=2, end=8, frequency=2), scope="global", ignore=["head"])


def moving(model):
    movement = apply_movement(model, ignore=["head"])
    return GradualMovement(movement, Schedule(0.5, start=4, end=8))  # by then Adam has told scores apart


_SHARDED = """
from test_training_processes import accuracy, blocks, gradual, moving

settings = TrainSettings(epochs=2, learning_rate=0.02, shard=True, evaluate_every=3, patience=9, checkpoint_minutes=0)

model = blocks().eval()
pruning = gradual(model)
train(model, make_batches(), loss_of, settings, before_step=pruning, evaluate=accuracy)
store(model, "gradual")
model = blocks().eval()
pruning = moving(model)
groups = [(pruning.movement.score_parameters(), 0.3)]
train(model, make_batches(), loss_of, settings, before_step=pruning, evaluate=accuracy, parameter_groups=groups)
pruning.movement.finish()
store(model, "movement")
"""

_REFUSED = """
from sparsekit.pruning import apply_movement
from sparsekit.training import GradualMovement
from test_training_processes import blocks

wrong = {
    "must know": lambda model: lambda step: None,
    "not work on sharded": lambda model: GradualMovement(apply_movement(model, soft=True), Schedule(0.5, end=4), 1),
    "by magnitude alone": lambda model: GradualPruning(model, Schedule(0.5, end=4), [{}], criterion="wanda"),
}
for message, make in wrong.items():
    model = blocks()
    try:
        train(model, make_batches(), loss_of, TrainSettings(shard=True), before_step=make(model))
    except ValueError as error:
        assert message in str(error), error
    else:
        raise AssertionError(message)
"""


@pytest.mark.slow
def test_what_does_not_work_on_sharded_weights_is_refused(tmp_path):
    run_twice(tmp_path, _REFUSED)


_SHARDED_RESUMED = """
import sparsekit.training.run
from test_training_processes import accuracy, blocks, gradual

settings = TrainSettings(epochs=2, learning_rate=0.02, shard=True, evaluate_every=3, checkpoint_minutes=0)
whole = blocks().train()
train(whole, make_batches(), loss_of, settings, before_step=gradual(whole), evaluate=accuracy)
store(whole, "whole")
step = sparsekit.training.run.Run.step


def stopping(run, forward, share):
    if run.report.steps == 7:
        raise KeyboardInterrupt
    return step(run, forward, share)


path = out / "run.safetensors"
sparsekit.training.run.Run.step = stopping
model = blocks().train()
try:
    train(model, make_batches(), loss_of, settings, before_step=gradual(model), evaluate=accuracy, checkpoint=path)
except KeyboardInterrupt:
    sparsekit.training.run.Run.step = step
resumed = blocks(seed=3).train()
train(resumed, make_batches(), loss_of, settings, before_step=gradual(resumed), evaluate=accuracy, checkpoint=path)
store(resumed, "resumed")
"""


def one_process(make_pruning):
    model = blocks().eval()
    pruning = make_pruning(model)
    groups = [(pruning.movement.score_parameters(), 0.3)] if make_pruning is moving else []
    settings = TrainSettings(epochs=2, learning_rate=0.02, accumulate=2, evaluate_every=3, patience=9)
    train(
        model,
        make_batches(),
        loss_of,
        settings,
        before_step=pruning,
        evaluate=accuracy,
        parameter_groups=groups,
    )
    if make_pruning is moving:
        pruning.movement.finish()
    return dict(model.state_dict())


@pytest.mark.slow
def test_two_sharded_processes_give_the_result_of_one(tmp_path):
    run_twice(tmp_path, _SHARDED)
    for name, make_pruning in (("gradual", gradual), ("movement", moving)):
        found, wanted = stored(tmp_path, name), one_process(make_pruning)
        masks = [key for key in wanted if key.endswith("mask")]
        assert len(masks) == 4
        for key in masks:
            assert torch.equal(found[key], wanted[key]), key
            assert 0 < int(found[key].sum()) < found[key].numel()
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_sharded_processes_resume_bit_for_bit(tmp_path):
    run_twice(tmp_path, _SHARDED_RESUMED)
    assert same(stored(tmp_path, "whole"), stored(tmp_path, "resumed"))


_RECIPE = """
from sparsekit.recipes import compress
from test_training_processes import recipe

compress(out / "classifier", recipe(shard=True), out / "reviews.jsonl", out / "two")
"""


def recipe(**changes):
    distill = {"epochs": 3, "learning_rate": 1e-3, "gradual": {"sparsity": 0.6, "start": 0.2, "frequency": 1}}
    followed = {"attention_weight": 1.0, "hidden_loss": "hidden_states", "evaluate_every": 4}
    return recipe_of("classification", {"distill": distill | followed | changes}, batch_size=4)


@pytest.mark.slow
def test_a_recipe_gives_the_same_sharded_over_two_processes(tmp_path):
    write_reviews(tmp_path / "reviews.jsonl")
    tiny(tmp_path / "classifier", "classification")
    run_twice(tmp_path, _RECIPE)
    compress(tmp_path / "classifier", recipe(accumulate=2), tmp_path / "reviews.jsonl", tmp_path / "one")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name in [name for name in one if name.endswith("key.bias")]:
        del one[name], two[name]  # softmax does not see it: its gradient is rounding, which Adam makes as large as any
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)
    pruned = [name for name in one if ".layer." in name and one[name].dim() == 2]
    assert len(pruned) == 24
    for name in pruned:
        assert torch.equal(one[name] == 0, two[name] == 0), name
    for file in sorted((tmp_path / "one" / "work" / "1-distill-teacher").glob("*.safetensors")):
        other = tmp_path / "two" / "work" / "1-distill-teacher" / file.name
        assert file.read_bytes() == other.read_bytes()
    logs = [(tmp_path / name / "work" / "1-distill.jsonl").read_text().splitlines() for name in ("one", "two")]
    scores = [[json.loads(line)["score"] for line in log if "score" in line] for log in logs]
    assert scores[0] == scores[1]
