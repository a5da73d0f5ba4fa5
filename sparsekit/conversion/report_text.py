"""A conversion report as text of 80 columns."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sparsekit.io.atomic_file import printable
from sparsekit.wording import counted, size_text

if TYPE_CHECKING:
    from sparsekit.conversion.report import ConversionReport, LayerReport
    from sparsekit.conversion.unreached import UnreachedWeight

_WIDTH = 80
#: This many consecutive layers that differ only in their number share a line: mixtures of experts have thousands.
_TOGETHER = 4

_SLOWER = (
    "whatever its layers seem to gain, the whole does not: convert the dense model again on a quieter machine, or keep "
    "it dense (sparsekit.densify)"
)


def _filled(text: str, indent: str = "") -> str:
    """Wrap to 80 columns."""
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "    ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _together(layers: Sequence[LayerReport]) -> list[LayerReport]:
    """Merge numbered layers with the same result, such as `experts.down_proj.0-7`."""

    def kind(layer: LayerReport) -> tuple[object, ...]:
        stack, _, number = layer.name.rpartition(".")
        what = (layer.shape, layer.reason, layer.dtype, layer.block, layer.layout, layer.error is None)
        return (stack, number.isdecimal(), *what, _speedups(layer))

    found = []
    for (_, numbered, *_), members in itertools.groupby(layers, kind):
        group = list(members)
        if not numbered or len(group) < _TOGETHER:
            found += group
            continue
        first, count = group[0], len(group)
        found.append(
            replace(
                first,
                name=f"{first.name}-{group[-1].name.rpartition('.')[2]}",
                sparsity=sum(layer.sparsity for layer in group) / count,
                bytes_before=sum(layer.bytes_before for layer in group),
                bytes_after=sum(layer.bytes_after for layer in group),
                error=None if first.error is None else max(layer.error or 0.0 for layer in group),
            )
        )
    return found


def _speedups(layer: LayerReport) -> str:
    return ", ".join(f"{'~' if count in layer.noisy else ''}{times:.1f}x" for count, times in layer.speedups.items())


def _stored(layer: LayerReport, with_layout: bool) -> str:
    if not layer.converted:
        return "dense"
    block = "" if layer.block == "1x1" else f" {layer.block}"
    return f"{layer.dtype}{block}{f' {layer.layout}' if with_layout else ''}"


def _row(layer: LayerReport, with_layout: bool) -> list[str]:
    return [
        f"{layer.shape[0]} x {layer.shape[1]}",
        f"{layer.sparsity:.1%}",
        size_text(layer.bytes_before),
        size_text(layer.bytes_after),
        _stored(layer, with_layout),
        _speedups(layer),
        "" if layer.error is None else f"{layer.error:.1%}",
    ]


_TITLES = ["out x in", "sparsity", "before", "after", "weights", "speedup", "error"]
#: Text columns, which are left-aligned.
_WORDS = ("weights", "speedup")


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, titles first, without empty columns."""
    columns = [
        [title, *cells] for title, *cells in zip(_TITLES, *rows, strict=True) if any(cells) or title == _TITLES[0]
    ]
    widths = [max(map(len, column)) for column in columns]
    aligned = [
        [cell.ljust(width) if column[0] in _WORDS else cell.rjust(width) for cell in column]
        for column, width in zip(columns, widths, strict=True)
    ]
    return ["  ".join(cells).rstrip() for cells in zip(*aligned, strict=True)]


def _table(layers: Sequence[LayerReport]) -> Iterator[str]:
    """A line for each layer, or two for long names, with the reason for dense ones; layouts if they differ."""
    names = ["layer", *(printable(layer.name) for layer in layers)]
    with_layout = len({layer.layout for layer in layers if layer.converted}) > 1
    cells = _columns([_row(layer, with_layout) for layer in layers])
    width = max(map(len, names))
    fits = width + 2 + max(map(len, cells)) <= _WIDTH
    reasons = ["", *(layer.reason for layer in layers)]
    for name, line, reason in zip(names, cells, reasons, strict=True):
        yield from [f"{name:{width}}  {line}"] if fits else [name, f"    {line}"]
        if reason:
            yield _filled(reason, "    ")


def _about_speed(report: ConversionReport) -> Iterator[str]:
    """Speed-up of the whole model."""
    if report.whole is not None:
        yield str(report.whole)
        if report.whole.speedup < 1.0:
            yield _SLOWER


def _about_outputs(report: ConversionReport) -> Iterator[str]:
    """Error of the outputs, by conversion and by pruning."""
    if report.whole is not None:
        yield f"outputs against the same model dense: {report.whole.fidelity}"
        if report.whole.fidelity.far:
            yield "they moved FAR: take another dtype, or set error_budget"
    if report.reference is not None:
        yield f"outputs against the reference: {report.reference}"
        if report.reference.far:
            yield "they moved FAR: prune less, or train the pruned model before it is converted"


def _about_layers(report: ConversionReport) -> Iterator[str]:
    """Notes before the table."""
    if report.converted and report.without_zeros:
        yield "no layer has zeros: only a smaller dtype makes this model faster; prune it for more"
    noisy = sum(bool(layer.noisy) for layer in report.layers)
    if noisy:
        yield (f"noisy (~): the machine was too busy to measure {noisy} of {counted(len(report.layers), 'layer')} "
               "well; close other programs and convert again, or set min_sparsity")  # fmt: skip
    tokens = list(dict.fromkeys(count for layer in report.layers for count in layer.speedups))
    if tokens:
        counts = f"{', '.join(map(str, tokens[:-1]))} and " if tokens[1:] else ""
        yield f"speedup: times faster than dense on this machine, at {counts}{counted(tokens[-1], 'token')}"


def _unreached(other: UnreachedWeight) -> str:
    shape = " x ".join(str(size) for size in other.shape)
    count = f"{other.count} of " if other.count > 1 else ""
    size = f"{other.share:.1%} of the weights, sparsity {other.sparsity:.1%}"
    return f"not converted: {printable(other.name)} ({count}{shape}), {size}: {other.reason}"


def _summary(report: ConversionReport) -> Iterator[str]:
    size = f"{size_text(report.bytes_before)} -> {size_text(report.bytes_after)}"
    fused = f", {counted(report.fused, 'activation function')} fused" if report.fused else ""
    yield f"{report.converted} of {counted(len(report.layers), 'layer')} converted, {size}{fused}"
    for table in report.embeddings:
        rows, features = table.shape
        size = f"{size_text(table.bytes_before)} -> {size_text(table.bytes_after)}"
        yield f"word embeddings in int8: {printable(table.name)} ({rows} x {features}), {size}"
    yield from map(_unreached, report.others)
    if report.weights:
        share = report.sparse_weights / report.weights
        yield f"{share:.1%} of the model's {report.weights:,} weights are in sparse layers"


def report_text(report: ConversionReport) -> str:
    """Format a report for `print`."""
    lines = [*_about_speed(report), *_about_outputs(report), *_about_layers(report)]
    table = _table(_together(report.layers))
    return "\n".join([*map(_filled, lines), *table, *map(_filled, _summary(report))])
