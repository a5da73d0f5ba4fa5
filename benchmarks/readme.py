"""Fill the figures of README.md and benchmarks/README.md in from the JSON files under benchmarks/results.

    .venv/bin/python benchmarks/readme.py            # writes
    .venv/bin/python benchmarks/readme.py --check    # fails if a figure is not what the files say

A block between `<!-- begin NAME -->` and `<!-- end NAME -->` is replaced by what BLOCKS[NAME] makes.
"""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path

import folders_tables
import goals_tables
import quality_tables
import tables
import values_tables

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")


BLOCKS = {
    "answers": values_tables.answers_block,
    "avx2": tables.avx2_block,
    "cores": partial(tables.cores_block, "layers.json"),
    "costs": tables.costs_block,
    "demo": tables.demo_block,
    "engines": tables.engines_block,
    "few-answers": values_tables.few_answers_block,
    "few-layers": tables.few_layers_block,
    "few-values": values_tables.few_values_block,
    "folders": folders_tables.folders_block,
    "goals": partial(goals_tables.goals_block, "layers.json", "layers-empty.json"),
    "layers": tables.layers_block,
    "masks": tables.masks_block,
    "model": tables.model_block,
    "operators": tables.operators_block,
    "peak": partial(tables.peak_block, "layers.json"),
    "quality": quality_tables.quality_block,
    "seeds": tables.seeds_block,
    "slow": tables.slow_block,
    "values": values_tables.values_block,
    "xeon-layers": partial(tables.other_layers_block, "layers-xeon.json"),
    "xeon-model": partial(tables.other_model_block, "model-xeon.json"),
    "xeon-values": partial(values_tables.other_values_block, "layers-values-xeon.json"),
    "zen4-cores": partial(tables.cores_block, "layers-zen4.json"),
    "zen4-goals": partial(goals_tables.goals_block, "layers-zen4.json", "layers-empty-zen4.json"),
    "zen4-layers": partial(tables.other_layers_block, "layers-zen4.json"),
    "zen4-model": partial(tables.other_model_block, "model-zen4.json"),
    "zen4-peak": partial(tables.peak_block, "layers-zen4.json"),
    "zen4-values": partial(values_tables.other_values_block, "layers-values-zen4.json"),
}


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
