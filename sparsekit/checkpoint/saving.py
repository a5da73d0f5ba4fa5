"""`save`: write a model folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from sparsekit.checkpoint.card import card
from sparsekit.checkpoint.readback import check_plain, check_readable, state_to_store
from sparsekit.checkpoint.shards import ShardWriter
from sparsekit.checkpoint.tensors import storable, without_shared
from sparsekit.checkpoint.transformers.foreign import without_bars
from sparsekit.checkpoint.transformers.models import class_in_mappings, from_config, is_transformers, write_config
from sparsekit.checkpoint.transformers.sentence_transformers import (
    check_compressed,
    encoders_of,
    is_sentence_transformer,
    save_sentence_transformer,
)
from sparsekit.checkpoint.verification.verifying import write_verification
from sparsekit.checkpoint.weights import store_weights
from sparsekit.conversion import densify
from sparsekit.folder.layout import METHOD, is_written_by_save, is_written_with_tokenizer
from sparsekit.io.atomic_folder import replaced_folder
from sparsekit.io.file_names import CARD, MANIFEST, RECIPE
from sparsekit.nn import Compressed, SparseLinear
from sparsekit.pruning.masks.parametrization import masked_parameters


def save(
    model: nn.Module,
    folder: Path | str,
    *,
    tokenizer: Any = None,
    recipe: Path | str | None = None,
    dense: bool = False,
    max_shard_size: int = 5 * 10**9,
    verify_inputs: Mapping[str, Any] | None = None,
) -> None:
    """Save a model to a folder that `load` restores with bit-identical outputs.

    The folder is laid out like those of Hugging Face, with sparse weights as CSR, or as dense arrays where that takes
    fewer bytes; see `docs/format.md`. It is replaced atomically: a reader, or an interrupted program, leaves either the
    old or the new folder. Files that `save` does not write are kept. The same model gives the same bytes.

    Args:
        model: any model on the CPU: converted, or with zeros in `nn.Linear` layers, which are stored sparse if that
            takes fewer bytes and are dense again when loaded. A transformers model is saved with its configuration, a
            `SentenceTransformer` with all its parts.
        folder: folder to write; created if missing.
        tokenizer: a transformers tokenizer to save with the model.
        recipe: how the model was made: the text of `recipe.yaml`, or the `Path` of a file to copy.
        dense: write every weight dense, so that the folder opens without this library.
        max_shard_size: largest size of a weight file, in bytes; larger models are split into several files.
        verify_inputs: a few inputs as keyword arguments of the model's forward, such as `{"input_ids": ids}`, to store
            with the model's outputs for `verify` to compare; without them it compares only layers.

    Raises:
        TypeError: an argument has the wrong type, or the model has tensors of a type that files cannot store.
        ValueError: a layer still has its mask (call `finalize`), is on meta or has custom state; the model is a bare
            `SparseLinear` or `Int8Embedding`; neurons were removed and the folder is to open without this library; the
            model cannot run on `verify_inputs`; or `folder` is a file or the current directory.
        OSError: the files cannot be written; the old folder is unchanged.

    >>> import tempfile
    >>> import sparsekit
    >>> dense = nn.Sequential(nn.Linear(8, 4))
    >>> _ = dense[0].weight.data[1:].zero_()
    >>> model = nn.Sequential(SparseLinear.from_linear(dense[0]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, folder)
    ...     sparsekit.load(folder, model=nn.Sequential(nn.Linear(8, 4)))
    Sequential(
      (0): SparseLinear(in_features=8, out_features=4, bias=True, nnz=8, sparsity=0.750)
    )
    """
    _check_arguments(model, tokenizer, max_shard_size)
    if is_sentence_transformer(model):
        check_compressed(model)
        if verify_inputs is not None and len(encoders_of(model)) != 1:
            raise ValueError("verify_inputs needs one transformers model in the SentenceTransformer")
    if dense and verify_inputs is not None:
        raise ValueError("a dense folder has no place for verify_inputs; save with dense=False")
    text = _recipe_text(recipe)
    write = partial(_write_dense, max_shard_size=max_shard_size)
    if not dense:
        write = partial(_write_sparse, max_shard_size=max_shard_size, inputs=verify_inputs)
    try:
        is_replaced = is_written_by_save if tokenizer is None else is_written_with_tokenizer
        with replaced_folder(Path(folder), is_replaced) as new:
            if tokenizer is not None:
                tokenizer.save_pretrained(new)
            if text is not None:
                (new / RECIPE).write_text(text)
            if is_sentence_transformer(model):
                save_sentence_transformer(model, new, write)
            else:
                write(model, new)
    except SafetensorError as error:
        raise OSError(f"{folder} cannot be written and is as it was: {error}") from error


def _check_arguments(model: nn.Module, tokenizer: Any, max_shard_size: int) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, Compressed):
        raise ValueError(f"a bare {type(model).__name__} has no name to be stored under; save torch.nn.Sequential(it)")
    if tokenizer is not None and not hasattr(tokenizer, "save_pretrained"):
        raise TypeError(f"tokenizer must be one of transformers, got a {type(tokenizer).__name__}")
    if type(max_shard_size) is not int or max_shard_size < 1:
        raise TypeError(f"max_shard_size must be a number of bytes, such as 5 * 10**9, got {max_shard_size!r}")
    for name, module in model.named_modules():
        if masked_parameters(module):
            raise ValueError(f"{name} still has its mask; call sparsekit.finalize(model) or convert(model) first")
        cls = type(module)
        saves_itself = cls._save_to_state_dict is not nn.Module._save_to_state_dict and not issubclass(
            cls, SparseLinear
        )
        if saves_itself or cls.get_extra_state is not nn.Module.get_extra_state:
            raise ValueError(f"{name}, a {cls.__name__}, has state beyond parameters and buffers; it cannot be saved")


def _recipe_text(recipe: Path | str | None) -> str | None:
    if isinstance(recipe, str) and "\n" not in recipe and recipe.endswith((".yaml", ".yml")):
        raise ValueError(f"recipe must be its text or a Path, got the string {recipe!r}; write Path({recipe!r})")
    return recipe.read_text() if isinstance(recipe, Path) else recipe


def _write_sparse(model: nn.Module, folder: Path, max_shard_size: int, inputs: Mapping[str, Any] | None) -> None:
    shards = ShardWriter(folder, max_shard_size, METHOD)
    needs_model = True
    if is_transformers(model):
        write_config(model, folder)
    manifest, dense_bytes = store_weights(model, shards, partial(state_to_store, model, folder))
    (folder / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=2, sort_keys=True) + "\n")
    if is_transformers(model):
        needs_model = class_in_mappings(model.config, type(model).__name__) is None
    text = card(type(model).__name__, manifest, shards.nbytes, dense_bytes, needs_model=needs_model)
    (folder / CARD).write_text(text)
    write_verification(folder, model, inputs)
    check_readable(model, folder)


def _write_dense(model: nn.Module, folder: Path, max_shard_size: int) -> None:
    plain: Any = densify(copy.deepcopy(model))
    if not is_transformers(plain):
        shards = ShardWriter(folder, max_shard_size)
        for name, tensor in without_shared(plain)[0].items():
            shards.add({name: storable(name, tensor)})
        shards.close()
        return
    with suppress(TypeError):  # the constructor of a custom class may need more than a configuration
        check_plain(plain, from_config(plain))
    plain.config.__dict__.pop("quantization_config", None)
    with without_bars():
        type(plain).save_pretrained(plain, folder, max_shard_size=max_shard_size)  # the class's: the copy may differ
