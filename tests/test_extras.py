"""Extras and packages that messages tell users to install exist."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_extra_that_a_message_or_document_names_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [path.read_text() for path in (ROOT / "sparsekit").rglob("*.py")]
    named = {name for text in sources for name in re.findall(r"how_to_install\([\"'](\w+)[\"']\)", text)}
    documents = [path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))]
    named |= {name for text in documents for found in re.findall(r"\.\[([\w,]+)\]", text) for name in found.split(",")}
    assert len(named) > 5
    assert named <= set(extras)


def test_no_message_names_a_package_that_no_index_has():
    """The distribution is not published: people install it from a checkout."""
    for path in (ROOT / "sparsekit").rglob("*.py"):
        assert "pip install 'sparsekit-cpu" not in path.read_text(), path
