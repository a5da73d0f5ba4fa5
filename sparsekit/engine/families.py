"""Families of encoders as data: where their tensors lie and what the keys of their configuration are called.

Each computes what csrc/model/encoder.h says. A family is a row of `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: What modules hold: tables of embeddings, layer norms with weight and bias, linear layers.
TABLES = ("word_embeddings", "position_embeddings", "type_embeddings")
NORMS = ("embedding_norm", "attention_norm", "output_norm")
LINEARS = ("query", "key", "value", "attention_output", "up", "down")


@dataclass(frozen=True)
class Head:
    """What follows the hidden states of a class of models.

    `{encoder}` in a name stands for what precedes the names of the encoder's tensors.
    """

    task: str  # a key of `TASKS`
    classifier: str
    dense: str | None = None  # a linear layer before it
    activation: str = "none"  # of `dense`: a name of `runtime.ACTIVATIONS`, or "tanh"


@dataclass(frozen=True)
class Family:
    """Encoders whose arrays and configuration have the same names."""

    #: What a module holds -> its name in the model, with `{layer}` for the number of its layer.
    modules: Mapping[str, str]
    #: Option -> key of config.json. With "padding", positions start behind that of the padding token.
    keys: Mapping[str, str]
    #: Options that the configuration may leave out, as transformers has them.
    defaults: Mapping[str, Any]
    #: End of a class of `architectures` -> its head.
    heads: Mapping[str, Head]
    #: Keys that must have the same value.
    equal: tuple[str, ...] = ()


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
_BERT_KEYS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "features": "hidden_size",
    "activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
}
_DISTILBERT_KEYS = {"layers": "n_layers", "heads": "n_heads", "features": "dim", "activation": "activation"}
_DEFAULTS = {"activation": "gelu", "norm_eps": 1e-12}


def _heads(classifier: str, dense: str, activation: str) -> Mapping[str, Head]:
    """Heads of two layers for sequences, of one for tokens, in which it is always `classifier`."""
    return {
        "ForSequenceClassification": Head("classification", classifier, dense, activation),
        "ForTokenClassification": Head("token_classification", "classifier"),
    }


_BERT = Family(_BERT_MODULES, _BERT_KEYS, _DEFAULTS, _heads("classifier", "{encoder}pooler.dense", "tanh"))
_ROBERTA = Family(
    _BERT_MODULES,
    {**_BERT_KEYS, "padding": "pad_token_id"},
    {**_DEFAULTS, "padding": 1},
    _heads("classifier.out_proj", "classifier.dense", "tanh"),
)
_ELECTRA = Family(
    _BERT_MODULES,
    _BERT_KEYS,
    _DEFAULTS,
    _heads("classifier.out_proj", "classifier.dense", "gelu"),
    equal=("embedding_size", "hidden_size"),
)
_DISTILBERT = Family(_DISTILBERT_MODULES, _DISTILBERT_KEYS, _DEFAULTS, _heads("classifier", "pre_classifier", "relu"))

#: `model_type` of config.json -> family.
FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "electra": _ELECTRA,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
