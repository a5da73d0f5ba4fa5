"""HTML pages of sections: one self-contained file, light and dark, without scripts or requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sparsekit.io.atomic_file import write_atomically

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATE = "page.html.jinja"
_NO_WORD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Table:
    """A table of text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    words: Sequence[int] = (0,)  # indices of left-aligned columns; the others hold numbers
    marked: Sequence[int] = ()  # indices of highlighted rows
    folded: bool = False  # collapsed to its title


@dataclass(frozen=True)
class Picture:
    """An inline SVG, as `sparsekit.report.pictures.picture` makes it."""

    svg: str  # trusted: not escaped
    description: str  # alternative text
    title: str = ""


@dataclass(frozen=True)
class Section:
    """A titled part of the page: paragraphs, then pictures, tables and commands."""

    title: str
    paragraphs: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    commands: Sequence[str] = ()

    @property
    def anchor(self) -> str:
        """Target of links to it.

        >>> Section("Memory and disk").anchor
        'memory-and-disk'
        """
        return _NO_WORD.sub("-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """A page: title, headline sentences, sections in order."""

    title: str
    headline: Sequence[str]
    sections: Sequence[Section]


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(_TEMPLATE)


def html_of(page: Page) -> str:
    """Render the page as one HTML file; all text is escaped, including names from untrusted files.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
    """
    return _template().render(page=page)


def write_page(page: Page, path: Path | str) -> None:
    """Write the page to a file, atomically.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
        OSError: the file cannot be written.
    """
    text = html_of(page)
    write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))
