"""Families of encoders as data: where their tensors lie and what the keys of their configuration are called.

Each computes what csrc/model/encoder.h says. A family is a row of `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: What modules hold: tables of embeddings, biases of attention for buckets of distances, layer norms with weight and
#: bias, linear layers.
TABLES = ("word_embeddings", "position_embeddings", "type_embeddings")
BIASES = ("distance_biases",)
NORMS = ("embedding_norm", "attention_norm", "output_norm")
LINEARS = ("embedding_projection", "query", "key", "value", "attention_output", "up", "down")


@dataclass(frozen=True)
class Family:
    """Encoders whose arrays and configuration have the same names."""

    #: What a module holds -> its name in the model, with `{layer}` for the number of its layer.
    modules: Mapping[str, str]
    #: Option -> key of config.json. With "padding", positions start behind that of the padding token.
    keys: Mapping[str, str]
    #: Options that the configuration may leave out, as transformers has them.
    defaults: Mapping[str, Any]
    #: Key of config.json -> the value that it must have where it is there.
    fixed: Mapping[str, Any] = field(default_factory=dict)
    #: The first position of a sequence, in families without "padding".
    first_position: int = 0


_BERT_MODULES = {
    "word_embeddings": "embeddings.word_embeddings",
    "position_embeddings": "embeddings.position_embeddings",
    "type_embeddings": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "query": "encoder.layer.{layer}.attention.self.query",
    "key": "encoder.layer.{layer}.attention.self.key",
    "value": "encoder.layer.{layer}.attention.self.value",
    "attention_output": "encoder.layer.{layer}.attention.output.dense",
    "attention_norm": "encoder.layer.{layer}.attention.output.LayerNorm",
    "up": "encoder.layer.{layer}.intermediate.dense",
    "down": "encoder.layer.{layer}.output.dense",
    "output_norm": "encoder.layer.{layer}.output.LayerNorm",
}
_DISTILBERT_MODULES = {
    "word_embeddings": "embeddings.word_embeddings",
    "position_embeddings": "embeddings.position_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "query": "transformer.layer.{layer}.attention.q_lin",
    "key": "transformer.layer.{layer}.attention.k_lin",
    "value": "transformer.layer.{layer}.attention.v_lin",
    "attention_output": "transformer.layer.{layer}.attention.out_lin",
    "attention_norm": "transformer.layer.{layer}.sa_layer_norm",
    "up": "transformer.layer.{layer}.ffn.lin1",
    "down": "transformer.layer.{layer}.ffn.lin2",
    "output_norm": "transformer.layer.{layer}.output_layer_norm",
}
_MPNET_MODULES = {
    "word_embeddings": "embeddings.word_embeddings",
    "position_embeddings": "embeddings.position_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "distance_biases": "encoder.relative_attention_bias",
    "query": "encoder.layer.{layer}.attention.attn.q",
    "key": "encoder.layer.{layer}.attention.attn.k",
    "value": "encoder.layer.{layer}.attention.attn.v",
    "attention_output": "encoder.layer.{layer}.attention.attn.o",
    "attention_norm": "encoder.layer.{layer}.attention.LayerNorm",
    "up": "encoder.layer.{layer}.intermediate.dense",
    "down": "encoder.layer.{layer}.output.dense",
    "output_norm": "encoder.layer.{layer}.output.LayerNorm",
}
_BERT_KEYS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "features": "hidden_size",
    "activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
}
_DISTILBERT_KEYS = {"layers": "n_layers", "heads": "n_heads", "features": "dim", "activation": "activation"}
_DEFAULTS = {"activation": "gelu", "norm_eps": 1e-12}
#: Embeddings that are not as wide as hidden states are projected.
_ELECTRA_MODULES = {**_BERT_MODULES, "embedding_projection": "embeddings_project"}
_ELECTRA_KEYS = {**_BERT_KEYS, "embedding_features": "embedding_size"}

_BERT = Family(_BERT_MODULES, _BERT_KEYS, _DEFAULTS)
#: Whatever the configuration says, transformers uses 32 buckets and takes the padding token's id for 1.
_MPNET = Family(_MPNET_MODULES, _BERT_KEYS, _DEFAULTS, {"relative_attention_num_buckets": 32}, first_position=2)
_ROBERTA = Family(_BERT_MODULES, {**_BERT_KEYS, "padding": "pad_token_id"}, {**_DEFAULTS, "padding": 1})

#: `model_type` of config.json -> family.
FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": Family(_DISTILBERT_MODULES, _DISTILBERT_KEYS, _DEFAULTS),
    "electra": Family(_ELECTRA_MODULES, _ELECTRA_KEYS, {**_DEFAULTS, "embedding_features": 128}),
    "mpnet": _MPNET,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
