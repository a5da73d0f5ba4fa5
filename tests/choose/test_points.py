"""Which points nothing beats, and which one is recommended."""

import pytest

from sparsekit.choose.points import Point, frontier, loss, meets, recommended, speedup
from sparsekit.choose.targets import Targets


def point(name, quality, ms, disk=10):
    return Point(name, "sparsekit-engine", quality, None, ms, 1000 / ms, False, disk, None)


DENSE = point("dense", 0.80, 10.0, disk=90)
POINTS = [
    DENSE,
    point("slow and worse", 0.78, 11.0),
    point("fast", 0.796, 4.0, disk=30),
    point("faster", 0.77, 2.0, disk=12),
    point("as fast as fast, but worse", 0.79, 4.0),
    point("without a score", None, 1.0),
]


def named(name):
    return next(one for one in POINTS if one.name == name)


def test_speed_up_is_the_geometric_mean_of_one_text_and_batches():
    other = Point("other", "engine", 0.8, None, 5.0, 800.0, False, 1, None)
    assert speedup(other, DENSE) == pytest.approx((2.0 * 8.0) ** 0.5)
    assert speedup(DENSE, DENSE) == pytest.approx(1.0)


def test_loss_is_the_part_of_the_dense_score():
    assert loss(named("fast"), DENSE) == pytest.approx(0.005)
    assert loss(named("without a score"), DENSE) is None


def test_the_frontier_has_what_nothing_beats():
    assert [one.name for one in frontier(POINTS, DENSE)] == ["dense", "fast", "faster"]


@pytest.mark.parametrize(
    ("targets", "name", "met"),
    [
        (Targets(), "fast", True),
        (Targets(loss=0.05), "faster", True),
        (Targets(loss=0.001), "dense", True),
        (Targets(loss=0.05, bytes=20), "faster", True),
        (Targets(loss=0.05, speedup=4.9), "faster", True),
        (Targets(loss=0.01, speedup=4.9), "faster", False),
        (Targets(loss=0.01, bytes=31), "fast", True),
        (Targets(loss=0.01, latency_ms=3.9), "fast", False),
    ],
)
def test_the_fastest_that_meets_the_targets_is_recommended_or_the_nearest(targets, name, met):
    chosen, meets_them = recommended(POINTS, DENSE, targets)
    assert (chosen.name, meets_them) == (name, met)
    assert meets(chosen, DENSE, targets) is met


def test_without_scores_nothing_is_recommended():
    with pytest.raises(ValueError, match="no point has a score"):
        recommended([named("without a score")], DENSE, Targets())


@pytest.mark.parametrize("wrong", [{"loss": -0.1}, {"loss": 1.1}, {"speedup": 0.0}, {"latency_ms": -1}, {"bytes": 0}])
def test_targets_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        Targets(**wrong)
