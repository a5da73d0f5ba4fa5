"""Report page of a run, `report.html`, from its measurements."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsekit.extras import how_to_install
from sparsekit.io.file_names import RECIPE
from sparsekit.pruning import pruning_report
from sparsekit.recipes.job import Job
from sparsekit.report.facts import DENSE, OURS, EngineTime, Facts, LayerFacts, ModelSize, Quality, Score
from sparsekit.wording import counted

#: Report and page in the output folder of a run.
RUN_REPORT, RUN_PAGE = "report.json", "report.html"
_FLOAT32 = 4  # bytes
#: Task -> unit of its predictions.
_ROWS = {"classification": "text", "embedding": "pair", "language": "window"}


@dataclass(frozen=True)
class Given:
    """Inputs of a run besides its recipe."""

    model: Path
    data: Path
    test: Path | None
    validation: Path | None

    def options(self) -> list[str]:
        """Tables as options of `sparsekit compress`."""
        files = {"--data": self.data, "--test": self.test, "--validation": self.validation}
        return [text for name, path in files.items() if path is not None for text in (name, str(path))]


def _models(comparison: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows of a comparison with their models' names on the page; the last one is the compressed model."""
    *others, last = comparison["rows"]
    yield from ((row["name"], row) for row in others)
    yield OURS, last


def _quality(job: Job, comparison: Mapping[str, Any]) -> Quality | None:
    metric = comparison["score"]
    if metric is None:
        return None
    scores = [
        Score(metric, model, row["score"], tuple(row["interval"]) if "interval" in row else None)
        for model, row in _models(comparison)
        if "score" in row
    ]
    change = comparison.get("difference")
    differences = {} if change is None else {metric: (change["value"], tuple(change["interval"]))}
    scored = f"Scored in PyTorch on {counted(comparison['test_rows'], _ROWS[job.recipe.task])}, "
    scored += f"{counted(job.recipe.data.max_tokens, 'token')} of each text at most."
    return Quality(scores, differences, comparison["interval"], [scored])


def _times(comparison: Mapping[str, Any], converted: bool) -> Iterator[EngineTime]:
    """Times of one text and of a batch."""
    size, tokens, threads = (comparison[name] for name in ("texts_in_a_batch", "tokens_of_a_text", "threads"))
    names = {OURS: "sparsekit in PyTorch" if converted else "torch, this model", DENSE: "torch"}
    for texts in dict.fromkeys((1, size)):
        for model, row in _models(comparison):
            if "one_text_ms" in row:
                ms = row["one_text_ms"] if texts == 1 else 1e3 * size / row["texts_per_second"]
                kind = "ours" if model == OURS else "float32"
                yield EngineTime(names[model], kind, texts, tokens, threads, ms, noisy=row["noisy"])


def _sizes(comparison: Mapping[str, Any]) -> list[ModelSize]:
    rows = [(model, row) for model, row in _models(comparison) if "folder_mb" in row]
    return [ModelSize(model, round(1e6 * row["folder_mb"]), round(1e6 * row["memory_mb"])) for model, row in rows]


def converted_layers(stages: Any) -> list[LayerFacts]:
    """Layers after the last convert stage of a report; empty if it is not a report of this package.

    Args:
        stages: value of that key in a report, from an untrusted file.
    """
    rows = [row for row in stages if isinstance(row, dict)] if isinstance(stages, list) else []
    found = [row["layers"] for row in rows if isinstance(row.get("layers"), list)]  # other stages have their number
    try:
        return [_layer(**layer) for layer in found[-1]] if found else []
    except (LookupError, TypeError, ValueError):
        return []


def _layer(**found: Any) -> LayerFacts:
    words = {name: found[name] for name in ("name", "dtype", "block", "layout", "reason")}
    if not all(isinstance(word, str) for word in words.values()):
        raise TypeError("words must be text")
    out_features, in_features = map(int, found["shape"])
    words |= {} if not words["reason"] else {"dtype": words["dtype"] or "float32", "layout": "dense"}
    return LayerFacts(
        shape=(out_features, in_features), sparsity=float(found["sparsity"]), nbytes=int(found["bytes"]), **words
    )


def _dense_layers(job: Job) -> list[LayerFacts]:
    """Layers of a model without sparse layers."""
    return [
        LayerFacts(layer.name, layer.shape, layer.sparsity, "float32", "", "dense", _FLOAT32 * weights)
        for layer in pruning_report(job.model).layers
        if (weights := layer.shape[0] * layer.shape[1])
    ]


def _command(job: Job, given: Given) -> str:
    run = ["sparsekit", "compress", str(given.model), "--recipe", str(job.out / RECIPE)]
    return shlex.join([*run, *given.options(), "--out", str(job.out)])


def _with_engines(job: Job, given: Given) -> str:
    """How to measure other engines."""
    if job.recipe.task == "language":
        command = ["sparsekit", "bench", "language", str(given.model)]
    else:
        command = ["sparsekit", "report", str(job.out), "--task", job.recipe.task, "--dense", str(given.model)]
        command += [] if given.test is None else ["--test", str(given.test)]
    return f"The model in sparsekit.engine, and other engines: {shlex.join(command)} measures them."


def run_facts(job: Job, report: Mapping[str, Any], given: Given) -> Facts:
    """Measurements of a finished run.

    Args:
        job: the job.
        report: content of `report.json`.
        given: inputs of the run.
    """
    comparison = report["comparison"]
    layers = converted_layers(report["stages"])
    remarks = [] if layers else ["No stage converted layers: zeros are stored and multiplied like other weights."]
    return Facts(
        job.out.name,
        report["environment"],
        [_command(job, given)],
        times=list(_times(comparison, bool(layers))),
        quality=_quality(job, comparison),
        layers=layers or _dense_layers(job),
        layer_remarks=remarks,
        sizes=_sizes(comparison),
        size_remarks=["Disk: the folder's weight files. Memory: weights and buffers of the loaded model in PyTorch."],
        unknown=[_with_engines(job, given)],
    )


def write_run_page(job: Job, report: Mapping[str, Any], given: Given) -> None:
    """Write `report.html` beside the model; warn if jinja2 or matplotlib is missing."""
    try:
        from sparsekit.report.building import page_of
        from sparsekit.report.page import write_page

        write_page(page_of(run_facts(job, report, given)), job.out / RUN_PAGE)
    except ImportError as error:
        (job.out / RUN_PAGE).unlink(missing_ok=True)  # of an earlier run
        warnings.warn(f"{RUN_PAGE} is not written ({error}): {how_to_install('report')}", stacklevel=2)
