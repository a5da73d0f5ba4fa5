"""What model folders cost: a table from `folders.json`."""

from __future__ import annotations

import json
from typing import Any

from tables import RESULTS, machine, table

#: How the table calls what loads a folder.
_LOADERS = {"load": "`sparsekit.load`", "from_pretrained": "`from_pretrained`"}


def _line(row: dict[str, Any], dense: dict[str, Any]) -> list[str]:
    part = row["loaded_linear_bytes"] / dense["loaded_linear_bytes"]
    return [
        row["folder"],
        _LOADERS[row["by"]],
        f"{row['disk_bytes'] / 1e6:.1f}",
        f"{row['loaded_bytes'] / 1e6:.1f}",
        f"{row['loaded_linear_bytes'] / 1e6:.1f} ({part:.2f})",
        f"{row['peak_over_loaded']:.2f}",
        f"{1e3 * row['seconds']:.0f}",
        f"{1e3 * row['seconds_read']:.0f}",
    ]


def folders_block() -> str:
    """Every folder and what loads it: bytes on disk and in memory, milliseconds."""
    result = json.loads((RESULTS / "folders.json").read_text())
    dense = result["rows"][0]
    heading = ["folder", "loaded by", "MB on disk", "MB in RAM", "of linear weights", "peak", "ms", "ms until read"]
    return (
        table(heading, [_line(row, dense) for row in result["rows"]], text_columns=2)
        + f"\n\n{result['model']}, linear layers pruned by magnitude, every load in a process of its own, medians of "
        f"{result['repeats']}, files in the system's cache, one thread of torch. RAM is resident memory that the model "
        "added, after each weight was read once; of linear weights: without the bytes of all other tensors, and as a "
        "part of the dense model's; peak: the most while loading, as a part of RAM. transformers maps the dense file "
        "and reads weights when they are first used; `sparsekit.load` reads them, with checksums, before it returns. "
        f"{machine(result['environment'])} Stored in `benchmarks/results/folders.json`; by `benchmarks/folders.py`."
    )
