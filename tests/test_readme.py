"""Figures in documents agree with the stored results, and commands in them exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _documents():
    names = ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")
    return [*(ROOT / name for name in names), *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_figures_come_from_the_stored_results():
    script = ROOT / "benchmarks" / "readme.py"
    result = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([\w-]+(?: [\w-]+)*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {name for line in targets for name in line.split()}
    for document in _documents():
        named = set(re.findall(r"make ([a-z]+(?:-[a-z]+)?)(?=`)", document.read_text()))
        assert named <= known, document


@pytest.mark.parametrize(
    ("document", "lines", "words"), [("README.md", 150, 1000), ("benchmarks/README.md", 120, 1500)]
)
def test_front_pages_are_short(document, lines, words):
    text = (ROOT / document).read_text()
    assert len(text.splitlines()) <= lines
    assert len(text.split()) <= words


def test_every_link_between_documents_leads_somewhere():
    for document in _documents():
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document}: {target}"
