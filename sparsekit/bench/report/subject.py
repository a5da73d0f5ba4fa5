"""The model that a page is about: a folder or a compiled file, in the engine and in PyTorch."""

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
    """The transformers model in a folder, its sparse layers as they are, in float32 and eval mode.

    Raises:
        OSError, ValueError: it is no model folder, or a damaged one.
    """
    encoder = read_modules(folder).encoder
    model = load(encoder) if (encoder / MANIFEST).is_file() else open_plain(encoder).float()
    return model.eval()


def encoder_of(model: Any) -> Any:
    """The encoder of a model, without the pooler, which hidden states do not need: the model must not be run again."""
    encoder = model.base_model
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


def _check_encoder(folder: Path, config: dict[str, Any]) -> None:
    kind = config.get("model_type")
    if kind in DECODER_FAMILIES or config.get("is_encoder_decoder") or config.get("is_decoder"):
        raise ValueError(f"{folder} is a language model ({kind!s:.80}), and pages are of encoders; measure it with: "
                         f"sparsekit bench language {folder}")  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Args:
        path: its folder, or a compiled file.
        compiled: as the engine runs it; None where it does not.
        refusal: why it does not.
    """

    path: Path
    compiled: NDArray[np.uint8] | None
    refusal: str = ""

    @property
    def folder(self) -> Path | None:
        """Its folder, if it is not a compiled file."""
        return self.path if self.path.is_dir() else None

    @cached_property
    def core(self) -> runtime.CompiledEncoder | None:
        """It in the engine."""
        return None if self.compiled is None else runtime.CompiledEncoder(self.compiled)

    @cached_property
    def model(self) -> Any:
        """It in PyTorch, as `open_model` gives it; None of a compiled file."""
        return None if self.folder is None else open_model(self.folder)

    def encoder(self) -> nn.Module | None:
        """A copy of its encoder in PyTorch, sparse layers as they are; None of a compiled file."""
        return None if self.model is None else encoder_of(copy.deepcopy(self.model))

    def dense_encoder(self) -> HiddenState | None:
        """The same with every layer dense; None of a compiled file."""
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
        runtime.CompiledEncoder(compiled)  # checks all of it
        return Subject(Path(source), compiled)
    folder = local_folder(source)
    encoder = read_modules(folder).encoder
    _check_encoder(folder, read_object(regular_file(encoder, CONFIG)))
    try:
        return Subject(folder, compile_model(folder))
    except ValueError as error:
        return Subject(folder, None, str(error))
