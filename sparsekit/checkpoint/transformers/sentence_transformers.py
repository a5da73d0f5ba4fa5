"""sentence-transformers models: a transformers model and further steps, each in its own folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from sparsekit.checkpoint.transformers.models import is_transformers
from sparsekit.nn import Compressed


def is_sentence_transformer(model: nn.Module) -> bool:
    """Whether a model is a `SentenceTransformer`."""
    library = sys.modules.get("sentence_transformers")  # not imported: no model can be one
    return library is not None and isinstance(model, library.SentenceTransformer)


def encoders_of(model: nn.Module) -> list[Any]:
    """The outermost transformers models inside."""
    if is_transformers(model):
        return [model]
    return [encoder for child in model.children() for encoder in encoders_of(child)]


def check_compressed(model: nn.Module) -> None:
    """Raise ValueError if a module outside the transformers models is compressed."""
    inside = {id(module) for encoder in encoders_of(model) for module in encoder.modules()}
    for name, module in model.named_modules():
        if isinstance(module, Compressed) and id(module) not in inside:
            raise ValueError(f"{name} is a {type(module).__name__} and no part of a transformers model; "
                             "sentence-transformers could not open it: convert only model[0]")  # fmt: skip


def save_sentence_transformer(model: Any, folder: Path, write: Callable[[Any, Path], None]) -> None:
    """Save a `SentenceTransformer` with its own `save`, but write the transformers models inside with `write`.

    Args:
        model: the model.
        folder: folder to write.
        write: function that writes a model to a folder.
    """
    encoders = encoders_of(model)
    try:
        for encoder in encoders:  # each is saved through its own method, which is replaced here
            encoder.save_pretrained = lambda path, encoder=encoder, **_: write(encoder, Path(path))
        model.save(str(folder), create_model_card=False)
    finally:
        for encoder in encoders:
            encoder.__dict__.pop("save_pretrained", None)
