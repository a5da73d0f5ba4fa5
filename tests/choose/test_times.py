"""Stored times of products, and what is predicted from them. Nothing is timed for its value."""

import json
import time

import numpy as np
import pytest
import torch
from tiny_decoders import decoder
from tiny_encoders import bert_with_tokenizer, encoder

from sparsekit import runtime
from sparsekit.bench.layers.random_weights import random_weight
from sparsekit.choose.assignments.levels import FORMS, SPARSITIES, Form
from sparsekit.choose.times import model_times, stored_times, whole_models
from sparsekit.choose.times import table as time_table
from sparsekit.choose.times.calls import Call
from sparsekit.choose.times.imposed_weights import compile_with
from sparsekit.choose.times.model_times import Fit, ModelTimes, fit_whole
from sparsekit.choose.times.multiplication import Multiplication
from sparsekit.choose.times.products import Factor, ModelProducts, Product, Shape, products_of
from sparsekit.choose.times.stored_times import Cell, StoredTimes
from sparsekit.choose.times.table import TimeTable, measure_times
from sparsekit.choose.times.whole_models import DecoderRun, encoder_run
from sparsekit.engine import compile_model, layouts
from sparsekit.formats import CSR
from sparsekit.timing.comparing import Timing

FLOAT32 = Form("float32", "unstructured")
LEVELS = len(SPARSITIES)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sparsekit" / "times"


@pytest.fixture
def timed(monkeypatch) -> list[list[str]]:
    """Names of what is timed, comparison by comparison; each function runs once, and is said to take its number."""
    seen: list[list[str]] = []

    def compare(functions, **_):
        seen.append(list(functions))
        for function in functions.values():
            function()
        return {name: Timing(1.0 + place, 1.0 + place, 1.0 + place, 5) for place, name in enumerate(functions)}

    for module in (time_table, whole_models):
        monkeypatch.setattr(module, "compare", compare)
    monkeypatch.setattr(layouts, "OUT_OF_CACHE", 1 << 16)  # of weights this small there would be thousands of copies
    monkeypatch.setattr(layouts, "compare", lambda functions, **_: {one: Timing(1.0, 1.0, 1.0, 5) for one in functions})
    return seen


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_what_is_timed_is_the_product(dtype):
    weights = [random_weight((rows, 40), 0.6) for rows in (24, 8)]
    run = Multiplication([CSR.from_dense(one).pack(dtype) for one in weights], tokens=5, copies=3)
    assert run.copies == 3
    for _ in range(4):
        for output in run.outputs:
            output[:] = np.nan
        run()
        for output, weight in zip(run.outputs, weights, strict=True):
            expected = run.x @ weight.T
            assert np.abs(output - expected).max() < (0.05 if dtype == "int8" else 1e-5) * np.abs(expected).max()


def test_copies_are_no_more_than_caches_hold():
    packed = CSR.from_dense(random_weight((1024, 1024), 0.0)).pack(layout="dense")
    assert Multiplication([packed], tokens=1, copies=1000).copies == layouts.OUT_OF_CACHE // packed.nbytes


CELL = Cell(Shape((4, 4), 8), FLOAT32, 16, 3, False)
SECONDS = tuple(float(8 - level) for level in range(LEVELS))


def test_the_store_gives_what_it_was_given(cache, monkeypatch):
    store = StoredTimes()
    assert store.times_of(CELL.shape) == {}
    other = Cell(CELL.shape, FORMS[-1], 128, 1, True)
    elsewhere = Cell(Shape((8,), 8), FLOAT32, 16, 3, False)
    for cell in (CELL, other, elsewhere):
        store.keep(cell, SECONDS)
    assert StoredTimes().times_of(CELL.shape) == {CELL: SECONDS, other: SECONDS}
    assert StoredTimes().times_of(elsewhere.shape) == {elsewhere: SECONDS}
    assert len(list(cache.iterdir())) == 2
    with runtime.limited_threads(runtime.num_threads() + 1):
        assert StoredTimes().times_of(CELL.shape) == {}, "with other threads"
    facts = stored_times.environment()
    monkeypatch.setattr(stored_times, "environment", lambda: {**facts, "cpu": "another"})
    assert StoredTimes().times_of(CELL.shape) == {}, "on another processor"


