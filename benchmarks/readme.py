"""Fill figures of all documents in from the JSON files under benchmarks/results, and tables from the code's own lists.

    .venv/bin/python benchmarks/readme.py            # writes
    .venv/bin/python benchmarks/readme.py --check    # fails if a figure is not what the files say

A block between `<!-- begin NAME -->` and `<!-- end NAME -->` is replaced by what BLOCKS[NAME] makes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import avx2_tables
import choose_tables
import costs_tables
import demo_tables
import dtypes_tables
import folders_tables
import frontier_tables
import goals_tables
import language_tables
import layers_tables
import methods_tables
import model_tables
import peak_tables
import quality_tables
import serving_tables

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
#: Processor -> what its results are called.
PROCESSORS = {"zen5": "", "zen4": "-zen4", "xeon": "-xeon"}


def _for_each_processor(name: str, make: Callable[..., str], result: str) -> dict[str, Callable[[], str]]:
    return {f"{name}-{processor}": partial(make, f"{result}{suffix}.json") for processor, suffix in PROCESSORS.items()}


BLOCKS: dict[str, Callable[[], str]] = {
    "answers": dtypes_tables.answers_block,
    "avx2": avx2_tables.avx2_block,
    "avx2-headline": avx2_tables.avx2_headline_block,
    "choose-times-zen3": partial(choose_tables.choose_times_block, "choose-times-zen3.json"),
    "cores-zen4": partial(peak_tables.cores_block, "layers-zen4.json"),
    "cores-zen5": partial(peak_tables.cores_block, "layers.json"),
    "costs": costs_tables.costs_block,
    "demo": demo_tables.demo_block,
    "dtypes-xeon": partial(dtypes_tables.other_dtypes_block, "layers-dtypes-xeon.json"),
    "dtypes-zen4": partial(dtypes_tables.other_dtypes_block, "layers-dtypes-zen4.json"),
    "dtypes-zen5": dtypes_tables.dtypes_block,
    "engines": layers_tables.engines_block,
    "few-answers": dtypes_tables.few_answers_block,
    "few-dtypes": dtypes_tables.few_dtypes_block,
    "folders": folders_tables.folders_block,
    "frontier-zen3": partial(frontier_tables.frontier_block, "frontier-zen3.json"),
    "goals-zen4": partial(goals_tables.goals_block, "layers-zen4.json", "layers-empty-zen4.json"),
    "goals-zen5": partial(goals_tables.goals_block, "layers.json", "layers-empty.json"),
    **_for_each_processor("headline", layers_tables.headline_block, "layers"),
    **_for_each_processor("layers", layers_tables.layers_block, "layers"),
    "language-int4-embeddings-zen3": partial(language_tables.language_block, "language-int4-embeddings-zen3.json"),
    "language-zen3": partial(language_tables.language_block, "language-zen3.json"),
    "masks": layers_tables.masks_block,
    "methods": methods_tables.methods_block,
    **_for_each_processor("model", model_tables.model_block, "model"),
    "model-zen3": partial(model_tables.model_block, "model-zen3.json"),
    "model-zen3-dense": partial(model_tables.dense_block, "model-zen3.json"),
    "models": model_tables.models_block,
    "operators": model_tables.operators_block,
    "pays": layers_tables.pays_block,
    "peak-zen4": partial(peak_tables.peak_block, "layers-zen4.json"),
    "peak-zen5": partial(peak_tables.peak_block, "layers.json"),
    "processes": serving_tables.processes_block,
    "quality": quality_tables.quality_block,
    "slow": layers_tables.slow_block,
    "texts": serving_tables.texts_block,
}
_BLOCK = re.compile(r"(<!-- begin ([\w-]+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def filled(text: str) -> str:
    """The document with its blocks made anew."""
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]]()}\n{match[3]}", text)


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
