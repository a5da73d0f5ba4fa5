"""The training loop: what it minimizes, resuming bit for bit, early stopping, masks."""

import json
import time

import pytest
import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparsekit.pruning import Schedule, apply_movement, prune
from sparsekit.training import GradualMovement, GradualPruning, Penalized, TrainSettings, checkpoint, train
from sparsekit.training.order import shuffled, stream


def make_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def make_batches(count=12):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 8, 6, generator=generator)
    return [(x, x[:, :3].argmax(1)) for x in inputs]


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_one_step_is_adamw_on_the_clipped_mean_gradient():
    model, reference = make_model(), make_model()
    model.eval(), reference.eval()
    batches = make_batches(2)
    settings = TrainSettings(epochs=1, learning_rate=0.01, warmup=0.0, accumulate=2, max_gradient_norm=0.05)
    train(model, batches, loss_of, settings)
    groups = [[p for p in reference.parameters() if p.dim() == 2], [p for p in reference.parameters() if p.dim() == 1]]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.01}, {"params": groups[1], "weight_decay": 0.0}], lr=0.01
    )
    (sum(loss_of(reference, batch) for batch in batches) / 2).backward()
    nn.utils.clip_grad_norm_(reference.parameters(), 0.05)
    optimizer.step()
    torch.testing.assert_close(state(model), state(reference))


def test_a_run_that_was_stopped_resumes_bit_for_bit(tmp_path):
    settings = TrainSettings(epochs=3, learning_rate=0.01, checkpoint_minutes=0)
    whole = make_model().train()
    report = train(whole, make_batches(), loss_of, settings, evaluate=lambda model: 1.0)

    class StopError(Exception):
        pass

    def stop_at(step):
        if step == 20:
            raise StopError

    path = tmp_path / "run.safetensors"
    with pytest.raises(StopError):
        train(make_model().train(), make_batches(), loss_of, settings, before_step=stop_at, checkpoint=path)
    resumed = make_model(seed=5).train()  # other weights: all come from the checkpoint
    again = train(resumed, make_batches(), loss_of, settings, checkpoint=path, evaluate=lambda model: 1.0)
    assert same(state(whole), state(resumed))
    assert again.losses == report.losses
    assert again.scores == report.scores


def test_resuming_with_a_loader_gives_the_same_batches():
    generator_free = DataLoader(TensorDataset(torch.arange(10)), batch_size=3, shuffle=True)
    whole = [batch[0].tolist() for batch, _ in zip(stream(generator_free, 7), range(12), strict=False)]
    rest = [batch[0].tolist() for batch, _ in zip(stream(generator_free, 7, first=6), range(6), strict=False)]
    assert whole[6:] == rest
    assert sorted(number for batch in whole[:4] for number in batch) == list(range(10))
    assert whole[:4] != whole[4:8]


def test_every_epoch_has_an_order_of_its_own():
    assert sorted(shuffled(20, 0, 0)) == list(range(20))
    assert shuffled(20, 0, 0) != shuffled(20, 0, 1)
    assert shuffled(20, 0, 0) != shuffled(20, 1, 0)


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    settings = TrainSettings(epochs=1)
    train(make_model(), make_batches(), loss_of, settings, checkpoint=path)
    with pytest.raises(ValueError, match="other settings or data"):
        train(make_model(), make_batches(), loss_of, TrainSettings(epochs=2), checkpoint=path)
    with pytest.raises(ValueError, match="another model"):
        train(nn.Sequential(nn.Linear(6, 3)), make_batches(), loss_of, settings, checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="no checkpoint"):
        train(make_model(), make_batches(), loss_of, settings, checkpoint=path)


def test_masks_stay_and_are_resumed(tmp_path):
    model = make_model()
    prune(model, 0.5)
    pruned = model[0].weight == 0
    path = tmp_path / "run.safetensors"
    settings = TrainSettings(epochs=1, learning_rate=0.05)
    train(model, make_batches(), loss_of, settings, checkpoint=path)
    assert torch.equal(model[0].weight == 0, pruned)
    fresh = make_model(seed=3)  # without masks: the checkpoint brings them
    train(fresh, make_batches(), loss_of, settings, checkpoint=path)
    assert torch.equal(fresh[0].weight, model[0].weight)


