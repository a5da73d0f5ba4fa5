"""What model folders cost: a table from `folders.json`."""

from __future__ import annotations

import json
from typing import Any

from results_tables import RESULTS, machine, source, table

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
    sizes = ["MB on disk", "MB in RAM", "packed linear weights", "linear layers in RAM", "peak / RAM"]
    heading = ["folder", "loaded by", *sizes, "ms to load", "ms until weights are read"]
    return (
        table(heading, [_line(row, dense) for row in result["rows"]], text_columns=2)
        + f"\n\n{result['model']}, linear layers pruned by magnitude; every load in its own process, medians of "
        f"{result['repeats']}, page cache warm, one thread. RAM: resident memory that the model added after every "
        "weight was read once. Packed linear weights: MB, and as a part of the dense model's. Linear layers in RAM: "
        "RAM without the bytes of other tensors, so with Python objects and partly filled pages. transformers maps "
        "the dense file and reads weights at first use; `sparsekit.load` reads and checks them before it returns. "
        f"{machine(result['environment'])} {source('folders.json')}"
    )
