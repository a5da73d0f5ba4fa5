"""How convert treats noisy and implausible measurements, which are mocked; nothing is timed."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from sparsekit import SparseLinear
from sparsekit.conversion.measuring import gain
from sparsekit.conversion.measuring.gain import Gain, GainTable
from sparsekit.conversion.measuring.one_thread import compare_on_one_thread
from sparsekit.timing.comparing import Timing


def layer(sparsity: float, out_features: int = 40, in_features: int = 50) -> nn.Linear:
    torch.manual_seed(0)
    linear = nn.Linear(in_features, out_features)
    zeros = torch.randperm(linear.weight.numel())[: round(sparsity * linear.weight.numel())]
    linear.weight.data.view(-1)[zeros] = 0.0
    return linear


@pytest.fixture
def played(monkeypatch):
    """Mocked gains by layer name: each call of `measure` returns the next, and the last one from then on."""
    gains, calls = {}, Counter()

    def measure(dense, layers, tokens, *how):
        if compare_on_one_thread in how:
            return {layout: dict.fromkeys(tokens, Gain(2.5, noisy=True)) for layout in layers}
        calls[dense] += 1
        rest = gains[dense]
        found = rest.pop(0) if len(rest) > 1 else rest[0]
        return {layout: dict.fromkeys(tokens, found if isinstance(found, Gain) else Gain(found)) for layout in layers}

    monkeypatch.setattr(gain, "measure", measure)
    return gains, calls


def found(table: GainTable, dense: nn.Linear, dtype: str = "float32") -> Gain:
    """Of one token, in the preferred layout."""
    sparse = SparseLinear.from_linear(dense, dtype=dtype)
    return table.of(dense, sparse)[sparse.layout][1]


def test_clear_gains_are_measured_once_and_shared(played):
    gains, calls = played
    first, alike = layer(0.8), layer(0.81)
    gains[first] = [3.0]
    table = GainTable([1])
    table.survey([(first, "float32"), (alike, "float32")])
    assert found(table, alike) == Gain(3.0)
    assert calls == {first: 1}


def test_held_in_another_way_is_another_layer(played):
    gains, calls = played
    dense = layer(0.8)
    gains[dense] = [3.0]
    table = GainTable([1])
    table.survey([(dense, "float32"), (dense, "int8")])
    assert calls[dense] == 2
    blocks = layer(0.8)
    blocks.weight.data = layer(0.8, 10).weight.data.repeat_interleave(4, 0)
    assert SparseLinear.from_linear(blocks).block == "4x1"
    gains[blocks] = [4.0]
    assert found(table, blocks) == Gain(4.0)
    assert found(table, dense) == Gain(3.0)


@pytest.mark.parametrize(
    ("seen", "wanted", "calls"),
    [
        ([1.1, 1.12], Gain(1.12), 2),  # small, and so it is
        ([0.2, 3.0, 3.1], Gain(3.1), 3),  # a slow moment of the sparse layer
        ([40.0, 3.0, 3.1], Gain(3.1), 3),  # a slow moment of the dense one: more than a fifth of the products permits
        ([40.0, 41.0], Gain(41.0), 2),  # this dense kernel really is that slow
        ([Gain(3.0, noisy=True), 3.1], Gain(3.1), 2),
        ([0.2, 3.0, 5.6], Gain(2.5, noisy=True), 3),  # no two agree: one thread tells
        ([Gain(3.0, noisy=True), Gain(4.0, noisy=True), 3.9], Gain(2.5, noisy=True), 2),
        ([Gain(3.0, noisy=True), 4.0, Gain(3.8, noisy=True)], Gain(2.5, noisy=True), 3),
    ],
)
def test_doubtful_gains_are_measured_until_two_agree(played, seen, wanted, calls):
    gains, count = played
    dense = layer(0.8)
    gains[dense] = list(seen)
    table = GainTable([1])
    table.survey([(dense, "float32")])
    assert found(table, dense) == wanted
    assert count[dense] == calls


def test_where_no_two_agree_one_thread_tells(monkeypatch):
    """On a busy machine every call of several threads may take a time slice."""
    gains = [Gain(1900.0, noisy=True), Gain(2100.0, noisy=True)]

    def measure(dense, layers, tokens, *how):
        gain = Gain(0.8) if compare_on_one_thread in how else gains.pop(0)
        return {layout: {tokens[0]: gain} for layout in layers}

    monkeypatch.setattr(gain, "measure", measure)
    dense = layer(0.8)
    table = GainTable([1])
    table.survey([(dense, "float32")])
    assert found(table, dense) == Gain(0.8, noisy=True)
    assert gains == []


def test_one_thread_is_measured_by_the_time_it_worked(monkeypatch):
    """The wall's clock runs ten times as fast as the processor's: the machine does ten things."""
    now, threads, seen = [0.0], [4], set()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr("time.process_time", lambda: now[0])

    def work() -> None:
        seen.add(threads[-1])
        now[0] += 0.002

    timing = compare_on_one_thread({"a": work}, seconds=0.1, at_most=1.0)["a"]
    assert timing.median == pytest.approx(0.002)
    assert (seen, threads[-1]) == ({1}, 4)


def test_the_bound_knows_bytes_and_products(played):
    gains, calls = played
    dense = layer(0.5)
    sparse = SparseLinear.from_linear(dense, dtype="int8")
    gains[dense] = [7.5, 15.0]
    table = GainTable([1])
    table.survey([(dense, "int8")])
    assert found(table, dense, "int8") == Gain(7.5), (
        f"{sparse.nnz} products of 8 bits for {dense.weight.numel()} floats"
    )
    assert calls[dense] == 1
    gains[dense] = [5.0, 1.9]
    table = GainTable([1])
    table.survey([(dense, "float32")])
    assert found(table, dense) == Gain(1.9), "floats permit half of that"


def test_more_zeros_cannot_gain_less(played):
    gains, calls = played
    denser, sparser = layer(0.7), layer(0.9)
    gains[denser], gains[sparser] = [3.0], [1.5, 4.0, 4.1]
    table = GainTable([1])
    table.survey([(denser, "float32"), (sparser, "float32")])
    assert found(table, denser) == Gain(3.0)
    assert found(table, sparser) == Gain(4.1)
    assert calls == {denser: 2, sparser: 3}, "either may be wrong"


def test_neighbors_in_shape_gain_about_as_much(played):
    gains, calls = played
    narrow, wide, large = layer(0.8, 40, 50), layer(0.8, 50, 40), layer(0.8, 400, 50)
    gains[narrow], gains[wide], gains[large] = [2.0], [7.0, 2.2, 2.3], [9.0]
    table = GainTable([1])
    table.survey([(narrow, "float32"), (wide, "float32"), (large, "float32")])
    assert found(table, wide) == Gain(2.3)
    assert found(table, large) == Gain(9.0), "eight times larger: no neighbor"
    assert calls[large] == 1


def test_a_layer_that_was_not_surveyed_is_measured_when_it_comes(played):
    gains, calls = played
    denser, sparser = layer(0.7), layer(0.9)
    gains[denser], gains[sparser] = [3.0], [1.5, 4.0, 4.1]
    table = GainTable([1])
    table.survey([(denser, "float32")])
    assert found(table, sparser) == Gain(4.1)
    assert calls == {denser: 1, sparser: 3}


def test_weights_that_cannot_take_the_values_are_passed_over(played):
    dense = layer(0.8)
    dense.weight.data[0, 0] = float("nan")
    GainTable([1]).survey([(dense, "int8")])


def test_a_gain_is_noisy_where_a_timing_is():
    dense = layer(0.8)
    quiet = Timing(2.0, 2.0, 2.0, 9)
    timings = {"dense": quiet, "sell": replace(quiet, median=1.0, low=1.0, high=1.0)}
    layers = {"sell": SparseLinear.from_linear(dense, layout="sell")}

    def measured(tokens):
        return gain.measure(dense, layers, tokens, compare=lambda *_, **__: timings)["sell"]

    assert measured([1, 7]) == {1: Gain(2.0), 7: Gain(2.0)}
    timings["sell"] = replace(quiet, disturbed=8)
    assert measured([1]) == {1: Gain(1.0, noisy=True)}
