"""A page of HTML made of sections: one file, light or dark as its reader likes, without scripts or requests."""

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
    """Cells as text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    words: Sequence[int] = (0,)  # numbers of the columns of words; the others are figures
    marked: Sequence[int] = ()  # numbers of the rows that are set off
    folded: bool = False  # whether only the title is shown until a reader opens it


@dataclass(frozen=True)
class Picture:
    """A drawing, as `sparsekit.report.pictures.picture` makes it."""

    svg: str  # trusted: it stands in the page as it is
    description: str  # for those who do not see it
    title: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page under a title: paragraphs, then pictures, tables and commands."""

    title: str
    paragraphs: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    commands: Sequence[str] = ()

    @property
    def anchor(self) -> str:
        """Its name in links.

        >>> Section("Memory and disk").anchor
        'memory-and-disk'
        """
        return _NO_WORD.sub("-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """A page: its title, the sentences that matter most, and sections in their order."""

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
    """The page as one HTML file; all of its text is escaped, names out of untrusted files among it.

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
