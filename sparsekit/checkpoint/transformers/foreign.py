"""Open folders with other libraries, with errors that name the folder and the problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparsekit.io.file_names import CONFIG


def check_model_folder(folder: Path) -> None:
    """Raise FileNotFoundError, with the reason, unless `folder` is a model folder."""
    if not folder.exists():
        raise FileNotFoundError(f"the model {folder} does not exist; expected a folder of transformers or of sparsekit")
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} is no model folder: it has no {CONFIG}; give the folder that has one")


def code_is_not_run(folder: Path | str) -> ValueError:
    """The error for a folder that cannot be opened without running its code."""
    return ValueError(f"{folder} needs code of its own, which is not run; if you trust it, open it in Python with "
                      "trust_remote_code=True and give the model to sparsekit.prune, convert and save")  # fmt: skip


def from_folder(loader: Callable[..., Any], folder: Path | str, **options: Any) -> Any:
    """Run a loader of transformers or sentence-transformers on a folder, without running code in the folder.

    Nothing is downloaded. By default transformers asks whether to run the code, and reads the answer from standard
    input.

    Args:
        loader: loader such as `AutoModel.from_pretrained`.
        folder: the folder.
        options: further arguments of the loader.

    Raises:
        ValueError: the folder is damaged, or cannot be opened without its code.
    """
    with _errors_of(folder):
        return loader(str(folder), local_files_only=True, trust_remote_code=False, **options)


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide the progress bars of transformers, which stay on the screen."""
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
    """Turn exceptions into errors that name the folder, except OS, import and memory errors."""
    try:
        with without_bars():
            yield
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # transformers, tokenizers and safetensors have no common base exception
        if "trust_remote_code" in str(error):
            raise code_is_not_run(folder) from error
        said = str(error).strip().splitlines() or [""]
        raise ValueError(
            f"{folder} is damaged, or its files do not fit each other ({type(error).__name__}: {said[-1].strip()})"
        ) from error
