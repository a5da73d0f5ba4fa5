"""Inside the trainers of transformers and sentence-transformers: schedules, masks, teachers."""

import json

import pytest
import torch

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from sparsekit import finalize  # noqa: E402
from sparsekit.bench.minilm import minilm_folder  # noqa: E402
from sparsekit.distillation import Distillation, SoftTargets, SquareHead  # noqa: E402
from sparsekit.pruning import Schedule  # noqa: E402
from sparsekit.training import GradualPruning  # noqa: E402
from sparsekit.training.trainers import DistillationTrainer, FollowEmbeddings, PruningCallback  # noqa: E402


def tiny_bert(seed):
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=2,
        output_hidden_states=True,
    )
    return transformers.BertForSequenceClassification(config)


def rows(count=32):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 100, (count, 6), generator=generator)
    return [{"input_ids": i, "attention_mask": torch.ones_like(i), "labels": i[0] % 2} for i in ids]


def arguments(folder, **changes):
    settings = {"max_steps": 12, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "report_to": []}
    return transformers.TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        logging_steps=4,
        save_strategy="no",
        disable_tqdm=True,
        **settings | changes,
    )


def test_a_trainer_prunes_by_schedule_and_follows_the_teacher(tmp_path):
    student, teacher = tiny_bert(0), tiny_bert(1)
    before = [parameter.clone() for parameter in teacher.parameters()]
    pruning = GradualPruning(student, Schedule(0.6, end=8, frequency=4), ignore=["classifier", "bert.pooler"])
    trainer = DistillationTrainer(
        student,
        arguments(tmp_path),
        train_dataset=rows(),
        callbacks=[PruningCallback(pruning)],
        teacher=teacher,
        objective=Distillation({"logits": SoftTargets(alpha=0.2), "hidden_states": SquareHead()}),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    assert trainer.state.log_history[-2]["sparsity"] == pytest.approx(0.6, abs=0.01)
    assert all(torch.equal(old, new) for old, new in zip(before, teacher.parameters(), strict=True))
    assert not teacher.training
    finalize(student)
    weight = student.bert.encoder.layer[0].intermediate.dense.weight
    assert (weight == 0).float().mean() == pytest.approx(0.6, abs=0.01)


def test_sentence_transformers_follow_their_teacher(tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    datasets = pytest.importorskip("datasets")

    student = sentence_transformers.SentenceTransformer(str(minilm_folder()), device="cpu")
    teacher = sentence_transformers.SentenceTransformer(str(minilm_folder()), device="cpu")
    pruning = GradualPruning(student, Schedule(0.5, rise="one_shot"), targets=["re:.*encoder.*"])
    texts = datasets.Dataset.from_dict({"text": ["a fine film", "a poor plot", "great actors", "so boring"]})
    settings = sentence_transformers.SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = sentence_transformers.SentenceTransformerTrainer(
        student,
        settings,
        train_dataset=texts,
        loss=FollowEmbeddings(student, teacher, similarity_weight=0.3),
        callbacks=[PruningCallback(pruning)],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0], json.dumps(losses)
    finalize(student)
    layer = student[0].auto_model.encoder.layer[0].intermediate.dense
    assert (layer.weight == 0).float().mean() == pytest.approx(0.5, abs=0.01)
