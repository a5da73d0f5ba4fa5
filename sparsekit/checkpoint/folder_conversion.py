"""Convert a model folder: a dense one with zeros into a sparse one, and back."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sparsekit.checkpoint.layout import MANIFEST, SENTENCE_MODULES
from sparsekit.checkpoint.loading import load
from sparsekit.checkpoint.models import class_in_mappings
from sparsekit.checkpoint.saving import save
from sparsekit.conversion import convert
from sparsekit.conversion_report import ConversionReport

#: Any of them says that a folder has a tokenizer.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt", "vocab.json")


def local_folder(source: str) -> Path:
    """The folder of this path, or of the model of this name in the local cache of the Hugging Face hub.

    Raises:
        FileNotFoundError: there is neither; nothing is downloaded.
    """
    if Path(source).is_dir():
        return Path(source)
    hub = importlib.import_module("huggingface_hub")
    try:
        return Path(hub.snapshot_download(source, local_files_only=True))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{source} is neither a folder nor a model in the local hub cache; nothing is downloaded here: "
            f"hf download {source}"
        ) from error


def _open_dense(folder: Path) -> Any:
    """The model in a transformers folder, of the class that its configuration names."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    names = config.architectures or []
    cls: Any = class_in_mappings(config, names[0]) if len(names) == 1 else None
    if cls is None:
        raise ValueError(f"{folder / 'config.json'} must name a class of transformers in architectures, got {names}")
    arguments: dict[str, Any] = {"local_files_only": True, "output_loading_info": True}
    try:
        model, info = cls.from_pretrained(folder, **arguments)
        if any(name.startswith("pooler.") for name in info["missing_keys"]):
            model, info = cls.from_pretrained(folder, add_pooling_layer=False, **arguments)
    except RuntimeError as error:
        raise ValueError(f"weights and config.json of {folder} do not fit; a model that lost neurons is saved with "
                         f"sparsekit.save ({error})") from error  # fmt: skip
    if info["missing_keys"]:
        raise ValueError(f"{folder} has no weights for {sorted(info['missing_keys'])[:5]} of {names[0]}")
    return model


def open_folder(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer, if there is one, of a folder of sentence-transformers, transformers or `save`.

    A `SentenceTransformer` has its tokenizer inside.

    Raises:
        ModuleNotFoundError: the library that the folder is for is not installed.
        OSError, ValueError: it is no model folder, or weights are missing.
    """
    if (folder / SENTENCE_MODULES).is_file():
        library = importlib.import_module("sentence_transformers")
        return library.SentenceTransformer(str(folder), device="cpu", local_files_only=True), None
    model = load(folder) if (folder / MANIFEST).is_file() else _open_dense(folder)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return model, None
    from transformers import AutoTokenizer

    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def convert_folder(
    source: str,
    out: Path,
    *,
    values: str = "float32",
    min_sparsity: float | None = None,
    ignore: Iterable[str] = (),
    dense: bool = False,
) -> ConversionReport | None:
    """Convert the model in a folder and save it to another one, tokenizer and all.

    Args:
        source: a folder of transformers, sentence-transformers or `save`, or a name in the local hub cache.
        out: where to.
        values: see `convert`.
        min_sparsity: see `convert`; None measures each layer on this machine.
        ignore: layers to leave dense.
        dense: convert nothing, and write every weight dense, for others to open.

    Returns:
        What was converted; None with `dense`.

    Raises:
        FileNotFoundError: there is no such model.
        ModuleNotFoundError: the library that the folder is for is not installed.
        ValueError: as `convert`, `load` and `save`; or weights are missing.
    """
    model, tokenizer = open_folder(local_folder(source))
    report = None
    if not dense:
        report = convert(model, ignore=ignore, values=values, min_sparsity=min_sparsity)
    save(model, out, tokenizer=tokenizer, dense=dense)
    return report
