"""How time is shared between candidates, and which one learns for longer."""

import pytest

pytest.importorskip("datasets")

from pathlib import Path

from sparsekit.choose.assignments.levels import Form
from sparsekit.choose.candidates import Candidate
from sparsekit.choose.finishing import Made, epochs_in, main_score, plan, worth_more


def made(predicted, quality):
    return Made(Candidate(f"{predicted}", Form("int8", "4x1"), (), predicted), Path("folder"), quality)


@pytest.mark.parametrize(
    ("seconds", "epoch", "candidates", "count", "epochs"),
    [
        (600, 60, 20, 8, 0.5),  # 45 s beside training and half an epoch each
        (600, 60, 2, 2, 4.25),
        (10_000, 10, 3, 3, 5.0),
        (0, 60, 5, 1, 0.5),
        (-100, 60, 5, 1, 0.5),
    ],
)
def test_time_is_shared_between_as_many_candidates_as_fit(seconds, epoch, candidates, count, epochs):
    planned = plan(seconds, epoch, candidates)
    assert (planned.count, planned.epochs) == (count, epochs)
    if seconds > 100:
        assert planned.count * (45 + planned.epochs * epoch) <= seconds * 1.01


def test_one_candidate_learns_for_what_is_left():
    assert epochs_in(345, 100) == 3.0
    assert epochs_in(30, 100) == 0.0
    assert epochs_in(1e6, 100) == 15.0


def test_the_fastest_that_lost_little_learns_for_longer():
    dense = made(None, 0.80)
    near, fast, lost = made(2.0, 0.795), made(4.0, 0.786), made(8.0, 0.70)
    assert worth_more([dense, near, fast, lost], dense, 0.01) is fast
    assert worth_more([dense, near, fast, lost], dense, 0.001) is near
    assert worth_more([dense, lost], dense, 0.01) is lost
    assert worth_more([dense, made(3.0, None)], dense, 0.01) is None


def test_the_main_score_is_the_first():
    assert main_score({"intervals": {}, "accuracy": 0.5, "f1": 0.4}) == 0.5
    assert main_score({"intervals": {}}) is None
