"""Benchmarks: interleaved rounds, spread, correct outputs from every engine. No test depends on timings."""

import io
import os
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from rich.console import Console

from sparsekit.bench import peer, summary
from sparsekit.bench.affinity import limited_to
from sparsekit.bench.layers import benchmark as layers
from sparsekit.bench.layers import report, stored
from sparsekit.bench.layers.peers import PEERS
from sparsekit.bench.layers.plots import plot_roofline, plot_speedup
from sparsekit.bench.layers.random_weights import random_weight
from sparsekit.bench.layers.weights import imposed_on, model_layers
from sparsekit.bench.minilm import minilm_folder
from sparsekit.bench.models import benchmark as models
from sparsekit.bench.models import report as model_report
from sparsekit.bench.models.peers import MODEL_PEERS
from sparsekit.bench.models.static_int8 import calibration_ids
from sparsekit.timing.comparing import Timing, compare


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


def small_grid(**changes) -> layers.Grid:
    installed = [name for name, peer in PEERS.items() if not peer.missing]
    grid = {"shapes": [(16, 32), (40, 300)], "sparsities": [0.5, 0.9], "batches": [1, 20], "seconds": 0.001}
    return layers.Grid(**{**grid, "engines": installed, **changes})


@pytest.fixture(scope="module")
def measured() -> dict:
    grid = small_grid()
    store = stored.Store(None, grid, "random")
    for rows in layers.run(grid):
        store.add(rows)
    return store.finish(layers.ceilings(grid))


def test_the_grid_covers_every_engine_and_restores_threads_and_processors(measured):
    threads, processors = torch.get_num_threads(), os.sched_getaffinity(0)
    grid = small_grid(threads=[1, min(2, len(processors))])
    found = list(layers.run(grid))
    assert len(found) == grid.groups == 8
    assert (torch.get_num_threads(), os.sched_getaffinity(0)) == (threads, processors)
    for rows in found:
        for name in grid.engines:
            sparsities = [row.sparsity for row in rows if row.engine == name]
            assert sparsities == (list(grid.sparsities) if PEERS[name].sparse else [None])
    assert {"sparsekit", "torch"} <= {row["engine"] for row in measured["rows"]}
    for row in measured["rows"]:
        assert row["low_us"] <= row["us"] <= row["high_us"]
        assert (row["nnz"] == row["out_features"] * row["in_features"]) == (row["sparsity"] is None)


def test_a_run_that_was_stopped_goes_on(tmp_path):
    grid = small_grid(engines=["sparsekit", "torch"])
    path = tmp_path / "run.json"
    store = stored.Store(path, grid, "random")
    assert store.known() == {}
    done = layers.run(grid)
    first, second = next(done), next(done)
    store.add(first)
    store.add(second)
    again = stored.Store(path, grid, "random")
    assert list(again.known().values()) == [first, second]
    rows = list(layers.run(grid, known=again.known()))
    assert len(rows) == grid.groups
    assert rows[:2] == [first, second]
    assert stored.Store(path, small_grid(engines=["torch"]), "random").known() == {}, "another grid"
    store.finish([])
    assert stored.Store(path, grid, "random").known() == {}, "a finished run is measured anew"
    path.write_text("{")
    assert again.known() == {}


def test_ceilings_are_those_of_the_machine(measured):
    (found,) = measured["ceilings"]
    assert found["threads"] == 1
    assert found["fma_gflops"] > 0.5 * found["gflops"] > 0, "no product can beat the units it runs on by far"


def spoiled(peers: dict, name: str, monkeypatch, remedy: str = "") -> None:
    """Make an engine's outputs off by one."""
    peer = peers[name]

    def prepare(problem):
        call = peer.prepare(problem)
        return lambda: call() + 1.0

    monkeypatch.setitem(peers, name, replace(peer, prepare=prepare, remedy=remedy))


def table_of(show, rows: list[dict]) -> str:
    console = Console(width=200, file=io.StringIO())
    show({"rows": rows}, console)
    return console.file.getvalue()