def damaged(text: str, entry: dict) -> list[str]:
    """Files that are not as they were written."""
    stored = json.loads(text)
    changes = [
        {"seconds": list(SECONDS[:-1])},
        {"seconds": [0.0, *SECONDS[1:]]},
        {"seconds": [True, *SECONDS[1:]]},
        {"seconds": ["1", *SECONDS[1:]]},
        {"seconds": {}},
        {"tokens": 0},
        {"tokens": 16.0},
        {"copies": -1},
        {"decodes": 0},
        {"dtype": None},
        {"more": 1},
    ]
    entries = [*({**entry, **change} for change in changes), {}, 3, None]
    others = [{**stored, "times": value} for value in ({}, None, *([one] for one in entries))]
    others += [{**stored, "shape": {}}, {**stored, "environment": {}}, {"times": []}, [], 1]
    written = [json.dumps(other) for other in others]
    return [*written, "", text[:-20], text.replace("8.0", "NaN", 1), text.replace("8.0", "1e999", 1), "[" * 100_000]


def test_damaged_files_count_for_nothing(cache):
    store = StoredTimes()
    store.keep(CELL, SECONDS)
    (file,) = cache.iterdir()
    text = file.read_text()
    for bad in damaged(text, json.loads(text)["times"][0]):
        file.write_text(bad)
        assert store.times_of(CELL.shape) == {}, bad[:200]
        store.keep(CELL, SECONDS)
        assert file.read_text() == text
    file.write_bytes(b"\xff\xfe")
    assert store.times_of(CELL.shape) == {}


@pytest.fixture
def products() -> ModelProducts:
    """Two blocks: joined layers of unlike sizes, and one whose second product is for texts."""
    joined = Product((Factor("a", 12), Factor("b", 4)), 8, by_text=False)
    return ModelProducts((joined, Product((Factor("c", 8),), 16, by_text=True)), decodes=False)


def test_everything_is_measured_once(products, timed, cache):
    seen = []
    calls = [Call(1, 16), Call(2, 100)]
    table = measure_times(products, FORMS, calls, threads=1, progress=lambda *counts: seen.append(counts))
    assert len(timed) == 16, "two shapes, four forms, two numbers of tokens"
    assert all(names == [str(level) for level in range(LEVELS)] for names in timed)
    assert seen == [(done, 16) for done in range(17)]
    assert table.threads == 1
    assert {cell.tokens for cell in table.seconds if cell.shape.in_features == 8} == {16, 200}
    assert {cell.tokens for cell in table.seconds if cell.shape.in_features == 16} == {1, 2}
    assert {cell.copies for cell in table.seconds if cell.tokens == 200} == {1}
    assert {cell.copies for cell in table.seconds if cell.tokens == 16} == {2}
    assert set(table.seconds.values()) == {tuple(1.0 + level for level in range(LEVELS))}
    assert measure_times(products, FORMS, calls, threads=1).seconds == table.seconds
    assert len(timed) == 16
    for file in cache.iterdir():
        file.write_text("{")
    assert measure_times(products, FORMS, calls, threads=1).seconds == table.seconds
    assert len(timed) == 32


def test_a_stopped_run_goes_on(products, timed, monkeypatch):
    with pytest.raises(TimeoutError, match="0 of 2 times were measured by the deadline"):
        measure_times(products, [FLOAT32], [Call(1, 16)], deadline=time.monotonic() - 1)
    assert timed == []
    original = time_table._measured

    def stopped(weights, cell):
        if timed:
            raise KeyboardInterrupt
        return original(weights, cell)

    monkeypatch.setattr(time_table, "_measured", stopped)
    with pytest.raises(KeyboardInterrupt):
        measure_times(products, [FLOAT32], [Call(1, 16)])
    monkeypatch.setattr(time_table, "_measured", original)
    seen = []
    measure_times(products, [FLOAT32], [Call(1, 16)], progress=lambda *counts: seen.append(counts))
    assert seen == [(1, 2), (2, 2)]
    assert len(timed) == 2


