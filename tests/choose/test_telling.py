"""What is told of a search: the table and the advice."""

from dataclasses import replace

from rich.console import Console

from sparsekit.choose.points import Point, Score
from sparsekit.choose.targets import Targets
from sparsekit.choose.telling import advice, columns, points_table

DENSE = Point("openvino", "openvino", 0.80, None, 4.0, 500.0, False, 90_000_000, None)
INT8 = Point("onnxruntime-int8", "onnxruntime-int8", None, None, 2.0, 1000.0, True, 90_000_000, None)
OURS = Point("int8, 3.1x", "sparsekit-engine", 0.796, Score(0.79, (0.77, 0.81)), 1.0, 2000.0, False, 16_000_000,
             16_000_000, "recipes/2.yaml")  # fmt: skip
POINTS = [DENSE, INT8, OURS]


def test_the_table_has_every_point_and_what_is_known_of_it():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(points_table(POINTS, DENSE, "accuracy"))
    lines = console.export_text().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["openvino", "onnxruntime-int8", "int8,"]
    assert lines[1].split() == ["openvino", "*", "0.800", "4.00", "500", "1.00x", "90.0"]
    assert lines[2].split() == ["onnxruntime-int8", "2.00~", "1000~", "2.00x", "90.0"]
    assert lines[3].split() == [
        "int8,",
        "3.1x",
        "*",
        "0.796",
        "0.790",
        "(0.770-0.810)",
        "1.00",
        "2000",
        "4.00x",
        "16.0",
    ]


def test_advice_names_the_point_and_the_best_int8_engine():
    text = advice(POINTS, DENSE, OURS, True, Targets(), "accuracy")
    assert text.startswith(
        "Take int8, 3.1x: it keeps 99.5% of the dense accuracy and is 4.00 times as fast as openvino"
    )
    assert "2.00 times as fast as the best dense int8 engine, onnxruntime-int8" in text
    assert "recipes/2.yaml" in text


def test_fidelity_is_called_so():
    text = advice(POINTS, DENSE, OURS, True, Targets(), "fidelity")
    assert text.startswith("Take int8, 3.1x: it keeps 99.5% fidelity to the dense model and is 4.00 times")
    assert columns("fidelity")[1] == "fidelity"


def test_advice_says_what_a_faster_dense_int8_engine_keeps():
    slow = replace(OURS, one_text_ms=3.0, texts_per_second=900.0)
    text = advice(POINTS, DENSE, slow, True, Targets(), "accuracy")
    best = "0.77 times as fast as the best dense int8 engine, onnxruntime-int8"
    assert f"{best}, whose score was not measured here." in text
    scored = [DENSE, replace(INT8, quality=0.6), slow]
    text = advice(scored, DENSE, slow, True, Targets(), "accuracy")
    assert f"{best}, which keeps 75.0% of the dense accuracy." in text


def test_a_dense_int8_engine_may_be_the_one_to_take():
    best = replace(INT8, quality=0.8)
    text = advice([DENSE, best], DENSE, best, True, Targets(), "accuracy")
    assert "Take onnxruntime-int8: it keeps 100.0% of the dense accuracy" in text
    assert "the fastest dense int8 engine. No compression beats it" in text


def test_advice_says_when_nothing_compressed_wins():
    assert "No compression beats it" in advice([DENSE], DENSE, DENSE, True, Targets(), "accuracy")
    assert "no dense int8 engine being installed" in advice([DENSE], DENSE, DENSE, True, Targets(), "accuracy")


def test_advice_says_which_targets_are_not_met_and_what_is_nearest():
    targets = Targets(0.001, 9.0, 0.5, 1e6)
    text = advice(POINTS, DENSE, OURS, False, targets, "accuracy")
    assert text.startswith("Nothing that was measured meets the targets (at most 0.1% of the score lost, 9x, 0.5 ms a "
                           "text, 1 MB). Nearest is int8, 3.1x")  # fmt: skip