def test_pruning_rises_while_training_and_is_logged(tmp_path):
    model = make_model()
    pruning = GradualPruning(model, Schedule(0.75, end=10, frequency=5))
    log = tmp_path / "log.jsonl"
    train(model, make_batches(), loss_of, TrainSettings(epochs=1), before_step=pruning, log=log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    sparsities = [line["sparsity"] for line in lines]
    assert sparsities == sorted(sparsities)
    assert sparsities[-1] == pytest.approx(0.75, abs=0.02)
    assert {"step", "loss", "learning_rate", "sparsity"} <= lines[0].keys()


def test_the_optimizer_forgets_pruned_weights():
    model = make_model()
    pruning = GradualPruning(model, Schedule(0.9, start=6, rise="one_shot"))
    originals = []

    def watched(step):
        changed = pruning(step)
        if changed:
            originals.append(model[0].parametrizations.weight.original.detach().clone())
        return changed

    settings = TrainSettings(epochs=1, learning_rate=0.1, weight_decay=0.0)
    train(model, make_batches(), loss_of, settings, before_step=watched)
    layer = model[0].parametrizations.weight
    gone = ~layer[0].mask
    assert torch.equal(layer.original[gone], originals[0][gone])  # no momentum moves what is gone
    assert not torch.equal(layer.original, originals[0])


def test_training_stops_early_with_the_best_weights(tmp_path):
    scores = iter([0.1, 0.9, 0.5, 0.4, 0.3])
    seen = []

    def evaluate(model):
        assert not model.training
        seen.append(state(model))
        return next(scores)

    model = make_model().train()
    settings = TrainSettings(epochs=10, evaluate_every=5, patience=2, checkpoint_minutes=0)
    path = tmp_path / "run.safetensors"
    report = train(model, make_batches(), loss_of, settings, evaluate=evaluate, checkpoint=path)
    assert report.stopped_early
    assert report.steps == 20
    assert report.best == 0.9
    assert same(state(model), seen[1])
    assert model.training
    again = make_model(seed=2)
    train(again, make_batches(), loss_of, settings, evaluate=evaluate, checkpoint=path)  # it is over: nothing is asked
    assert same(state(again), seen[1])


def test_scores_before_the_last_pruning_do_not_count():
    model = make_model()
    pruning = GradualPruning(model, Schedule(0.8, end=20, frequency=10))
    scores = iter([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    settings = TrainSettings(epochs=3, evaluate_every=5, patience=10)
    train(model, make_batches(), loss_of, settings, before_step=pruning, evaluate=lambda model: next(scores))
    assert float((model[0].weight == 0).float().mean()) == pytest.approx(0.8, abs=0.02)


def test_training_does_not_stop_early_before_the_last_pruning():
    model = make_model()
    pruning = GradualPruning(model, Schedule(0.8, end=20, frequency=20))
    settings = TrainSettings(epochs=3, evaluate_every=2, patience=2, patience_from=20)
    scores = iter(range(100, 0, -1))
    report = train(model, make_batches(), loss_of, settings, before_step=pruning, evaluate=lambda model: next(scores))
    assert float((model[0].weight == 0).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert report.stopped_early
    assert report.steps == 26  # the first score at the final sparsity is the best; two without gain follow


def test_parameters_have_learning_rates_of_their_own():
    model = make_model()
    for one in model.parameters():
        one.data.fill_(1.0)
    settings = TrainSettings(epochs=1, learning_rate=0.01, warmup=0.0, weight_decay=0.5)
    groups = [([model[3].weight], 0.1)]

    def loss(model, batch):
        return sum(parameter.sum() for parameter in model.parameters())

    train(model, make_batches(1), loss, settings, parameter_groups=groups)
    torch.testing.assert_close(model[3].weight, torch.full_like(model[3].weight, 0.9))  # Adam's first step is the rate
    torch.testing.assert_close(model[0].weight, torch.full_like(model[0].weight, 0.99 - 0.01 * 0.5))


@pytest.mark.parametrize("soft", [False, True])
def test_movement_pruning_while_training(tmp_path, soft):
    model, log = make_model(), tmp_path / "log.jsonl"
    movement = apply_movement(model, soft=soft, threshold=0.4)
    pruning = GradualMovement(movement, Schedule(0.5, end=20), penalty=1.0 if soft else None)
    groups = [(movement.score_parameters(), 0.3)]
    loss = Penalized(loss_of, pruning) if soft else loss_of
    train(model, make_batches(), loss, TrainSettings(epochs=3), before_step=pruning, parameter_groups=groups, log=log)
    sparsities = [json.loads(line)["sparsity"] for line in log.read_text().splitlines()]
    assert sparsities[0] == 0.0
    assert sparsities[-1] == pytest.approx(movement.sparsity(), abs=0.1)
    assert 0.3 < movement.sparsity() < 0.9
    assert any(scores.abs().sum() > 0 for scores in movement.score_parameters())


def test_submodules_stay_in_their_mode_and_old_gradients_do_not_count():
    model, reference = make_model().train(), make_model().train()
    for one in (model, reference):
        one[2].eval()
    loss_of(model, make_batches()[0]).backward()
    for one in (model, reference):
        train(one, make_batches(), loss_of, TrainSettings(epochs=1, evaluate_every=3), evaluate=lambda model: 0.0)
    assert model.training
    assert not model[2].training
    assert same(state(model), state(reference))


@pytest.mark.parametrize("stopped_at", [3, 8])
def test_a_resumed_run_has_one_log_and_begins_at_a_checkpoint_of_two_minutes(tmp_path, monkeypatch, stopped_at):
    path, log = tmp_path / "run.safetensors", tmp_path / "logs" / "log.jsonl"
    taken = []

    def step_of_half_a_minute(step):
        taken.append(step)
        if len(taken) == stopped_at + 1:
            with log.open("a") as file:
                file.write('{"step": ')  # as where a process was killed while it wrote
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "monotonic", lambda: 30.0 * len(taken))
    given = {"before_step": step_of_half_a_minute, "checkpoint": path, "log": log}
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), make_batches(), loss_of, TrainSettings(epochs=1), **given)
    assert path.exists() == (stopped_at == 8)
    train(make_model(), make_batches(), loss_of, TrainSettings(epochs=1), **given)
    assert taken[stopped_at + 1] == (8 if stopped_at == 8 else 0)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 13))