def test_a_peer_that_answers_wrongly_is_marked_and_its_remedy_measured(monkeypatch):
    spoiled(PEERS, "torch-int8", monkeypatch, remedy="torch")
    group = [asdict(row) for row in next(layers.run(small_grid(engines=["sparsekit", "torch-int8"])))]
    assert {row["engine"]: row["wrong"] for row in group} == {"sparsekit": False, "torch-int8": True, "torch": False}
    (row,) = (row for row in group if row["wrong"])
    assert row["us"] > 0
    assert summary.dense_times(group, int8=True) == [], "nothing is faster than a wrong answer"
    assert summary.dense_times(group) == [group[-1]["us"]]
    lines = table_of(report.show, group).splitlines()
    assert [("wrong answers here" in line) for line in lines if "torch" in line] == [True, False]
    asked = next(layers.run(small_grid(engines=["torch-int8", "torch"])))
    assert [row.engine for row in asked] == ["torch-int8", "torch"], "once is enough"


def test_our_own_engine_that_answers_wrongly_ends_the_run(monkeypatch):
    spoiled(PEERS, "sparsekit", monkeypatch)
    with pytest.raises(RuntimeError, match="sparsekit is off by 1.0e"):
        next(layers.run(small_grid(engines=["sparsekit"])))


def test_nan_is_a_wrong_answer():
    assert peer.answers_wrongly("torch", np.array([0.0, np.nan]), np.array(1.0))
    assert not peer.answers_wrongly("torch", np.array([0.0, 1.0]), np.array(1.0))


def test_weights_of_seven_bits_answer_right_on_every_machine():
    (row,) = next(layers.run(small_grid(engines=["onnxruntime-int8-reduce-range"])))
    assert not row.wrong
    assert summary.in_int8(row.engine)


def test_more_threads_than_processors_are_refused():
    with pytest.raises(ValueError, match="this process may use"), limited_to(4096):
        pass


def test_speedups_are_over_the_fastest_dense_engine(measured):
    found = summary.speedups(measured["rows"])
    assert len(found) == 2 * 2 * 2
    cell = summary.Cell(40, 300, 20, 1, 0.9)
    rows = [row for row in measured["rows"] if summary.Group(*cell[:4]) == tuple(row[n] for n in summary.Group._fields)]
    dense = min(row["us"] for row in rows if row["engine"] in ("torch", "onnxruntime", "openvino"))
    mine = next(row["us"] for row in rows if row["engine"] == "sparsekit" and row["sparsity"] == 0.9)
    assert found[cell] == dense / mine


def test_break_even():
    assert summary.break_even({0.5: 1.2, 0.9: 3.0}) == 0.5
    assert summary.break_even({0.5: 0.5, 0.9: 0.9}) is None
    assert summary.break_even({0.5: 0.5, 0.7: 1.5, 0.9: 3.0}) == pytest.approx(0.6)
    assert summary.break_even({0.5: 1.5, 0.7: 0.5, 0.9: 1.5}) == pytest.approx(0.8), "it must pay from there on"
    assert summary.break_even({}) is None


def test_plots_are_drawn(measured, tmp_path):
    for plot in (plot_speedup, plot_roofline):
        plot(measured, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_random_weights_have_the_sparsity_and_repeat():
    weight = random_weight((200, 300), 0.8)
    assert np.mean(weight == 0) == pytest.approx(0.8, abs=0.01)
    assert np.array_equal(weight, random_weight((200, 300), 0.8))
    assert not random_weight((20, 30), 1.0).any()


def test_imposed_sparsity_keeps_a_models_largest_weights(tmp_path):
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=50)
    BertModel(config).save_pretrained(tmp_path)
    found = model_layers(tmp_path)
    assert set(found) == {(32, 32), (64, 32), (32, 64)}
    assert not imposed_on(found)((64, 32), 1.0).any()
    weight = imposed_on(found)((64, 32), 0.75)
    kept = weight != 0
    assert kept.sum() == 64 * 32 // 4
    original = found[64, 32].weight.detach().numpy()
    assert np.array_equal(weight[kept], original[kept])
    assert np.abs(original[kept]).min() >= np.abs(original[~kept]).max()


def small_encoder():
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128, vocab_size=50
    )
    return BertModel(config, add_pooling_layer=False).eval()


