"""Open model folders of transformers and sentence-transformers, without running code in them."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from sparsekit.checkpoint.loading import load
from sparsekit.checkpoint.transformers.foreign import check_model_folder, code_is_not_run, from_folder
from sparsekit.checkpoint.transformers.models import class_in_mappings
from sparsekit.folder.weight_files import check_finalized
from sparsekit.io.file_names import MANIFEST, SENTENCE_MODULES
from sparsekit.io.untrusted import read_json, regular_file

#: Names of sentence-transformers classes; names that are only imported there, such as `util.os`, do not match.
_STEP = re.compile(r"sentence_transformers(\.[a-z_]+)*\.(models|modules)(\.[a-z_]+)*\.[A-Z]\w*")
#: A folder with any of these has a tokenizer.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt", "vocab.json")


def open_plain(folder: Path) -> Any:
    """The model in a transformers folder, of the class named in its configuration."""
    from transformers import AutoConfig

    check_model_folder(folder)
    config = from_folder(AutoConfig.from_pretrained, folder)
    names = config.architectures or []
    cls: Any = class_in_mappings(config, names[0]) if len(names) == 1 else None
    if cls is None:
        raise ValueError(f"{folder / 'config.json'} must name a class of transformers in architectures, got {names}")
    try:
        model, info = from_folder(cls.from_pretrained, folder, output_loading_info=True)
        if any(name.startswith("pooler.") for name in info["missing_keys"]):
            model, info = from_folder(cls.from_pretrained, folder, output_loading_info=True, add_pooling_layer=False)
    except ValueError as error:
        raise ValueError(f"{error}; a model that lost neurons is saved with sparsekit.save") from error
    if info["missing_keys"]:
        check_finalized(folder, info["unexpected_keys"])
        raise ValueError(f"{folder} has no weights for {sorted(info['missing_keys'])[:5]} of {names[0]}")
    return model


def _check_steps(folder: Path) -> None:
    """Raise ValueError unless all steps are sentence-transformers' own: versions before 6 run any code they name."""
    steps = read_json(regular_file(folder, SENTENCE_MODULES))
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ValueError(f"{folder / SENTENCE_MODULES} must hold a list of objects")
    if not all(isinstance(step.get("type"), str) and _STEP.fullmatch(step["type"]) for step in steps):
        raise code_is_not_run(folder)


def open_folder(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer, if any, in a folder of sentence-transformers, transformers or `save`.

    A `SentenceTransformer` contains its tokenizer.

    Raises:
        ModuleNotFoundError: the library for this kind of folder is not installed.
        OSError, ValueError: it is not a model folder, or weights are missing.
    """
    if (folder / SENTENCE_MODULES).is_file():
        library = importlib.import_module("sentence_transformers")
        _check_steps(folder)
        return from_folder(library.SentenceTransformer, folder, device="cpu"), None
    model = load(folder) if (folder / MANIFEST).is_file() else open_plain(folder)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return model, None
    from transformers import AutoTokenizer

    return model, from_folder(AutoTokenizer.from_pretrained, folder)