def test_weights_are_of_the_level_and_in_its_blocks():
    shape = Shape((64, 32), 96)
    for form in FORMS:
        weights = time_table._packed(shape, form, layouts.Layouts())
        for sparsity, joined in zip(SPARSITIES, weights, strict=True):
            for packed, rows in zip(joined, shape.out_features, strict=True):
                info = runtime.packed_info(packed)
                assert (info.out_features, info.in_features, info.dtype) == (rows, 96, form.dtype)
                zeros = 1 - np.count_nonzero(CSR.unpack(packed).to_dense()) / (rows * 96)
                assert zeros == pytest.approx(sparsity, abs=0.06)
                assert info.block == (form.block if sparsity else "1x1")


def table_of(products: ModelProducts, *calls: Call) -> TimeTable:
    """A table of numbers that tell where they come from."""
    cells = time_table._cells(products, [FLOAT32], calls, 1)
    seconds = {cell: [cell.shape.in_features * cell.tokens * (LEVELS - level) for level in range(LEVELS)]
               for cell in cells}  # fmt: skip
    return TimeTable(products, 1, seconds)


def test_layers_count_their_share_of_a_product(products):
    call = Call(3, 100)
    layers = table_of(products, call).of_layers(FLOAT32, call)
    falling = np.arange(LEVELS, 0, -1)
    assert list(layers) == ["a", "b", "c"]
    np.testing.assert_allclose(layers["a"], 0.75 * 8 * 300 * falling)  # groups of 200 and 100 tokens
    np.testing.assert_allclose(layers["b"], 0.25 * 8 * 300 * falling)
    np.testing.assert_allclose(layers["c"], 16 * 3 * falling)  # of 2 texts and one


def test_a_layer_in_several_products_counts_them_all():
    query, stored = (Factor("qkv", 8),), (Factor("qkv", 4), Factor("qkv", 4))
    products = ModelProducts((Product(query, 8, by_text=True), Product(stored, 8, by_text=False)), decodes=True)
    call = Call(1, 50)
    layers = table_of(products, call).of_layers(FLOAT32, call)
    np.testing.assert_allclose(layers["qkv"], 8 * (1 + 50) * np.arange(LEVELS, 0, -1))


def test_predictions_add_up(products):
    call = Call(1, 10)
    found = ModelTimes(table_of(products, call), {("float32", call): Fit(rest=1000.0, scale=2.0)})
    assert found.predicted({"a": 0, "b": 4, "c": 7}, FLOAT32, call) == pytest.approx(
        1000 + 2 * (0.75 * 80 * 8 + 0.25 * 80 * 4 + 16 * 1)
    )
    layers, rest = found.of_layers(FLOAT32, call), found.rest(FLOAT32, call)
    levels = {"a": 3, "b": 1, "c": 5}
    expected = rest + sum(layers[layer][level] for layer, level in levels.items())
    assert found.predicted(levels, FLOAT32, call) == pytest.approx(expected)


def test_what_was_not_measured_is_not_predicted(products):
    call, levels = Call(1, 10), dict.fromkeys("abc", 0)
    found = ModelTimes(table_of(products, call), {("float32", call): Fit(1.0), ("int8", call): Fit(1.0)})
    with pytest.raises(ValueError, match="must have times of int8 for 1x10, got none; measure_times takes both"):
        found.predicted(levels, Form("int8", "unstructured"), call)
    with pytest.raises(ValueError, match="whole models must be measured in float32 for 1x11; fit_whole takes both"):
        found.predicted(levels, FLOAT32, Call(1, 11))
    with pytest.raises(ValueError, match="the assignment lacks 'b'"):
        found.predicted({"a": 0, "c": 0}, FLOAT32, call)
    with pytest.raises(ValueError, match="the assignment must not have 'd'"):
        found.predicted({**levels, "d": 0}, FLOAT32, call)
    with pytest.raises(ValueError, match="the level of 'a' must be from 0 to 7, got 8"):
        found.predicted({**levels, "a": 8}, FLOAT32, call)


