"""Fill the figures of README.md and benchmarks/README.md in from the JSON files under benchmarks/results.

    .venv/bin/python benchmarks/readme.py            # writes
    .venv/bin/python benchmarks/readme.py --check    # fails if a figure is not what the files say

A block between `<!-- begin NAME -->` and `<!-- end NAME -->` is replaced by what BLOCKS[NAME] makes.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from sparsekit.bench.summary import break_even, by_sparsity, medians, speedups
from sparsekit.demo.report import markdown

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")


def _load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return loaded


def _machine(environment: dict[str, Any]) -> str:
    packages = environment["packages"]
    return (
        f"{environment['cpu']}, {environment['processors']} processors, {environment['isa']} kernels, "
        f"torch {packages['torch']}, Python {environment['python']}."
    )


def demo_block() -> str:
    """The table that the demo printed."""
    result = _load("demo.json")
    seconds = sum(result["stage_seconds"].values())
    before = result["pruned_accuracy_before_distillation"]
    return (
        f"{markdown(result)}\n\n"
        f"`make demo`, {seconds:.0f} seconds after the install, {result['train_sentences']:,} sentences to train on, "
        f"{result['test_sentences']:,} others to test on; after pruning and before it learned from its teacher, the "
        f"student was at {before:.1%}. {_machine(result['environment'])} Stored in `benchmarks/results/demo.json`."
    )


def seeds_block() -> str:
    """Accuracy of the demo's models over seeds."""
    lines = [
        "| seed | sparsity | teacher | student | difference | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for path in sorted(RESULTS.glob("demo*.json")):
        result = json.loads(path.read_text())
        teacher, student = result["teacher"]["accuracy"], result["student"]["accuracy"]
        lines.append(
            f"| {result['settings']['seed']} | {result['sparsity']:.0%} | {teacher:.1%} | {student:.1%} "
            f"| {100 * (student - teacher):+.1f} points | {sum(result['stage_seconds'].values()):.0f} |"
        )
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):.2f}x ({min(values):.2f}-{max(values):.2f})"


def _packed_sizes(rows: list[dict[str, Any]]) -> str:
    """Bytes of packed weights as a fraction of the dense ones, median over the shapes."""
    ratios: dict[float, list[float]] = {}
    for row in rows:
        if row["engine"] == "sparsekit":
            dense = 4 * row["out_features"] * row["in_features"]
            ratios.setdefault(row["sparsity"], []).append(row["weight_bytes"] / dense)
    return ", ".join(f"{statistics.median(ratios[key]):.2f} at {key:.0%}" for key in sorted(ratios))


def layers_block() -> str:
    """Speed-up over the best dense engine by threads, batch and sparsity: median over the shapes, and the range."""
    stored = _load("layers.json")
    found = speedups(stored["rows"])
    sparsities = sorted({cell.sparsity for cell in found})
    lines = ["| threads | tokens | " + " | ".join(f"{sparsity:.0%}" for sparsity in sparsities) + " | pays from |"]
    lines.append("| --- | ---: |" + " ---: |" * (len(sparsities) + 1))
    for (threads, batch), values in by_sparsity(found).items():
        even = break_even(medians(values))
        texts = " | ".join(_cell(group) for group in values.values())
        lines.append(f"| {threads} | {batch} | {texts} | {'-' if even is None else f'{even:.0%}'} |")
    shapes = sorted({(cell.out_features, cell.in_features) for cell in found})
    noisy = sum(row["noisy"] for row in stored["rows"])
    packages = stored["environment"]["packages"]
    return (
        "\n".join(lines)
        + f"\n\nMedian over the shapes {', '.join(f'{a}x{b}' for a, b in shapes)} and the range, times faster than the "
        f"fastest of torch, ONNX Runtime {packages['onnxruntime']} and OpenVINO {packages['openvino']} for that cell, "
        f"random masks, all in one process, interleaved, outputs bound where the engine can; {noisy} of "
        f"{len(stored['rows'])} timings were noisy. A packed weight takes this part of the dense one's bytes: "
        f"{_packed_sizes(stored['rows'])}. {_machine(stored['environment'])} Stored in "
        "`benchmarks/results/layers.json`; `make bench` measures it anew."
    )


def slow_block() -> str:
    """Every cell in which sparse was slower than 0.95 of the best dense engine."""
    found = speedups(_load("layers.json")["rows"])
    slow: dict[tuple[int, int, float], list[str]] = {}
    for cell, times in sorted(found.items()):
        if times < 0.95:
            text = f"{cell.out_features}x{cell.in_features} {times:.2f}x"
            slow.setdefault((cell.threads, cell.batch, cell.sparsity), []).append(text)
    lines = ["| threads | tokens | sparsity | shapes |", "| --- | ---: | ---: | --- |"]
    lines += [f"| {t} | {b} | {s:.0%} | {', '.join(texts)} |" for (t, b, s), texts in sorted(slow.items())]
    count = sum(map(len, slow.values()))
    return "\n".join(lines) + f"\n\n{count} of {len(found)} cells are slower than 0.95 of the best dense engine."


BLOCKS = {"demo": demo_block, "seeds": seeds_block, "layers": layers_block, "slow": slow_block}


def filled(text: str) -> str:
    """The document with its blocks made anew."""
    for name, make in BLOCKS.items():
        pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if pattern.search(text):
            block = make()
            text = pattern.sub(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)
    return text


def main(arguments: list[str]) -> None:
    """Write the documents, or check them."""
    for path in DOCUMENTS:
        text = path.read_text()
        if filled(text) == text:
            continue
        if "--check" in arguments:
            sys.exit(f"{path.relative_to(ROOT)} differs from benchmarks/results; run make readme")
        path.write_text(filled(text))
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
