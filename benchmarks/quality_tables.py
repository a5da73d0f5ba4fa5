"""Quality after compression over seeds: tables from the JSON files under benchmarks/results/quality."""

from __future__ import annotations

import json
import statistics
from typing import Any

from results_tables import RESULTS, machine, table

#: Recipe -> how the tables call it; two titles where it also has scores of an earlier stage `evaluate`.
_TITLES: dict[str, tuple[str, ...]] = {
    "classifier-80": ("sentence classification, 80% unstructured",),
    "classifier-90": ("the same, 90%",),
    "classifier-80-4x1": ("80% in 4x1 blocks", "the same with int8 weights and inputs"),
    "classifier-3-layers-80": ("3 of 6 layers, 80% of those",),
    "classifier-half-neurons": ("half of all MLP neurons removed",),
    "embedding-80": ("sentence embeddings, 80%",),
    "language-50-magnitude": ("SmolLM2-135M, 50%, magnitude",),
    "language-50-wanda": ("the same, Wanda",),
    "language-50-wanda-spread": ("the same, Wanda with `spread: 0.2`",),
    "language-50-recovery": (
        "the same, SparseGPT",
        "the same, then distilled from its dense self on film reviews",
    ),
}


def _runs(name: str) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted((RESULTS / "quality").glob(f"{name}-[0-9].json"))]
    return [run for run in found if run["recipe"] == name]


def _seconds(run: dict[str, Any]) -> float:
    return float(sum(row["seconds"] for row in run["stages"]))


def _mean(values: list[float], form: str) -> str:
    if len(values) == 1:
        return format(values[0], form)
    return f"{statistics.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _points(dense: list[float], kept: list[float]) -> str:
    """Differences of accuracies in points."""
    return _mean([100 * (b - a) for a, b in zip(dense, kept, strict=True)], "+.1f") + " points"


def _parts(dense: list[float], kept: list[float]) -> str:
    return _mean([b / a for a, b in zip(dense, kept, strict=True)], ".2f") + " times"


def _line(title: str, runs: list[dict[str, Any]], metric: str) -> list[str]:
    dense, kept = ([run[which][metric] for run in runs] for which in ("dense", "scores"))
    accuracy = metric == "accuracy"
    form = ".1%" if accuracy else ".1f" if metric == "perplexity" else ".3f"
    change = (_points if accuracy else _parts)(dense, kept)
    minutes = statistics.mean(map(_seconds, runs)) / 60
    return [title, metric, str(len(runs)), _mean(dense, form), _mean(kept, form), change, f"{minutes:.0f}"]


def _evaluated(run: dict[str, Any]) -> dict[str, Any]:
    """A run as it was at its last stage `evaluate`."""
    number = max(i for i, row in enumerate(run["stages"]) if row["stage"].endswith("-evaluate"))
    return run | {"scores": run["stages"][number], "stages": run["stages"][:number]}


def quality_block() -> str:
    """Every recipe: the dense model, the compressed one, the difference."""
    lines = []
    for name, titles in _TITLES.items():
        runs = _runs(name)
        if not runs:
            continue
        held = [[_evaluated(run) for run in runs], runs] if len(titles) == 2 else [runs]
        for title, shown in zip(titles, held, strict=True):
            for metric in (one for one in runs[0]["scores"] if one in runs[0]["dense"] and one != "f1"):
                lines.append(_line(title, shown, metric))
    heading = ["what", "score", "seeds", "dense", "compressed", "difference", "minutes"]
    environment = _runs("classifier-80")[0]["environment"]
    return (
        table(heading, lines, text_columns=2)
        + "\n\nMean over seeds, and the range. Minutes of the recipe's stages, from the dense model; other runs shared "
        f"the two processors. {machine(environment)} Source: `benchmarks/results/quality`, by `benchmarks/quality.py`."
    )
