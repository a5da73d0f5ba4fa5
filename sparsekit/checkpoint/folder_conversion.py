"""Convert model folders: dense with zeros to sparse, and back."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsekit.checkpoint.saving import save
from sparsekit.checkpoint.transformers.opening import open_folder
from sparsekit.checkpoint.transformers.sentence_transformers import encoders_of, is_sentence_transformer
from sparsekit.checkpoint.verification.outputs import answers
from sparsekit.conversion import convert
from sparsekit.conversion.converting import TOKENS
from sparsekit.folder.layout import is_written_by_save
from sparsekit.io.destination import checked_destination
from sparsekit.io.hub_cache import local_folder

#: Size of the sample inputs that are stored with a converted model.
_TEXTS, _TOKENS = 2, 8


def _vocabulary(model: Any) -> int:
    """Vocabulary size of a transformers model; 0 if it does not read tokens."""
    try:
        return getattr(model.get_input_embeddings(), "num_embeddings", 0)
    except NotImplementedError:
        return 0


def _sample_inputs(model: nn.Module) -> dict[str, torch.Tensor] | None:
    """Random token ids that a model can run on; None if it needs other inputs."""
    encoders = encoders_of(model)
    vocabulary = _vocabulary(encoders[0]) if len(encoders) == 1 else 0
    if not vocabulary:
        return None
    ids = torch.randint(vocabulary, (_TEXTS, _TOKENS), generator=torch.Generator().manual_seed(0))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids}
    accepted = inspect.signature(encoders[0].forward).parameters
    inputs = {name: tensor for name, tensor in given.items() if name in accepted}
    try:
        answers(encoders[0], inputs)
    except ValueError:
        return None
    return inputs


def _batches(model: nn.Module, inputs: dict[str, torch.Tensor] | None) -> list[dict[str, Any]]:
    """The inputs in the form that the whole model takes: a `SentenceTransformer` takes them as one argument."""
    if inputs is None:
        return []
    return [{"input": inputs} if is_sentence_transformer(model) else inputs]


def convert_folder(
    source: str,
    out: Path,
    *,
    dtype: str = "float32",
    embeddings: str = "float32",
    tokens: Sequence[int] | None = None,
    min_sparsity: float | None = None,
    ignore: Iterable[str] = (),
    dense: bool = False,
    reference: str | None = None,
) -> nn.Module:
    """Convert the model in a folder and save it to another one, with its tokenizer.

    The model's outputs for a few random tokens are stored too, for `verify` to compare. The converted model is compared
    with the dense one on the same tokens.

    Args:
        source: a folder of transformers, sentence-transformers or `save`, or a name in the local hub cache.
        out: folder to write.
        dtype: see `convert`.
        embeddings: see `convert`.
        tokens: see `convert`; None for 1 and 128.
        min_sparsity: see `convert`; None measures each layer on this machine.
        ignore: layers to leave dense.
        dense: convert nothing and write every weight dense, for other libraries to open.
        reference: folder or name of the model before pruning, to compare outputs with.

    Returns:
        The model that was saved; `conversion_report` says what became of its layers, unless with `dense`.

    Raises:
        FileNotFoundError: there is no such model.
        ModuleNotFoundError: the library for this kind of folder is not installed.
        PermissionError, ValueError: `out` cannot be written, as in `save`.
        ValueError: as in `convert`, `load` and `save`, including that no layer has zeros; weights are missing; or there
            are no inputs to compare with the reference on.
    """
    target = checked_destination(out, is_written_by_save)  # checked before minutes of measuring
    folder = local_folder(source)
    if target == folder.resolve():
        raise ValueError(f"{out} is the folder to convert, whose dense weights would be lost; give another one")
    model: nn.Module
    model, tokenizer = open_folder(folder)
    if dense:
        save(model, out, tokenizer=tokenizer, dense=True)
        return model
    inputs = _sample_inputs(model)
    batches = _batches(model, inputs)
    other = None if reference is None else open_folder(local_folder(reference))[0]
    convert(
        model,
        ignore=ignore,
        dtype=dtype,
        embeddings=embeddings,
        tokens=tokens or TOKENS,
        min_sparsity=min_sparsity,
        batches=batches,
        reference=other,
    )
    save(model, out, tokenizer=tokenizer, verify_inputs=inputs)
    return model
