"""Open folders with other libraries, with errors that name the folder and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparsekit.io.file_names import CONFIG


def check_model_folder(folder: Path) -> None:
    """Raise FileNotFoundError, with what is wrong, unless there is a model folder."""
    if not folder.exists():
        raise FileNotFoundError(f"the model {folder} does not exist; expected a folder of transformers or of sparsekit")
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} is no model folder: it has no {CONFIG}; give the folder that has one")


def code_is_not_run(folder: Path | str) -> ValueError:
    """The error for a folder that cannot be opened without its code."""
    return ValueError(f"{folder} needs code of its own, which is not run; if you trust it, open it in Python with "
                      "trust_remote_code=True and give the model to sparsekit.prune, convert and save")  # fmt: skip


def from_folder(loader: Callable[..., Any], folder: Path | str, **options: Any) -> Any:
    """What a loader of transformers or sentence-transformers makes of a folder, without code that the folder holds.

    Nothing is downloaded. Left to itself transformers asks whether to run the code, and takes for the answer what is on
    standard input.

    Args:
        loader: such as `AutoModel.from_pretrained`.
        folder: the folder.
        options: what else the loader is to be given.

    Raises:
        ValueError: the folder is damaged, or cannot be opened without its code.
    """
    with _errors_of(folder):
        return loader(str(folder), local_files_only=True, trust_remote_code=False, **options)


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from showing bars of its own, which stay behind."""
    from transformers.utils import logging

    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if had_bars:
            logging.enable_progress_bar()


@contextmanager
def _errors_of(folder: Path | str) -> Iterator[None]:
    """Have what is raised within say what is wrong with which folder; not errors of the system, packages and memory."""
    try:
        with without_bars():
            yield
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # transformers, tokenizers and safetensors have no error in common
        if "trust_remote_code" in str(error):
            raise code_is_not_run(folder) from error
        said = str(error).strip().splitlines() or [""]
        raise ValueError(
            f"{folder} is damaged, or its files do not fit each other ({type(error).__name__}: {said[-1].strip()})"
        ) from error
