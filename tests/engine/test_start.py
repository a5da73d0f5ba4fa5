"""Running a compiled file does not import modules that only compiling or tokenizing needs."""

import subprocess
import sys

import pytest
from tiny_encoders import bert_with_tokenizer

from sparsekit.engine import compile_model

#: What compiling, folders, versions or bars need, and what these import in turn.
NOT_TO_RUN = (
    "email",
    "importlib.metadata",
    "importlib.resources",
    "json",
    "pkgutil",
    "rich",
    "safetensors",
    "scipy",
    "shutil",
    "sparsekit.engine.compiling",
    "sparsekit.folder",
    "sparsekit.formats",
    "tempfile",
    "torch",
    "tqdm",
    "transformers",
)
NOT_WITHOUT_TEXTS = ("tokenizers",)
#: What a text may add.
FOR_TEXTS = ("json",)

RUN = """
import sys
import numpy
before = set(sys.modules)
from sparsekit.engine import Encoder
found = Encoder(sys.argv[1], tokenizer=sys.argv[2])
assert found.run([[5, 6]])[0].shape == (2, 36)
print(*sorted(set(sys.modules) - before))
assert found.encode(["a film"]).shape == (1, 36)
print(*sorted(set(sys.modules) - before))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Modules, beside numpy's, once ids have been answered, and once texts have been."""
    folder = bert_with_tokenizer(tmp_path_factory.mktemp("start") / "model")
    file = folder.parent / "model.bin"
    compile_model(folder, file, pooling="mean")
    command = [sys.executable, "-c", RUN, str(file), str(folder / "tokenizer.json")]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [line.split() for line in lines]


def test_ids_import_only_what_runs(imported):
    for_ids, _ = imported
    assert "sparsekit.runtime.encoder" in for_ids
    assert set(for_ids).isdisjoint({*NOT_TO_RUN, *NOT_WITHOUT_TEXTS})


def test_texts_import_the_tokenizer(imported):
    _, for_texts = imported
    assert set(NOT_WITHOUT_TEXTS) <= set(for_texts)
    assert set(for_texts).isdisjoint(set(NOT_TO_RUN) - set(FOR_TEXTS))


def test_the_engine_names_what_it_imports_later():
    import sparsekit.engine

    assert "compile_model" in dir(sparsekit.engine)
    with pytest.raises(AttributeError, match=r"sparsekit\.engine.*compile_models"):
        _ = sparsekit.engine.compile_models
