"""matplotlib figures in the page's colors and fonts: as inline SVG, and as PNG files."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsekit.io.atomic_file import write_atomically
from sparsekit.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Names of colors in figures -> placeholders in SVG -> CSS variables of the page, which differ in light and dark.
_PLACEHOLDERS = {
    "ink": "#101112",
    "faint": "#101113",
    "line": "#101114",
    "ours": "#101115",
    "float32": "#101116",
    "int8": "#101117",
}
_COLORS = {name: f"page:{name}" for name in _PLACEHOLDERS}
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
_CSS, _CSS_COLOR = Path(__file__).with_name("page.css"), re.compile(r"--(\w+): (#\w+);")
_ID = re.compile(r'\sid="([^"]*)"')


def label(name: str) -> str:
    """Shorten a name to fit beside an axis.

    >>> label("onnxruntime"), label("a" * 40)
    ('onnxruntime', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaa...')
    """
    return name if len(name) <= _LABEL else f"{name[: _LABEL - 3]}..."


def picture(
    draw: Callable[[Any], object],
    description: str,
    *,
    width: float = 420,
    height: float = 240,
    title: str = "",
    hover: Mapping[str, str] | None = None,
) -> Picture:
    """Draw a figure for the page.

    Args:
        draw: fills a `matplotlib.figure.Figure`; use this module's colors to follow light and dark.
        description: alternative text.
        width: in pixels, with a font size of 11; the page scales it to its own width.
        height: likewise.
        title: caption.
        hover: `gid` of artists -> text that browsers show where a pointer is on them.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    file = io.StringIO()
    with _drawn(draw, width, height, _PLACEHOLDERS, f"{title} {description}") as figure:
        figure.savefig(file, format="svg", transparent=True)
    return Picture(_inline(file.getvalue(), hover or {}), description, title)


def write_png(draw: Callable[[Any], object], path: Path, *, width: float = 420, height: float = 240) -> None:
    """Write a figure to a PNG file, in the page's light colors.

    Args:
        draw: as in `picture`, like the next ones.
        path: the file.
        width: half as many pixels as the file has.
        height: likewise.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    colors = dict(reversed(_CSS_COLOR.findall(_CSS.read_text())))  # the light ones come first
    with _drawn(draw, width, height, {name: colors[name] for name in _COLORS}, "") as figure:
        write_atomically(path, partial(figure.savefig, format="png", dpi=2 * _DPI, facecolor=colors["paper"]))


@contextmanager
def _drawn(
    draw: Callable[[Any], object], width: float, height: float, colors: Mapping[str, str], salt: str
) -> Iterator[Figure]:
    """A figure in these colors, to be saved within the context."""
    import matplotlib
    from matplotlib.colors import get_named_colors_mapping
    from matplotlib.figure import Figure

    known = get_named_colors_mapping()
    for name, color in colors.items():
        known[_COLORS[name]] = color  # one by one: `update` would leave old colors in its cache
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, layout="constrained")
        draw(figure)
        yield figure


def _inline(svg: str, hover: Mapping[str, str]) -> str:
    """Turn an SVG file into an element of HTML, without prolog, metadata and namespaces."""
    for gid, text in hover.items():
        svg = svg.replace(f'<g id="{gid}">', f"<g><title>{html.escape(text)}</title>")
    svg = _NAMESPACES.sub("", _METADATA.sub("", _HEAD.sub("", svg)))
    for _ in ("width", "height"):  # CSS sets them
        svg = _SIZE.sub(r"\1", svg, count=1)
    svg = _ID.sub(lambda found: found[0] if f"#{found[1]}" in svg else "", svg)
    for name, color in _PLACEHOLDERS.items():
        svg = svg.replace(color, f"var(--{name})")
    return svg.strip()
