"""Layouts of weights: by sparsity, or by time."""

import numpy as np
import pytest
from matrices import blocked_weight, random_weight
from tiny_encoders import assert_close, encoder, sequences

from sparsekit import runtime
from sparsekit.engine import Encoder, compile_model, layouts
from sparsekit.engine.layouts import Layouts
from sparsekit.formats import CSR
from sparsekit.timing.comparing import Timing


@pytest.fixture
def timed(monkeypatch) -> dict[str, float]:
    """Seconds that each layout is said to take, and under "calls" how often that was asked."""
    seconds = {"sell": 3.0, "csr": 3.0, "bitmask": 3.0, "dense": 3.0, "calls": 0}

    def compare(functions, **_):
        seconds["calls"] += 1
        for function in functions.values():
            function()
        return {name: Timing(seconds[name], seconds[name], seconds[name], 5) for name in functions}

    monkeypatch.setattr(layouts, "compare", compare)
    return seconds


def layout_of(packed: runtime.Packed) -> str:
    return runtime.packed_info(packed).layout


def weight(rng: np.random.Generator, sparsity: float) -> CSR:
    return CSR.from_dense(random_weight(rng, (32, 64), sparsity))


def test_thresholds_decide_where_nothing_is_measured(rng, timed):
    assert layout_of(Layouts().pack(weight(rng, 0.2), "float32")) == "dense"
    sparse = weight(rng, 0.8)
    assert layout_of(Layouts("neon").pack(sparse, "int8")) == sparse.layouts("int8", "neon")[0]
    assert timed["calls"] == 0


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_fastest_layout_is_taken(dtype, rng, timed, isa):
    half = weight(rng, 0.5)
    for fastest in (*half.layouts(dtype), "dense"):
        timed.update(dict.fromkeys(("sell", "csr", "bitmask", "dense"), 3.0) | {fastest: 1.0})
        assert layout_of(Layouts(measure=True).pack(half, dtype)) == fastest


def test_only_layouts_that_may_win_are_measured(rng, timed):
    found = Layouts(measure=True)
    timed["sell"] = timed["dense"] = 1.0
    assert layout_of(found.pack(weight(rng, 0.0), "float32")) == "dense"
    assert timed["calls"] == 0, "nothing else is fast without zeros"
    timed["dense"] = 0.1
    assert layout_of(found.pack(weight(rng, 0.9), "float32")) != "dense"


def test_weights_that_are_alike_are_measured_once(rng, timed):
    found = Layouts(measure=True)
    for _ in range(2):
        found.pack(weight(rng, 0.5), "float32")
    once = timed["calls"]
    assert once == 3, "with 1, 16 and 128 tokens"
    found.pack(weight(rng, 0.5), "int8")
    assert timed["calls"] == 2 * once
    found.pack(CSR.from_dense(blocked_weight(rng, (32, 64), 0.5)), "float32", block="4x1")
    assert timed["calls"] == 3 * once


def test_a_measured_model_answers_as_any(tmp_path, timed):
    encoder("bert").save_pretrained(tmp_path / "model")
    ids = sequences()
    expected = np.concatenate(Encoder(tmp_path / "model").run(ids))
    compile_model(tmp_path / "model", tmp_path / "measured", dtype="float16", measure=True)
    assert_close(np.concatenate(Encoder(tmp_path / "measured").run(ids)), expected, 1e-2)


def test_other_machines_are_not_measured_here(tmp_path):
    encoder("bert").save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="layouts of target 'neon' cannot be measured here"):
        compile_model(tmp_path / "model", target="neon", measure=True)


@pytest.mark.parametrize("few", ["sell", "csr"])
def test_decoders_are_measured_for_steps_of_few_tokens(few, rng, monkeypatch):
    """A layout that is faster in steps wins, though it is slower for many tokens; encoders take the other one."""
    many = {"sell": "csr", "csr": "sell"}[few]

    def compare(functions, **_):
        tokens = {name: function().shape[0] for name, function in functions.items()}
        fast = {name: (name == few) == (tokens[name] <= 4) for name in functions}
        slow = {name: 1e-4 if tokens[name] <= 4 else 5e-5 for name in functions}
        took = {name: (1e-6 if fast[name] else slow[name]) * tokens[name] for name in functions}
        return {name: Timing(seconds, seconds, seconds, 5) for name, seconds in took.items()}

    monkeypatch.setattr(layouts, "compare", compare)
    monkeypatch.setattr(layouts, "_candidates", lambda *_: ["sell", "csr"])
    assert layout_of(Layouts(measure=True, decodes=True).pack(weight(rng, 0.5), "int8")) == few
    assert layout_of(Layouts(measure=True).pack(weight(rng, 0.5), "int8")) == many
