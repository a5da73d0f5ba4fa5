"""Sentence-transformers models: a transformers model with steps after it, each in a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from sparsekit.checkpoint.transformers.models import is_transformers
from sparsekit.nn import SparseLinear


def is_sentence_transformer(model: nn.Module) -> bool:
    """Whether a model is a `SentenceTransformer`."""
    library = sys.modules.get("sentence_transformers")  # without it, nothing is
    return library is not None and isinstance(model, library.SentenceTransformer)


def encoders_of(model: nn.Module) -> list[Any]:
    """The transformers models inside, those inside of others apart."""
    if is_transformers(model):
        return [model]
    return [encoder for child in model.children() for encoder in encoders_of(child)]


def check_sparse_layers(model: nn.Module) -> None:
    """Raise ValueError if a layer outside of the transformers models is sparse."""
    inside = {id(module) for encoder in encoders_of(model) for module in encoder.modules()}
    for name, module in model.named_modules():
        if isinstance(module, SparseLinear) and id(module) not in inside:
            raise ValueError(f"{name} is sparse and no part of a transformers model; sentence-transformers could not "
                             "open it: convert only model[0]")  # fmt: skip


def save_sentence_transformer(model: Any, folder: Path, write: Callable[[Any, Path], None]) -> None:
    """Save a `SentenceTransformer` by its own `save`, with the transformers models inside written by `write`.

    Args:
        model: the model.
        folder: where to.
        write: writes a model into a folder.
    """
    encoders = encoders_of(model)
    try:
        for encoder in encoders:  # each saves itself, so this is where another way of writing can come in
            encoder.save_pretrained = lambda path, encoder=encoder, **_: write(encoder, Path(path))
        model.save(str(folder), create_model_card=False)
    finally:
        for encoder in encoders:
            encoder.__dict__.pop("save_pretrained", None)
