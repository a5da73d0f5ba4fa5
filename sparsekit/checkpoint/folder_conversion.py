"""Convert a model folder: a dense one with zeros into a sparse one, and back."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsekit.checkpoint.saving import save
from sparsekit.checkpoint.transformers.opening import open_folder
from sparsekit.checkpoint.transformers.sentences import encoders_of, is_sentence_transformer
from sparsekit.checkpoint.verification.outputs import answers
from sparsekit.conversion import conversion_report, convert
from sparsekit.conversion.report import ConversionReport
from sparsekit.folder.layout import is_written_by_save
from sparsekit.io.hub_cache import local_folder
from sparsekit.io.targets import checked_target

#: Of the inputs that a converted model is kept with.
_TEXTS, _TOKENS = 2, 8


def _vocabulary(model: Any) -> int:
    """How many tokens a transformers model knows; 0 for one that reads something else."""
    try:
        return getattr(model.get_input_embeddings(), "num_embeddings", 0)
    except NotImplementedError:
        return 0


def _sample_inputs(model: nn.Module) -> dict[str, torch.Tensor] | None:
    """Random token ids that a model answers; None where it wants something else."""
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
    """The same inputs as the whole model takes them: a `SentenceTransformer` wants them in one argument."""
    if inputs is None:
        return []
    return [{"input": inputs} if is_sentence_transformer(model) else inputs]


def convert_folder(
    source: str,
    out: Path,
    *,
    dtype: str = "float32",
    min_sparsity: float | None = None,
    ignore: Iterable[str] = (),
    dense: bool = False,
    reference: str | None = None,
) -> ConversionReport | None:
    """Convert the model in a folder and save it to another one, tokenizer and all.

    With it goes what the model answers to a few random tokens, for `verify` to compare. On them the converted model is
    compared with the dense one, too.

    Args:
        source: a folder of transformers, sentence-transformers or `save`, or a name in the local hub cache.
        out: where to.
        dtype: see `convert`.
        min_sparsity: see `convert`; None measures each layer on this machine.
        ignore: layers to leave dense.
        dense: convert nothing, and write every weight dense, for others to open.
        reference: folder or name of the model before it was pruned, to compare outputs with.

    Returns:
        What was converted; None with `dense`.

    Raises:
        FileNotFoundError: there is no such model.
        ModuleNotFoundError: the library that the folder is for is not installed.
        PermissionError, ValueError: `out` cannot be written, as `save` says it.
        ValueError: as `convert`, `load` and `save`, so also where no layer has zeros; weights are missing; or there are
            no inputs to compare with the reference on.
    """
    target = checked_target(out, is_written_by_save)  # before minutes of measuring
    folder = local_folder(source)
    if target == folder.resolve():
        raise ValueError(f"{out} is the folder to convert, whose dense weights would be lost; give another one")
    model, tokenizer = open_folder(folder)
    if dense:
        save(model, out, tokenizer=tokenizer, dense=True)
        return None
    inputs = _sample_inputs(model)
    batches = _batches(model, inputs)
    other = None if reference is None else open_folder(local_folder(reference))[0]
    convert(model, ignore=ignore, dtype=dtype, min_sparsity=min_sparsity, batches=batches, reference=other)
    save(model, out, tokenizer=tokenizer, verify_inputs=inputs)
    return conversion_report(model)
