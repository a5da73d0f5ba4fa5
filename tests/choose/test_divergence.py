"""Divergence from the dense model: against plain references, on tiny models of each task."""

import math

import pytest
import torch
import torch.nn.functional as F
import transformers

from sparsekit.choose.assignments.fitness import Divergence

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def model_of(task: str):
    torch.manual_seed(0)
    if task == "language":
        config = transformers.LlamaConfig(vocab_size=300, num_key_value_heads=2, **SIZES)
        return transformers.LlamaForCausalLM(config)
    config = transformers.BertConfig(vocab_size=300, num_labels=3, **SIZES)
    kinds = {"classification": transformers.BertForSequenceClassification, "embedding": transformers.BertModel}
    return kinds[task](config)


def batches() -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    found = []
    for texts in (4, 4, 2):
        mask = torch.ones(texts, 7, dtype=torch.int64)
        mask[0, 5:] = 0
        ids = torch.randint(0, 300, (texts, 7))
        found.append({"input_ids": ids, "attention_mask": mask, "labels": torch.zeros(texts, dtype=torch.int64)})
    return found


@torch.no_grad()
def outputs(task: str, model) -> list[torch.Tensor]:
    """Log-probabilities, or vectors, of every text or token."""
    model.eval()
    found = []
    for batch in batches():
        mask = batch["attention_mask"]
        output = model(input_ids=batch["input_ids"], attention_mask=mask)
        if task == "embedding":
            weights = mask[..., None].double()
            found.append((output.last_hidden_state.double() * weights).sum(1) / weights.sum(1))
        else:
            logits = output.logits if task == "classification" else output.logits[mask.bool()]
            found.append(logits.double().log_softmax(-1))
    return found


def reference(task: str, dense: list[torch.Tensor], found: list[torch.Tensor], chosen: list[int]) -> float:
    one, other = (torch.cat([part[number] for number in chosen]) for part in (dense, found))
    if task == "embedding":
        return (1 - F.cosine_similarity(one, other)).mean().item()
    return (one.exp() * (one - other)).sum(1).mean().item()


def disturb(model, size: float) -> None:
    torch.manual_seed(2)
    for parameter in model.parameters():
        parameter.data += size * torch.randn_like(parameter)


@pytest.mark.parametrize("task", ["classification", "embedding", "language"])
def test_it_is_that_of_the_reference(task):
    model = model_of(task).train()
    divergence = Divergence(model, task, batches(), top_k=300)
    dense = outputs(task, model)
    model.train()
    assert len(divergence) == 3
    assert divergence() == 0.0
    assert model.training
    disturb(model, 0.05)
    found = outputs(task, model)
    for chosen in ([0, 1, 2], [1], [0, 2]):
        assert divergence(chosen) == pytest.approx(reference(task, dense, found, chosen), rel=1e-3)
    assert divergence() == divergence(range(3)) > 0


def test_few_classes_are_a_lower_bound_and_more_come_closer():
    model = model_of("language")
    kinds = [Divergence(model, "language", batches(), top_k=top_k) for top_k in (1, 8, 64, 300)]
    assert all(one() == 0.0 for one in kinds)
    disturb(model, 0.05)
    found = [one() for one in kinds]
    assert 0 < found[0] < found[1] < found[2] < found[3]


def test_outputs_that_are_not_finite_are_infinitely_far():
    model = model_of("classification")
    divergence = Divergence(model, "classification", batches())
    model.classifier.bias.data[0] = math.nan
    assert divergence() == math.inf
    with pytest.raises(ValueError, match="outputs hold NaN or inf"):
        Divergence(model, "classification", batches())


def test_dense_outputs_are_computed_once(monkeypatch):
    model = model_of("embedding")
    divergence = Divergence(model, "embedding", batches())
    calls = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs))
    divergence([0, 1])
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "vision"}, "task must be one of classification, embedding, language, got 'vision'"),
        ({"batches": []}, "compared on batches, got none"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Divergence(model_of("embedding"), **{"task": "embedding", "batches": batches(), **arguments})


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        Divergence(model_of("embedding"), "embedding", batches())([])
