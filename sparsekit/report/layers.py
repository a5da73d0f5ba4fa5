"""Section on layers: how each is stored, and why some stayed dense."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sparsekit.report.facts import LayerFacts
from sparsekit.report.page import Section, Table
from sparsekit.wording import counted, size_text

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
_FLOAT32 = 4  # bytes
_WORDS = (0, 8)
_COLUMNS = ("layer", "out x in", "sparsity", "dtype", "block", "layout", "size", "of float32")


def _dense_bytes(layer: LayerFacts) -> int:
    return _FLOAT32 * layer.shape[0] * layer.shape[1]


def _share(nbytes: int, dense: int) -> str:
    return f"{nbytes / dense:.0%}" if dense else ""


def _row(layer: LayerFacts) -> list[str]:
    stored = (layer.dtype, "" if layer.layout == "dense" else layer.block, layer.layout)
    shape = f"{layer.shape[0]} x {layer.shape[1]}"
    share = _share(layer.nbytes, _dense_bytes(layer))
    return [layer.name, shape, f"{layer.sparsity:.1%}", *stored, size_text(layer.nbytes), share, layer.reason]


def _table(rows: Sequence[list[str]], title: str = "", *, folded: bool = False) -> Table:
    """With a column of reasons if any layer has one."""
    if any(row[-1] for row in rows):
        return Table((*_COLUMNS, "why dense"), rows, title, _WORDS, folded=folded)
    return Table(_COLUMNS, [row[:-1] for row in rows], title, folded=folded)


def _range(values: Sequence[str]) -> str:
    """Join distinct words in order."""
    return ", ".join(dict.fromkeys(filter(None, values)))


def _together(layers: Sequence[LayerFacts]) -> list[list[str]]:
    """One row for all layers whose names differ only in numbers."""
    groups: dict[str, list[LayerFacts]] = {}
    for layer in layers:
        groups.setdefault(_NUMBER.sub("*", layer.name), []).append(layer)
    rows = []
    for name, group in groups.items():
        weights = sum(one.shape[0] * one.shape[1] for one in group)
        kept = sum((1.0 - one.sparsity) * one.shape[0] * one.shape[1] for one in group)
        cells = [_row(one) for one in group]
        size, dense = sum(one.nbytes for one in group), sum(map(_dense_bytes, group))
        words = [_range([row[place] for row in cells]) for place in (1, 3, 4, 5, 8)]
        sparsity = f"{1.0 - kept / weights:.1%}" if weights else ""
        told = f"{name} ({len(group)})" if len(group) > 1 else name
        rows.append([told, words[0], sparsity, *words[1:4], size_text(size), _share(size, dense), words[4]])
    return rows


def layers_section(layers: Sequence[LayerFacts], remarks: Sequence[str]) -> Section:
    """Table of layers grouped by name, and a collapsed table of every layer."""
    size, dense = sum(layer.nbytes for layer in layers), sum(map(_dense_bytes, layers))
    sparse = sum(layer.layout != "dense" for layer in layers)
    told = f"{sparse} of {counted(len(layers), 'linear layer')} are sparse. Together they take {size_text(size)}"
    told += f", {_share(size, dense)} of their {size_text(dense)} as dense float32." if dense else "."
    kinds, every = _together(layers), [_row(layer) for layer in layers]
    tables = [_table(every, "Every layer", folded=True)] if len(kinds) < len(every) else []
    return Section("Layers", [told, *remarks], tables=[_table(kinds), *tables])
