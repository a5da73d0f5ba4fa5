"""Costs of layers by measured divergence, and the whole way from solutions to a searched assignment on a tiny model."""

import math

import pytest
import torch
import transformers

from sparsekit.choose.assignments.dynamic_programming import assign_levels
from sparsekit.choose.assignments.evolution import evolve
from sparsekit.choose.assignments.fitness import Divergence
from sparsekit.choose.assignments.levels import SPARSITIES
from sparsekit.choose.assignments.sensitivity import measured_costs
from sparsekit.choose.solutions.finding import find_solutions
from sparsekit.choose.solutions.stitched import Stitched

ERRORS = {"a": (0.0, 0.1, 0.2), "b": (0.0, 0.5, 0.9), "c": (0.0, 0.0, 0.0)}


def test_costs_are_errors_scaled_to_the_divergence_of_each_layer_alone():
    asked = []

    def judge(assignment, batches) -> float:
        asked.append((assignment, batches))
        return sum({"a": 10.0, "b": 2.0, "c": 1.0}[name] * ERRORS[name][level] for name, level in assignment.items())

    costs = measured_costs(ERRORS, judge, [1, 3], level=2)
    wanted = {"a": (0.0, 1.0, 2.0), "b": (0.0, 1.0, 1.8), "c": (0.0, 0.0, 0.0)}
    assert costs == {name: pytest.approx(values) for name, values in wanted.items()}
    assert asked == [({"a": 0, "b": 0, "c": 0} | {name: 2}, [1, 3]) for name in "abc"]


def test_layers_that_break_the_model_stay_dense():
    costs = measured_costs(ERRORS, lambda one, _: math.inf if one["b"] else 1.0, [0], level=1)
    assert costs["b"] == (0.0, math.inf, math.inf)
    assert assign_levels(costs, dict.fromkeys(costs, (3.0, 2.0, 1.0)), 5.0)["b"] == 0


@pytest.mark.parametrize("level", [0, 3])
def test_bad_levels(level):
    with pytest.raises(ValueError, match=f"a level from 1 to 2, got {level}"):
        measured_costs(ERRORS, lambda *_: 1.0, [0], level=level)


def test_the_whole_way_on_a_tiny_model(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=100, **sizes)).eval()
    model.classifier.weight.data *= 50  # so that classes differ
    mask = torch.ones(4, 9, dtype=torch.int64)
    batches = [{"input_ids": torch.randint(0, 100, (4, 9)), "attention_mask": mask} for _ in range(6)]
    solutions = find_solutions(model, tmp_path, batches)
    assert len(solutions.shapes) == 18
    assert all(name.startswith("bert.encoder.layer.") for name in solutions.shapes)
    seconds = {
        name: [rows * columns * (1.1 - sparsity) for sparsity in SPARSITIES]
        for name, (rows, columns) in solutions.shapes.items()
    }
    budget = sum(times[3] for times in seconds.values())
    divergence = Divergence(model, "classification", batches)

    def taken(assignment) -> float:
        return sum(seconds[name][level] for name, level in assignment.items())

    with Stitched(model, solutions) as candidate:

        def judge(assignment, chosen) -> float:
            candidate.put(assignment)
            return divergence(chosen)

        start = assign_levels(measured_costs(solutions.errors(), judge, range(2)), seconds, budget)
        best = evolve(start, taken, budget, judge, len(divergence), generations=8, offspring=6)
        assert taken(start) <= budget
        assert taken(best.assignment) <= budget
        assert best.start == judge(start, range(6))
        assert best.divergence == judge(best.assignment, range(6)) < best.start
    assert divergence() == 0.0