def test_a_checkpoint_that_cannot_be_written_is_said_and_the_one_before_stays(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    settings = TrainSettings(epochs=1, checkpoint_minutes=0)

    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    def fill_the_disk(step):
        if step == 5:
            monkeypatch.setattr(checkpoint, "save_file", full)

    with pytest.raises(OSError, match="run.safetensors cannot be written .*No space left.*is the disk full"):
        train(make_model(), make_batches(), loss_of, settings, before_step=fill_the_disk, checkpoint=path)
    assert checkpoint.read_progress(path)["report"]["steps"] == 5
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_file_that_is_no_log_is_not_replaced(tmp_path):
    log = tmp_path / "notes.txt"
    log.write_text("what I must not forget\n")
    with pytest.raises(ValueError, match="notes.txt is no log of train"):
        train(make_model(), make_batches(), loss_of, TrainSettings(epochs=1), log=log)
    assert log.read_text() == "what I must not forget\n"


def test_a_loss_with_parameters_is_trained_too():
    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(3, 2)

        def forward(self, model, batch):
            return self.project(model(batch[0])).square().mean()

    loss = Projected()
    before = loss.project.weight.detach().clone()
    train(make_model(), make_batches(), loss, TrainSettings(epochs=0.5))
    assert not torch.equal(before, loss.project.weight)


def test_bf16_computes_the_forward_pass_in_bf16():
    seen = []

    def loss(model, batch):
        output = model(batch[0])
        seen.append(output.dtype)
        return nn.functional.cross_entropy(output.float(), batch[1])

    model = make_model()
    train(model, make_batches(2), loss, TrainSettings(epochs=1, precision="bfloat16"))
    assert set(seen) == {torch.bfloat16}
    assert model[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"accumulate": 0}, "accumulate"),
        ({"precision": "fp8"}, "precision"),
        ({"patience": 2}, "evaluate_every"),
        ({"warmup": 1.5}, "warmup"),
        ({"epochs": float("inf")}, "epochs must be above 0 and finite"),
        ({"epochs": float("nan")}, "epochs"),
        ({"checkpoint_minutes": -1.0}, "checkpoint_minutes"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings(**arguments)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="no batches"):
        train(make_model(), [], loss_of)
    with pytest.raises(ValueError, match="nothing to train"):
        train(make_model().requires_grad_(False), make_batches(), loss_of)
    with pytest.raises(FloatingPointError, match="learning rate"):
        train(make_model(), make_batches(), lambda model, batch: loss_of(model, batch) * float("nan"))
