"""Measuring: fair rounds, honest spread. No test depends on how fast anything is."""

import torch

from sparsekit.bench import layers
from sparsekit.bench.timing import Timing, compare


def test_compare_runs_every_function_in_every_round():
    calls = {"a": 0, "b": 0}

    def count(name: str) -> None:
        calls[name] += 1
        torch.zeros(100_000).sum()

    timings = compare({"a": lambda: count("a"), "b": lambda: count("b")}, seconds=0.05)
    assert set(timings) == {"a", "b"}
    assert timings["a"].samples == timings["b"].samples >= 5
    assert all(timing.low <= timing.median <= timing.high for timing in timings.values())
    assert min(calls.values()) >= 7, "two calls to warm up, five rounds at least"


def test_a_wide_spread_is_called_noisy():
    assert Timing(1.0, 0.8, 1.2, 9).noisy
    assert not Timing(1.0, 0.95, 1.05, 9).noisy


def test_the_grid_covers_every_cell_and_restores_the_threads():
    grid = layers.Grid(shapes=[(16, 32), (8, 8)], sparsities=[0.5], batches=[1, 4], threads=[1, 2], seconds=0.001)
    before = torch.get_num_threads()
    measured = list(layers.run(grid))
    assert torch.get_num_threads() == before
    assert len(measured) == grid.cells == 8
    assert {cell.threads for cells in measured for cell in cells} == {1, 2}
    assert all([cell.layout for cell in cells] == list(grid.layouts) for cells in measured)
    layer = layers.pruned_linear(40, 50, 0.9)
    assert int(layer.weight.count_nonzero()) == 200
