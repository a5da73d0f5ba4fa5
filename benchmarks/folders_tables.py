"""What model folders cost: a table from `folders.json`."""

from __future__ import annotations

import json
from typing import Any

from tables import RESULTS, machine, table

#: How the table calls what loads a folder.
_LOADERS = {"load": "`sparsekit.load`", "from_pretrained": "`from_pretrained`"}


def _line(row: dict[str, Any], dense: dict[str, Any]) -> list[str]:
    def with_part(name: str) -> str:
        return f"{row[name] / 1e6:.1f} ({row[name] / dense[name]:.2f})"

    return [
        row["folder"],
        _LOADERS[row["by"]],
        f"{row['disk_bytes'] / 1e6:.1f}",
        f"{row['loaded_bytes'] / 1e6:.1f}",
        with_part("linear_bytes"),
        with_part("loaded_linear_bytes"),
        f"{row['peak_over_loaded']:.2f}",
        f"{1e3 * row['seconds']:.0f}",
        f"{1e3 * row['seconds_read']:.0f}",
    ]


def folders_block() -> str:
    """Every folder and what loads it: bytes on disk and in memory, milliseconds."""
    result = json.loads((RESULTS / "folders.json").read_text())
    dense = result["rows"][0]
    sizes = ["MB on disk", "MB in RAM", "linear weights", "linear layers in RAM", "peak"]
    heading = ["folder", "loaded by", *sizes, "ms", "ms until read"]
    return (
        table(heading, [_line(row, dense) for row in result["rows"]], text_columns=2)
        + f"\n\n{result['model']}, linear layers pruned by magnitude, every load in a process of its own, medians of "
        f"{result['repeats']}, files in the system's cache, one thread of torch. RAM is resident memory that the model "
        "added, after each weight was read once; linear weights: their bytes, packed, and as a part of the dense "
        "model's; linear layers in RAM: all of it without the bytes of other tensors, so with objects of Python and "
        "what is left of pages; peak: the most while loading, as a part of RAM. transformers maps the dense file and "
        "reads weights when they are first used; `sparsekit.load` reads them, with checksums, before it returns. "
        f"{machine(result['environment'])} Stored in `benchmarks/results/folders.json`; by `benchmarks/folders.py`."
    )
