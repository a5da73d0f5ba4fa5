"""The documents say what the stored results say, and their commands exist."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_figures_come_from_the_stored_results():
    script = ROOT / "benchmarks" / "readme.py"
    result = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([\w-]+(?: [\w-]+)*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {name for line in targets for name in line.split()}
    for document in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md"):
        named = set(re.findall(r"make ([a-z]+(?:-[a-z]+)?)(?=`)", (ROOT / document).read_text()))
        assert named <= known, document