def test_both_models_that_were_measured_are_predicted_as_they_were(tmp_path, timed, monkeypatch):
    """The dense model takes 1 second, that of the highest level 2, which no fit explains; then 5 and 2."""
    encoder("bert").save_pretrained(tmp_path)
    products, call = products_of(tmp_path, pooling="mean"), Call(2, 9)
    table = table_of(products, call)
    dense, thinned = (dict.fromkeys(products.layers, level) for level in (0, LEVELS - 1))
    fits = fit_whole(tmp_path, table, ["float32"], [call], pooling="mean")
    assert timed == [["dense", "thinned"]]
    assert fits["float32", call].scale == 1.0
    assert ModelTimes(table, fits).predicted(thinned, FLOAT32, call) == pytest.approx(2.0)
    monkeypatch.setattr(
        model_times,
        "measure_whole",
        lambda models, *_, **__: {
            name: Timing(found, found, found, 5) for name, found in zip(models, (5.0, 2.0), strict=True)
        },
    )
    found = ModelTimes(table, fit_whole(tmp_path, table, ["float32"], [call], pooling="mean"))
    assert found.predicted(dense, FLOAT32, call) == pytest.approx(5.0)
    assert found.predicted(thinned, FLOAT32, call) == pytest.approx(2.0)


def test_language_models_are_measured_at_a_prompt_and_at_a_step(tmp_path, timed):
    decoder("llama").save_pretrained(tmp_path)
    products, calls = products_of(tmp_path), [Call(1, 20), Call(2, 1, past=20)]
    table = measure_times(products, [FLOAT32], calls, threads=1)
    timed.clear()
    fits = fit_whole(tmp_path, table, ["float32"], calls)
    assert timed == [["dense", "thinned"]] * 2
    assert set(fits) == {("float32", call) for call in calls}
    found = ModelTimes(table, fits)
    for call in calls:
        assert np.isfinite(found.predicted(dict.fromkeys(products.layers, 3), FLOAT32, call))


def test_a_step_is_behind_its_tokens(tmp_path):
    decoder("llama").save_pretrained(tmp_path)
    compiled = compile_model(tmp_path)
    run = DecoderRun(compiled, Call(2, 1, past=20))
    assert np.array_equal(run(), run())
    assert [cache.tokens for cache in run._caches] == [21, 21]
    assert not np.allclose(run(), DecoderRun(compiled, Call(2, 1))()), "the tokens before count"
    with pytest.raises(ValueError, match="must have from 1 to"):
        DecoderRun(compiled, Call(1, 1000))()


def test_encoders_give_what_they_are_for(tmp_path):
    encoder("bert").save_pretrained(tmp_path)
    assert encoder_run(compile_model(tmp_path), Call(2, 7))().shape == (14, 36)
    assert encoder_run(compile_model(tmp_path, pooling="mean"), Call(2, 7))().shape == (2, 36)
    with pytest.raises(ValueError, match="encoders keep no tokens of earlier calls, got 1x1 after 5"):
        encoder_run(compile_model(tmp_path), Call(1, 1, past=5))


@pytest.mark.parametrize("family", ["bert", "modernbert", "gpt2"])
def test_imposed_weights_are_those_of_a_folder_that_has_them(family, tmp_path, timed):
    """Magnitude pruning that is written, and the same imposed."""
    model = decoder(family) if family == "gpt2" else encoder(family)
    model.save_pretrained(tmp_path / "dense")
    layers = products_of(tmp_path / "dense").layers
    with torch.no_grad():
        for layer in layers:
            weight = model.get_submodule(layer).weight
            weight[weight.abs() < 0.2] = 0.0
    model.save_pretrained(tmp_path / "pruned")
    changes = dict.fromkeys(layers, lambda weight: np.where(np.abs(weight) < np.float32(0.2), np.float32(0), weight))
    for dtype in ("float32", "int8"):
        imposed = compile_with(tmp_path / "dense", changes, dtype=dtype)
        assert np.array_equal(imposed, compile_model(tmp_path / "pruned", dtype=dtype, measure=True))
    unchanged = compile_with(tmp_path / "dense", {}, dtype="float32")
    assert np.array_equal(unchanged, compile_model(tmp_path / "dense", measure=True))
    assert not np.array_equal(unchanged, compile_with(tmp_path / "dense", changes, dtype="float32"))


def test_a_sentence_model_is_predicted_from_its_folder(tmp_path, timed):
    """With a pooling of its own, in all forms."""
    bert_with_tokenizer(tmp_path, num_hidden_layers=2)
    calls = [Call(1, 5)]
    products = products_of(tmp_path, pooling="cls")
    table = measure_times(products, FORMS, calls)
    found = ModelTimes(table, fit_whole(tmp_path, table, ("float32", "int8"), calls, pooling="cls"))
    for form in FORMS:
        assert np.isfinite(found.predicted(dict.fromkeys(products.layers, 2), form, calls[0]))
