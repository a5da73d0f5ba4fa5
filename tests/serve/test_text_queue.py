"""The batching policy, on a clock of its own."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsekit.serve.work.text_queue import TextQueue


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def contents(batch):
    return [text.content for text in batch]


def test_a_batch_leaves_when_it_is_full(clock):
    queue = TextQueue(10, 5.0, clock)
    assert queue.seconds_to_next() == math.inf
    queue.put([("a", 4), ("b", 5)])
    assert queue.seconds_to_next() == 5.0
    queue.put([("c", 1)])
    assert queue.seconds_to_next() == 0.0
    assert sorted(contents(queue.take())) == ["a", "b", "c"]
    assert (queue.tokens, queue.seconds_to_next()) == (0, math.inf)


def test_a_batch_leaves_when_its_oldest_text_has_waited(clock):
    queue = TextQueue(100, 0.5, clock)
    queue.put([("a", 4)])
    clock.now += 0.375
    queue.put([("b", 4)])
    assert queue.seconds_to_next() == pytest.approx(0.125)
    clock.now += 0.25
    assert queue.seconds_to_next() == 0.0
    assert contents(queue.take()) == ["a", "b"]


def test_a_text_longer_than_a_batch_leaves_alone(clock):
    queue = TextQueue(10, 0.0, clock)
    queue.put([("short", 3)])
    queue.put([("long", 30)])
    queue.put([("other", 40)])
    assert [contents(queue.take()) for _ in range(4)] == [["short"], ["long"], ["other"], []]


def test_short_requests_overtake_the_rest_of_long_ones(clock):
    queue = TextQueue(100, 0.0, clock)
    queue.put([(f"bulk {number}", 100) for number in range(50)])
    clock.now += 0.01
    queue.put([("short", 5)])
    assert contents(queue.take()) == ["short"], "which is no further behind than its own tokens"
    assert contents(queue.take()) == ["bulk 0"]


def test_bulk_does_not_starve(clock):
    """Short texts fill every batch, one a step; the bulk request ends nevertheless."""
    queue = TextQueue(20, 0.0, clock)
    queue.put([(("bulk", number), 20) for number in range(10)])
    seen = []
    for step in range(1000):
        queue.put([(("short", step), 20)])
        seen += contents(queue.take())
        clock.now += 0.1
        if ("bulk", 9) in seen:
            break
    assert step < 50
    assert [number for kind, number in seen if kind == "bulk"] == list(range(10))


def test_dropped_texts_are_never_taken_and_no_longer_counted(clock):
    queue = TextQueue(10, 1.0, clock)
    gone = queue.put([("a", 6), ("b", 6)])
    clock.now += 0.5
    queue.put([("c", 2)])
    queue.drop(gone)
    queue.drop(gone)
    assert queue.tokens == 2
    assert queue.seconds_to_next() == 1.0
    taken = queue.take()
    queue.drop(taken)
    assert (contents(taken), queue.tokens) == (["c"], 0)


def test_dropped_texts_are_not_kept(clock):
    queue = TextQueue(10, 1.0, clock)
    queue.put([("kept", 1)])
    for _ in range(1000):
        queue.drop(queue.put([("dropped", 100)]))
    assert len(queue._by_place) == len(queue._by_arrival) < 100
    assert contents(queue.take()) == ["kept"]


def test_places_bound_a_batch(clock):
    queue = TextQueue(100, 0.0, clock)
    queue.put([(number, 1) for number in range(5)])
    assert contents(queue.take(2)) == [0, 1]
    assert contents(queue.take(0)) == []
    assert contents(queue.take()) == [2, 3, 4]


@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), max_size=12),
    st.integers(1, 40),
    st.randoms(use_true_random=False),
)
def test_every_text_leaves_once_and_batches_keep_the_budget(requests, budget, random):
    clock = Clock()
    queue = TextQueue(budget, 0.0, clock)
    queued = []
    for number, lengths in enumerate(requests):
        clock.now += random.random()
        queued += queue.put([((number, place), length) for place, length in enumerate(lengths)])
    dropped = [text for text in queued if random.random() < 0.2]
    queue.drop(dropped)
    batches = []
    while batch := queue.take():
        batches.append(batch)
        assert len(batch) == 1 or sum(text.tokens for text in batch) <= budget
    taken = [text.content for batch in batches for text in batch]
    assert sorted(taken) == sorted(text.content for text in queued if text not in dropped)
    assert queue.tokens == 0
