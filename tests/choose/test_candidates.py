"""Recipes of candidates, and which of many are tried."""

import time

import pytest

pytest.importorskip("pydantic")

from sparsekit.choose.assignments.levels import FORMS, Form
from sparsekit.choose.candidates import dense_int8, shallow, spaced, sparse
from sparsekit.choose.clock import Clock


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("task", ["classification", "embedding"])
def test_a_sparse_candidate_is_a_recipe_of_its_levels(form, task):
    candidate = sparse({"a.query": 0, "a.output": 6}, form, 3.14)
    data = {"pair": "pair"} if task == "embedding" else {}
    recipe = candidate.recipe(task, data, 1.5, 7)
    prune, distill, convert = (stage.settings for stage in recipe.stages)
    assert candidate.name == f"{form}, 3.14x"
    assert prune.sparsities == {"a.query": 0.0, "a.output": 0.9}
    assert (prune.mask_structure, convert.dtype, convert.embeddings) == (form.mask_structure, form.dtype, form.dtype)
    assert (distill.epochs, recipe.seed, recipe.data.pair) == (1.5, 7, data.get("pair"))


def test_without_epochs_nothing_is_distilled():
    assert [stage.name for stage in dense_int8().recipe("classification", {}, 0, 0).stages] == ["convert"]
    stages = shallow(3).recipe("classification", {}, 2, 0).stages
    assert [stage.name for stage in stages] == ["drop_layers", "distill", "convert"]


@pytest.mark.parametrize(
    ("count", "numbers"), [(0, []), (1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (20, list(range(10)))]
)
def test_candidates_are_spaced(count, numbers):
    made = [sparse({"layer": 1}, Form("int8", "4x1"), float(number)) for number in range(10)]
    assert [made.index(one) for one in spaced(made, count)] == numbers


def test_a_clock_divides_what_is_left():
    clock = Clock(10)
    assert 599 < clock.left <= 600
    assert clock.spent < 1
    assert 299 < clock.deadline(0.5) - time.monotonic() <= 300
    with pytest.raises(ValueError, match="above 0"):
        Clock(0)
