"""The model to report on: a folder or a compiled file, in the engine and in PyTorch."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sparsekit import runtime
from sparsekit.bench.models.problem import HiddenState
from sparsekit.checkpoint import load
from sparsekit.checkpoint.transformers.opening import open_plain
from sparsekit.conversion import densify
from sparsekit.engine import compile_model
from sparsekit.engine.compiled_file import read_compiled
from sparsekit.engine.decoder_families import DECODER_FAMILIES
from sparsekit.engine.sentence_modules import read_modules
from sparsekit.io.file_names import CONFIG, MANIFEST
from sparsekit.io.hub_cache import local_folder
from sparsekit.io.untrusted import read_object, regular_file


def open_model(folder: Path) -> Any:
    """Open the transformers model in a folder, with its sparse layers, in float32 and eval mode.

    Raises:
        OSError, ValueError: it is not a model folder, or it is damaged.
    """
    encoder = read_modules(folder).encoder
    model = load(encoder) if (encoder / MANIFEST).is_file() else open_plain(encoder).float()
    return model.eval()


def encoder_of(model: Any) -> Any:
    """Encoder of a model without pooler, in place: hidden states do not need it, but the model itself would."""
    encoder = model.base_model
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


def _check_encoder(folder: Path, config: dict[str, Any]) -> None:
    kind = config.get("model_type")
    if kind in DECODER_FAMILIES or config.get("is_encoder_decoder") or config.get("is_decoder"):
        raise ValueError(f"{folder} is a language model ({kind!s:.80}), and reports are of encoders; measure it with: "
                         f"sparsekit bench language {folder}")  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Args:
        path: its folder, or a compiled file.
        compiled: compiled for the engine; None if the engine does not run it.
        refusal: why it does not.
    """

    path: Path
    compiled: NDArray[np.uint8] | None
    refusal: str = ""

    @property
    def folder(self) -> Path | None:
        """Its folder; None for a compiled file."""
        return self.path if self.path.is_dir() else None

    @cached_property
    def core(self) -> runtime.CompiledEncoder | None:
        """Model in the engine; None if the engine does not run it."""
        return None if self.compiled is None else runtime.CompiledEncoder(self.compiled)

    @cached_property
    def model(self) -> Any:
        """Model in PyTorch, see `open_model`; None for a compiled file."""
        return None if self.folder is None else open_model(self.folder)

    def encoder(self) -> nn.Module | None:
        """Copy of its encoder in PyTorch with its sparse layers; None for a compiled file."""
        return None if self.model is None else encoder_of(copy.deepcopy(self.model))

    def dense_encoder(self) -> HiddenState | None:
        """Copy of its encoder with every layer dense; None for a compiled file."""
        encoder = self.encoder()
        return None if encoder is None else HiddenState(densify(encoder))


def open_subject(source: str) -> Subject:
    """Open a model folder, a model in the local hub cache, or a compiled file.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it is damaged, or a language model.
    """
    if Path(source).is_file():
        compiled = read_compiled(Path(source), mmap=True)
        runtime.CompiledEncoder(compiled)  # validates it
        return Subject(Path(source), compiled)
    folder = local_folder(source)
    encoder = read_modules(folder).encoder
    _check_encoder(folder, read_object(regular_file(encoder, CONFIG)))
    try:
        return Subject(folder, compile_model(folder))
    except ValueError as error:
        return Subject(folder, None, str(error))
