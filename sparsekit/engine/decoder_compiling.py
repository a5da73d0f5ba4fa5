"""Compile the folder of a decoder."""

from __future__ import annotations

from pathlib import Path

from sparsekit import runtime
from sparsekit.engine.compiled_file import NORM_KINDS, CompiledModel, DecoderOptions
from sparsekit.engine.decoder_config import DecoderConfig, read_decoder_config
from sparsekit.engine.decoder_tensors import DecoderTensors
from sparsekit.engine.weights import Weights
from sparsekit.io.file_names import CONFIG
from sparsekit.io.untrusted import read_object, regular_file


def compiled_decoder(folder: Path, dtype: str, embeddings: str | None, weights: Weights) -> CompiledModel:
    """Compile a causal language model.

    Args:
        folder: a model folder of `sparsekit.save` or transformers.
        dtype: type of dense linear layers, as in `compile_model`, and of an untied head.
        embeddings: type of word embeddings and a tied head: "float32", "int8" or "int4"; None for the stored type.
        weights: weights of the folder.

    Raises:
        ValueError: the engine does not run the model, or the folder is damaged.
    """
    config = read_decoder_config(read_object(regular_file(folder, CONFIG)))
    return CompiledModel(_options(config), list(DecoderTensors(config, weights).read(dtype, embeddings)))


def _options(config: DecoderConfig) -> DecoderOptions:
    return DecoderOptions(
        layers=config.layers,
        head_dim=config.head_dim,
        activation=runtime.ACTIVATIONS[config.activation],
        norm=NORM_KINDS[config.family.norm],
        parallel=int(config.parallel),
        norm_eps=config.norm_eps,
        attention_scale=config.attention_scale,
        attention_cap=config.attention_cap,
        logit_cap=config.logit_cap,
        embedding_scale=config.embedding_scale,
    )
