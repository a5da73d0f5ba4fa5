"""Top-level names and packages: each is defined where the table says, and imported on first use."""

import subprocess
import sys

import pytest

import sparsekit


def test_every_public_name_is_there_and_has_a_home():
    assert set(sparsekit.__all__) - {"__version__"} == set(sparsekit._HOMES)
    for name in sparsekit.__all__:
        assert getattr(sparsekit, name) is not None, name


def test_packages_are_imported_when_they_are_asked_for():
    packages = ["importers", "exporters", "recipes", "pruning", "distillation", "runtime", "engine", "bench"]
    code = "import sys, sparsekit; assert 'torch' not in sys.modules; " + "; ".join(
        f"assert sparsekit.{package}.__name__ == 'sparsekit.{package}'" for package in packages
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(packages) <= set(dir(sparsekit))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'convret'"):
        _ = sparsekit.convret


@pytest.mark.parametrize(
    ("name", "missing", "extra"), [("compress", "pydantic", "compress"), ("prune", "torch", "torch")]
)
def test_a_missing_extra_is_named(name, missing, extra):
    code = f"import sys; sys.modules[{missing!r}] = None; import sparsekit; sparsekit.{name}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"sparsekit.{name} needs {missing}" in found.stderr
    assert f"[{extra}]" in found.stderr