@pytest.mark.slow
def test_models_are_measured_whole_and_operator_by_operator():
    installed = [name for name, peer in MODEL_PEERS.items() if not peer.missing]
    grid = models.ModelGrid(sparsities=[0.5, 0.9], inputs=[(2, 8)], engines=installed, seconds=0.01)
    (group,) = models.run(small_encoder(), grid)
    sparse_engines = sum(MODEL_PEERS[name].sparse for name in installed)
    assert len(group) == len(installed) + sparse_engines, "sparse engines once for each sparsity"
    rows = [asdict(row) for row in group]
    for row in rows:
        assert row["low_ms"] <= row["ms"] <= row["high_ms"]
        bits = next((dtype for dtype in ("bfloat16", "float16", "int8") if dtype in row["engine"]), "float32")
        if row["wrong"]:  # on this machine; never ours, which would have ended the run
            continue
        assert 0 <= row["difference"] < {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.01, "int8": 0.5}[bits]
        runs_in_torch = not row["engine"].startswith("sparsekit-engine")
        assert bool(row["operators"]) == (MODEL_PEERS[row["engine"]].sparse and runs_in_torch)
    sparse = next(row for row in rows if row["sparsity"] == 0.9)
    assert sparse["operators"]["aten::native_layer_norm"] > 0
    assert sum(model_report.largest_operators(sparse).values()) == pytest.approx(sum(sparse["operators"].values()))
    dense = {name for name, peer in MODEL_PEERS.items() if not peer.sparse and not summary.in_int8(name)}
    best = min(row["ms"] for row in rows if row["engine"] in dense)
    assert model_report.speedup(sparse, rows) == best / sparse["ms"]


@pytest.mark.parametrize("engine", ["openvino-int8", "ctranslate2", "ctranslate2-int8"])
def test_a_peer_answers_as_torch_does(engine):
    peer = MODEL_PEERS[engine]
    if peer.missing:
        pytest.skip(f"needs {', '.join(peer.missing)}")
    grid = models.ModelGrid(sparsities=[0.5], inputs=[(2, 8)], engines=[engine], seconds=0.01)
    (group,) = models.run(small_encoder(), grid, calibration=((1, 2, 3), tuple(range(20))))
    (row,) = group
    assert (row.engine, row.sparsity, row.wrong) == (engine, None, False)
    assert summary.in_int8(engine) == (row.difference > 1e-4)


def test_static_quantization_calibrates_on_texts_of_the_models_own_tokenizer(tmp_path):
    found = calibration_ids(minilm_folder())
    assert len(found) == 300
    assert max(map(len, found)) == 256, "long reviews are cut"
    assert {(ids[0], ids[-1]) for ids in found} == {(101, 102)}, "[CLS] and [SEP]"
    with pytest.raises(ValueError, match=r"has no tokenizer.json; write it with transformers"):
        calibration_ids(tmp_path)


def test_a_model_without_zeros_is_measured_dense():
    grid = models.ModelGrid(sparsities=[0.0], inputs=[(1, 4)], engines=["sparsekit"], seconds=0.01)
    (group,) = models.run(small_encoder(), grid)
    assert group[0].sparsity == 0.0


def test_a_peer_that_answers_wrongly_for_a_whole_model_is_marked_and_its_remedy_measured(monkeypatch):
    monkeypatch.setitem(MODEL_PEERS, "other", MODEL_PEERS["torch"])
    spoiled(MODEL_PEERS, "torch", monkeypatch, remedy="other")
    grid = models.ModelGrid(inputs=[(1, 4)], sparsities=[0.9], engines=["sparsekit", "torch"], seconds=0.01)
    group = [asdict(row) for row in next(models.run(small_encoder(), grid))]
    assert {row["engine"]: row["wrong"] for row in group} == {"sparsekit": False, "torch": True, "other": False}
    mine, _, other = group
    assert model_report.speedup(mine, group) == other["ms"] / mine["ms"]
    lines = table_of(model_report.show, group).splitlines()
    assert [("wrong answers here" in line) for line in lines if "torch" in line or "other" in line][:2] == [True, False]


def test_our_own_engine_that_answers_wrongly_for_a_whole_model_ends_the_run(monkeypatch):
    spoiled(MODEL_PEERS, "sparsekit", monkeypatch)
    grid = models.ModelGrid(inputs=[(1, 4)], engines=["sparsekit"], seconds=0.01)
    with pytest.raises(RuntimeError, match="sparsekit is off by"):
        next(models.run(small_encoder(), grid))
