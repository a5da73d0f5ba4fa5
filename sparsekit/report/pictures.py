"""matplotlib figures as inline SVG, in the page's colors and fonts."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

from sparsekit.report.page import Picture

#: Placeholder colors in figures -> CSS variables of the page, which differ in light and dark.
_VARIABLES = {
    "#101112": "ink",
    "#101113": "faint",
    "#101114": "line",
    "#101115": "ours",
    "#101116": "float32",
    "#101117": "int8",
}
_COLORS = {name: color for color, name in _VARIABLES.items()}
INK, FAINT, LINE = _COLORS["ink"], _COLORS["faint"], _COLORS["line"]
#: Colors by kind of engine.
KIND_COLORS: Mapping[str, str] = {name: _COLORS[name] for name in ("ours", "float32", "int8")}

_DPI = 72  # so that points are SVG pixels
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are not formulas
    "font.size": 11,
    "axes.edgecolor": LINE,
    "axes.labelcolor": FAINT,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
}
#: Longest axis label in characters.
_LABEL = 32
_HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_NAMESPACES = re.compile(r'\s(xmlns(:\w+)?|version)="[^"]*"')
_SIZE = re.compile(r'(<svg[^>]*?)\s(?:width|height)="[^"]*"')
_ID = re.compile(r'\sid="([^"]*)"')


def label(name: str) -> str:
    """Shorten a name to fit beside an axis.

    >>> label("onnxruntime"), label("a" * 40)
    ('onnxruntime', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaa...')
    """
    return name if len(name) <= _LABEL else f"{name[: _LABEL - 3]}..."


def picture(
    draw: Callable[[Any], object], description: str, *, width: float = 420, height: float = 240, title: str = ""
) -> Picture:
    """Draw a figure for the page.

    Args:
        draw: fills a `matplotlib.figure.Figure`; use this module's colors to follow light and dark.
        description: alternative text.
        width: in pixels, with a font size of 11; the page scales it to its own width.
        height: likewise.
        title: caption.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"{title} {description}"}):
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, layout="constrained")
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True)
    return Picture(_inline(file.getvalue()), description, title)


def _inline(svg: str) -> str:
    """Turn an SVG file into an element of HTML, without prolog, metadata and namespaces."""
    svg = _NAMESPACES.sub("", _METADATA.sub("", _HEAD.sub("", svg)))
    for _ in ("width", "height"):  # CSS sets them
        svg = _SIZE.sub(r"\1", svg, count=1)
    svg = _ID.sub(lambda found: found[0] if f"#{found[1]}" in svg else "", svg)
    for color, name in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{name})")
    return svg.strip()
