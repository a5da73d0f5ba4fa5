"""Which times are aimed at, and which proposals are worth training."""

import pytest

from sparsekit.choose.assignments.levels import SPARSITIES, Form
from sparsekit.choose.assignments.proposals import Proposal, aims_of, worth_training

FLOAT32, INT8 = Form("float32", "unstructured"), Form("int8", "4x1")


class Times:
    """Relative times of a model of two equal layers."""

    def __init__(self, rest, levels):
        self.rest, self.of_layers = rest, {"a": levels, "b": levels}

    def __call__(self, assignment):
        return self.rest + sum(self.of_layers[name][level] for name, level in assignment.items())


def test_aims_are_the_uniform_sparsities_that_gain_on_the_fastest_dense_form():
    float32 = Times(0.1, [0.45, 0.4, 0.35, 0.3, 0.2, 0.15, 0.1, 0.05])
    int8 = Times(0.1, [0.2, 0.2, 0.2, 0.2, 0.2, 0.15, 0.1, 0.05])  # below 85% zeros, dense is as fast
    aims = aims_of({FLOAT32: float32, INT8: int8})
    assert [(form, SPARSITIES[level]) for form, level in aims] == [
        (FLOAT32, 0.85),
        (INT8, 0.85),
        (FLOAT32, 0.9),
        (INT8, 0.9),
    ]


def test_without_a_gain_there_is_no_aim():
    assert aims_of({FLOAT32: Times(0.5, [0.1] * len(SPARSITIES))}) == []


def test_what_another_proposal_beats_is_not_trained():
    made = [Proposal(form, {"a": 1}, speedup, divergence) for form, speedup, divergence in (
        (FLOAT32, 2.0, 0.2), (INT8, 2.5, 0.15), (INT8, 4.0, 0.5), (FLOAT32, 3.0, 0.6), (INT8, 1.5, 0.05)
    )]  # fmt: skip
    assert [one.speedup for one in worth_training(made)] == [1.5, 2.5, 4.0]
    assert worth_training([]) == []
    assert worth_training(made[:1]) == made[:1]


@pytest.mark.parametrize("form", [FLOAT32, INT8])
def test_of_equal_proposals_one_is_trained(form):
    twice = [Proposal(form, {"a": 1}, 2.0, 0.1)] * 2
    assert worth_training(twice) == twice[:1]
