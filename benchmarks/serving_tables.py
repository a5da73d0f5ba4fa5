"""Tables of texts and of whole processes, made from the JSON files of `texts.py` and `processes.py`."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from results_tables import load, machine, source, table

_MEGABYTE = 1e6
_REFERENCE = "sentence-transformers"


def texts_block() -> str:
    """Milliseconds a text of every engine, and how many times faster than sentence-transformers."""
    stored = load("texts.json")
    sets: dict[str, dict[str, float]] = defaultdict(dict)
    for row in stored["rows"]:
        sets[f"{row['texts']} {row['set']}, {row['way']}"][row["engine"]] = row["ms_a_text"]
    engines = list(next(iter(sets.values())))
    lines = [
        [engine, *(f"{ms[engine]:.2f} ({ms[_REFERENCE] / ms[engine]:.1f}x)" for ms in sets.values())]
        for engine in engines
    ]
    return (
        table(["engine", *sets], lines, text_columns=1)
        + f"\n\nMilliseconds a text, film reviews to vectors, tokenizing included, one thread; {stored['model']} with "
        f"linear layers {stored['sparsity']:.0%} sparse; how many times faster than {_REFERENCE} on torch. "
        f"{machine(stored['environment'])} {source('texts.json')}"
    )


def _process_rows(found: dict[str, Any], sharing: str) -> dict[str, str]:
    calls, idle = max(found["growth"], key=int), found["idle"]
    return {
        "model on disk, MB": f"{found['disk'] / _MEGABYTE:.1f}",
        "start to first answer, ms": f"{1e3 * found['seconds']:.0f}",
        "resident after the first answer, MB": f"{found['resident'] / _MEGABYTE:.1f}",
        f"resident after {calls} calls of mixed sizes, MB": f"{found['growth'][calls]['resident'] / _MEGABYTE:.1f}",
        f"processor time of {idle['idle_seconds']:.0f} s idle, ms": f"{1e3 * idle['processor_seconds']:.1f}",
        f"{sharing} processes together (Pss), MB": f"{found['proportional'][sharing] / _MEGABYTE:.1f}",
    }


def processes_block() -> str:
    """Cost of a serving process without torch."""
    stored = load("processes.json")
    engines = stored["engines"]
    sharing = max(next(iter(engines.values()))["proportional"], key=int)
    columns = {name: _process_rows(found, sharing) for name, found in engines.items()}
    lines = [[row, *(cells[row] for cells in columns.values())] for row in next(iter(columns.values()))]
    return (
        table(["", *columns], lines, text_columns=1)
        + f"\n\n{stored['model']} with linear layers {stored['sparsity']:.0%} sparse, sparsekit's with word embeddings "
        f"in int8. Two threads are {stored['threads']['times_faster']:.2f} times as fast as one on 16 x 128 tokens. "
        f"{machine(stored['environment'])} {source('processes.json')}"
    )
