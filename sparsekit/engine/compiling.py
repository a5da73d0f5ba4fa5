"""`compile_model`: compile a model folder into one buffer or file that the core runs in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.engine.compiled_file import (
    BLOCK_ORDERS,
    NO_LAYER,
    POOLINGS,
    TANH,
    TASKS,
    CompiledModel,
    EncoderOptions,
    Tensor,
)
from sparsekit.engine.decoder_compiling import compiled_decoder
from sparsekit.engine.decoder_families import DECODER_FAMILIES, DecoderFamily
from sparsekit.engine.encoder_config import EncoderConfig, read_config
from sparsekit.engine.encoder_families import FAMILIES, Head
from sparsekit.engine.encoder_tensors import EncoderTensors
from sparsekit.engine.layouts import Layouts
from sparsekit.engine.linear_tensors import linear_tensors
from sparsekit.engine.model_type import family_of
from sparsekit.engine.sentence_modules import DENSE_LAYER, DenseModule, read_modules
from sparsekit.engine.weights import Weights, open_weights
from sparsekit.formats.dtypes import weight_dtype
from sparsekit.io.atomic_file import write_atomically
from sparsekit.io.file_names import CONFIG
from sparsekit.io.hub_cache import local_folder
from sparsekit.io.untrusted import read_object, regular_file

_HEAD_ACTIVATIONS = {**runtime.ACTIVATIONS, "tanh": TANH}
#: Types of word embeddings; int4 is for language models only.
EMBEDDING_DTYPES = ("float32", "int8", "int4")


@overload
def compile_model(
    folder: Path | str,
    path: None = None,
    *,
    dtype: str = "float32",
    embeddings: str | None = None,
    pooling: str | None = None,
    target: str = "native",
    measure: bool = False,
) -> NDArray[np.uint8]: ...


@overload
def compile_model(
    folder: Path | str,
    path: Path | str,
    *,
    dtype: str = "float32",
    embeddings: str | None = None,
    pooling: str | None = None,
    target: str = "native",
    measure: bool = False,
) -> CompiledModel: ...


def compile_model(
    folder: Path | str,
    path: Path | str | None = None,
    *,
    dtype: str = "float32",
    embeddings: str | None = None,
    pooling: str | None = None,
    target: str = "native",
    measure: bool = False,
) -> NDArray[np.uint8] | CompiledModel:
    """Compile a model: pack all its weights into one file that `Encoder` or `Generator` memory-maps.

    `docs/compiled-model.md` specifies it.

    The file runs on every processor; `target` chooses the one whose preferred layouts it uses.

    Args:
        folder: a model folder of `sparsekit.save`, transformers or sentence-transformers, or the name of a model in
            the local hub cache.
        path: file to write, atomically; None to return its bytes.
        dtype: type of the weights of dense linear layers: "float32", "bfloat16", "float16", "int8" or "int4". Sparse
            layers keep their type.
        embeddings: type of word embeddings and of a head tied to them: "float32", "int8" with a scale for each row, or,
            for language models, "int4" with a scale for each 128 features of a row; None for the type in the folder
            (16-bit floats become float32). Stored int8 codes and scales are used unchanged, except that tied embeddings
            are quantized again.
        pooling: for encoders, "mean", "cls" or "max"; None for the folder's own, if it has one. If given for a
            classifier, the encoder is compiled without its head.
        target: instruction sets to choose layouts for: "native" for the one in use, "avx2", "avx512" or "neon".
        measure: time the candidate layouts of each weight on this machine, instead of choosing by its sparsity.

    Returns:
        Without a path the compiled model's bytes, uint8, aligned to 64 bytes; else a `CompiledModel`, with its size
        `nbytes` and `bits_per_weight`, the mean over all matrices, zeros included.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: the file cannot be written.
        ValueError: the engine does not run the model, the folder is damaged, or an argument is unknown.
    """
    if target not in runtime.packing_targets():
        raise ValueError(f"target must be one of {', '.join(runtime.packing_targets())}, got {target!r}")
    model = compiled(local_folder(folder), dtype, embeddings, pooling, Layouts(target, measure=measure))
    if path is None:
        return model.in_memory()
    write_atomically(Path(path), lambda temporary: _write(model, temporary))
    return model


def is_decoder(folder: Path) -> bool:
    """Whether a model folder holds a language model rather than an encoder.

    Raises:
        ValueError: the engine does not run such a model, or the folder is damaged.
    """
    config = read_object(regular_file(read_modules(folder).encoder, CONFIG))
    return isinstance(family_of(config, {**FAMILIES, **DECODER_FAMILIES}), DecoderFamily)


def compiled(
    folder: Path,
    dtype: str,
    embeddings: str | None,
    pooling: str | None,
    layouts: Layouts,
    opened: Callable[[Path, Layouts], Weights] = open_weights,
) -> CompiledModel:
    """A model, compiled.

    Args:
        folder: as in `compile_model`, like the next ones.
        dtype: likewise.
        embeddings: likewise.
        pooling: likewise.
        layouts: in which layers are packed.
        opened: gives the weights of the encoder's or decoder's folder.

    Raises:
        ValueError: as `compile_model`.
    """
    dtype = weight_dtype(dtype)
    if embeddings is not None and embeddings not in EMBEDDING_DTYPES:
        raise ValueError(f"embeddings must be None or one of {', '.join(EMBEDDING_DTYPES)}, got {embeddings!r}")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be None or one of {', '.join(filter(None, POOLINGS))}, got {pooling!r}")
    modules = read_modules(folder)
    if is_decoder(folder):
        if pooling is not None:
            raise ValueError(f"pooling={pooling!r} makes vectors of an encoder; {folder} is a language model")
        weights = opened(modules.encoder, layouts.for_decoding())
        return compiled_decoder(modules.encoder, dtype, embeddings, weights)
    if embeddings == "int4":
        raise ValueError("embeddings of encoders are float32 or int8, got 'int4', which is for language models")
    config = read_config(read_object(regular_file(modules.encoder, CONFIG)))
    found = EncoderTensors(config, opened(modules.encoder, layouts))
    tensors = list(found.read(dtype, embeddings))
    head, pooling = head_and_pooling(config, pooling or modules.pooling)
    if head is not None:
        tensors += found.read_head(head, dtype)
    if modules.dense is not None:
        tensors += _dense_tensors(modules.dense, dtype, layouts)
    return CompiledModel(_options(config, head or modules.dense, pooling, modules.normalize), tensors)


def module_names(folder: Path) -> dict[tuple[int, str], str]:
    """Module of a folder's encoder that each compiled tensor comes from, by layer (or `NO_LAYER`) and role.

    Raises:
        ValueError: the engine does not run the model, or the folder is damaged.
    """
    encoder = read_modules(folder).encoder
    config = read_config(read_object(regular_file(encoder, CONFIG)))
    return EncoderTensors(config, open_weights(encoder, Layouts())).module_names(config.head)


def head_and_pooling(config: EncoderConfig, pooling: str | None) -> tuple[Head | None, str | None]:
    """The head that an encoder is compiled with, and how tokens become one vector.

    Args:
        config: of the encoder.
        pooling: what the caller or the modules around it say; the head goes without theirs.
    """
    head = None if pooling else config.head
    return head, pooling if head is None else head.pooling


def _dense_tensors(dense: DenseModule, dtype: str, layouts: Layouts) -> Iterator[Tensor]:
    weights = open_weights(dense.folder, layouts)
    return linear_tensors(weights, NO_LAYER, "head_dense", DENSE_LAYER, dtype, dense.activation)


def _options(
    config: EncoderConfig, head: Head | DenseModule | None, pooling: str | None, normalize: bool
) -> EncoderOptions:
    return EncoderOptions(
        layers=config.layers,
        head_dim=config.head_dim,
        first_position=config.first_position,
        activation=runtime.ACTIVATIONS[config.activation],
        norm_eps=config.norm_eps,
        attention_scale=config.attention_scale,
        pooling=POOLINGS[pooling],
        normalize=int(normalize),
        block_order=BLOCK_ORDERS["pre_norm" if config.family.pre_norm else "post_norm"],
        task=TASKS[head.task if isinstance(head, Head) else "embedding"],
        head_activation=0 if head is None else _HEAD_ACTIVATIONS[head.activation],
    )


def _write(model: CompiledModel, path: Path) -> None:
    with path.open("wb") as file:
        for piece in model.pieces():
            file.write(piece)
