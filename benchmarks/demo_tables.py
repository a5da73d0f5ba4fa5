"""Tables of the demo, made from the `result.json` that it wrote."""

from __future__ import annotations

import json
from typing import Any

from results_tables import RESULTS, load, machine, source, table

#: Model -> its entry for accuracy and size, its entry for speed.
_MODELS = {
    "dense teacher": ("teacher", "teacher"),
    "sparse student, dense torch": ("student_dense", "dense_self"),
    "sparse student, sparsekit": ("student", "sparse"),
    "sparse student, sparsekit int8": ("student_int8", "sparse_int8"),
}


def _milliseconds(row: dict[str, Any]) -> list[str]:
    """One line of speed: milliseconds of every model, and the gain over the same model run dense."""
    medians = [row["seconds"][name]["median"] for _, name in _MODELS.values()]
    gains = ["", "", *(f" ({medians[1] / seconds:.2f}x)" for seconds in medians[2:])]
    cells = [f"{1e3 * seconds:.2f}{gain}" for seconds, gain in zip(medians, gains, strict=True)]
    return [f"ms, {row['kind']}, {row['threads']} thread{'s' * (row['threads'] > 1)}", *cells]


def demo_block() -> str:
    """What the demo measured: accuracy, memory and speed of teacher and student."""
    result = load("demo.json")
    models = [result[name] for name, _ in _MODELS.values()]
    lines = [
        ["accuracy, test split", *(f"{model['accuracy']:.1%}" for model in models)],
        ["accuracy, other source (IMDB)", *(f"{model['accuracy_far']:.1%}" for model in models)],
        ["linear weights in RAM, MB", *(f"{model['linear_bytes'] / 1e6:.1f}" for model in models)],
        *map(_milliseconds, result["speed"]),
    ]
    return (
        f"{table(['', *_MODELS], lines, text_columns=1)}\n\n"
        f"{result['train_sentences']:,} training sentences, {result['test_sentences']:,} test sentences, "
        f"{result['sparsity']:.0%} sparse, {sum(result['stage_seconds'].values()):.0f} seconds after the install. "
        f"Before distillation, the pruned student was at {result['pruned_accuracy_before_distillation']:.1%}. "
        f"{machine(result['environment'])} {source('demo.json')}"
    )


def seeds_block() -> str:
    """Accuracy of the demo's models over seeds."""
    paths = sorted(RESULTS.glob("demo*.json"))
    lines = []
    for path in paths:
        result = json.loads(path.read_text())
        teacher, student = result["teacher"]["accuracy"], result["student"]["accuracy"]
        lines.append(
            [
                result["settings"]["seed"],
                f"{result['sparsity']:.0%}",
                f"{teacher:.1%}",
                f"{student:.1%}",
                f"{100 * (student - teacher):+.1f} points",
                f"{sum(result['stage_seconds'].values()):.0f}",
            ]
        )
    heading = ["seed", "sparsity", "teacher", "student", "difference", "seconds"]
    return f"{table(heading, lines)}\n\n{source(*(path.name for path in paths))}"
