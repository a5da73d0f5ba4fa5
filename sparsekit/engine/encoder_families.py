"""Families of encoders as data: names of their tensors and of their configuration keys.

csrc/model/encoder.h says what they compute. A family is a row of `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

#: Kinds of modules: embedding tables, relative attention biases, layer norms, linear layers.
TABLES = ("word_embeddings", "position_embeddings", "type_embeddings")
BIASES = ("distance_biases",)
NORMS = ("embedding_norm", "projection_norm", "attention_norm", "output_norm", "final_norm")
LINEARS = ("embedding_projection", "query", "key", "value", "attention_output", "up", "gate", "down")


@dataclass(frozen=True)
class Head:
    """Head of a class of models: the layers after the hidden states.

    `{encoder}` in a name stands for the prefix of the encoder's tensors.
    """

    task: str  # a key of `TASKS`
    classifier: str
    dense: str | None = None  # a linear layer before it
    activation: str = "none"  # of `dense`: a name of `runtime.ACTIVATIONS`, or "tanh"
    pooling: str | None = None  # of the tokens, if sequences are classified: a key of `POOLINGS`
    norm: str | None = None  # a layer norm behind `dense`
    #: "activation", "pooling" -> key of config.json that says it, in the words of transformers.
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """Encoders with the same tensor names and configuration keys."""

    #: Kind of a module -> its name in the model, with `{layer}` for the layer's number. Linear layers with the same
    #: name are equal parts of a fused module's rows, in this order.
    modules: Mapping[str, str]
    #: Option -> key of config.json. With "padding", positions start after the padding token's id (RoBERTa).
    keys: Mapping[str, str]
    #: Default values of options, as in transformers.
    defaults: Mapping[str, Any]
    #: Suffix of a class in `architectures` -> its head; other heads are ignored.
    heads: Mapping[str, Head] = field(default_factory=dict)
    #: Key of config.json -> the only value supported, if the key is present.
    fixed: Mapping[str, Any] = field(default_factory=dict)
    #: Position of a sequence's first token, in families without "padding".
    first_position: int = 0
    #: Modules -> key of config.json for whether they have a bias; other norms have one, other linear layers may.
    biases: Mapping[str, str] = field(default_factory=dict)
    #: Modules that the first layer lacks.
    absent_in_first_layer: tuple[str, ...] = ()
    #: Whether blocks are pre-norm: layer norms come before attention and feed-forward network.
    pre_norm: bool = False
    #: Whether queries and keys have rotary position embeddings, see `encoder_rotary`.
    rotary: bool = False
    #: Whether attention is disentangled, see `relative_config`.
    relative: bool = False
    #: Optional module -> key of config.json, false or 0 if the model lacks the module, and its default.
    optional: Mapping[str, tuple[str, bool | int]] = field(default_factory=dict)
    #: Optional modules whose unused weights are ignored; those of others are refused.
    ignored: tuple[str, ...] = ()


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
_MODERNBERT_MODULES = {
    "word_embeddings": "embeddings.tok_embeddings",
    "embedding_norm": "embeddings.norm",
    "final_norm": "final_norm",
    "query": "layers.{layer}.attn.Wqkv",
    "key": "layers.{layer}.attn.Wqkv",
    "value": "layers.{layer}.attn.Wqkv",
    "attention_output": "layers.{layer}.attn.Wo",
    "attention_norm": "layers.{layer}.attn_norm",
    "up": "layers.{layer}.mlp.Wi",
    "gate": "layers.{layer}.mlp.Wi",
    "down": "layers.{layer}.mlp.Wo",
    "output_norm": "layers.{layer}.mlp_norm",
}
_DEBERTA_MODULES = {
    "word_embeddings": "embeddings.word_embeddings",
    "position_embeddings": "embeddings.position_embeddings",
    "type_embeddings": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "embedding_projection": "embeddings.embed_proj",
    "projection_norm": "embeddings.LayerNorm",
    "relative_embeddings": "encoder.rel_embeddings",
    "relative_norm": "encoder.LayerNorm",
    "query": "encoder.layer.{layer}.attention.self.query_proj",
    "key": "encoder.layer.{layer}.attention.self.key_proj",
    "value": "encoder.layer.{layer}.attention.self.value_proj",
    "position_key": "encoder.layer.{layer}.attention.self.pos_key_proj",
    "position_query": "encoder.layer.{layer}.attention.self.pos_query_proj",
    "attention_output": "encoder.layer.{layer}.attention.output.dense",
    "attention_norm": "encoder.layer.{layer}.attention.output.LayerNorm",
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
#: Embeddings are projected if they are not as wide as hidden states.
_ELECTRA_MODULES = {**_BERT_MODULES, "embedding_projection": "embeddings_project"}
_ELECTRA_KEYS = {**_BERT_KEYS, "embedding_features": "embedding_size"}


def _heads(classifier: str, dense: str, activation: str) -> Mapping[str, Head]:
    """Heads of two layers for sequences and of one, `classifier`, for tokens."""
    return {
        "ForSequenceClassification": Head("classification", classifier, dense, activation, "cls"),
        "ForTokenClassification": Head("token_classification", "classifier"),
    }


_TANH_HEADS = _heads("classifier.out_proj", "classifier.dense", "tanh")
_BERT = Family(_BERT_MODULES, _BERT_KEYS, _DEFAULTS, _heads("classifier", "{encoder}pooler.dense", "tanh"))
_DEBERTA = Family(
    _DEBERTA_MODULES,
    _ELECTRA_KEYS,
    {"activation": "gelu", "norm_eps": 1e-7},
    {
        "ForSequenceClassification": Head(
            "classification", "classifier", "pooler.dense", "gelu", "cls", keys={"activation": "pooler_hidden_act"}
        ),
        "ForTokenClassification": Head("token_classification", "classifier"),
    },
    fixed={"conv_kernel_size": 0},
    relative=True,
    optional={"position_embeddings": ("position_biased_input", True), "type_embeddings": ("type_vocab_size", 0)},
    ignored=("position_embeddings",),
)
_DISTILBERT = Family(_DISTILBERT_MODULES, _DISTILBERT_KEYS, _DEFAULTS, _heads("classifier", "pre_classifier", "relu"))
_ELECTRA = Family(
    _ELECTRA_MODULES,
    _ELECTRA_KEYS,
    {**_DEFAULTS, "embedding_features": 128},
    _heads("classifier.out_proj", "classifier.dense", "gelu"),
)
#: transformers ignores the configuration here: it uses 32 buckets, and 1 as the padding token's id.
_MPNET = Family(
    _MPNET_MODULES,
    _BERT_KEYS,
    _DEFAULTS,
    _TANH_HEADS,
    fixed={"relative_attention_num_buckets": 32},
    first_position=2,
)
_MODERNBERT_HEAD = Head(
    "token_classification",
    "classifier",
    "head.dense",
    "gelu",
    norm="head.norm",
    keys={"activation": "classifier_activation"},
)
_MODERNBERT = Family(
    _MODERNBERT_MODULES,
    {**_BERT_KEYS, "activation": "hidden_activation", "norm_eps": "norm_eps"},
    {"activation": "gelu", "norm_eps": 1e-5},
    {
        "ForSequenceClassification": replace(
            _MODERNBERT_HEAD,
            task="classification",
            pooling="cls",
            keys={**_MODERNBERT_HEAD.keys, "pooling": "classifier_pooling"},
        ),
        "ForTokenClassification": _MODERNBERT_HEAD,
    },
    biases={
        **dict.fromkeys(("embedding_norm", "attention_norm", "output_norm", "final_norm", "head_norm"), "norm_bias"),
        **dict.fromkeys(("query", "key", "value", "attention_output"), "attention_bias"),
        **dict.fromkeys(("up", "gate", "down"), "mlp_bias"),
    },
    absent_in_first_layer=("attention_norm",),
    pre_norm=True,
    rotary=True,
)
_ROBERTA = Family(
    _BERT_MODULES,
    {**_BERT_KEYS, "padding": "pad_token_id"},
    {**_DEFAULTS, "padding": 1},
    _TANH_HEADS,
)

#: `model_type` of config.json -> family.
FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "deberta-v2": _DEBERTA,
    "distilbert": _DISTILBERT,
    "electra": _ELECTRA,
    "modernbert": _MODERNBERT,
    "mpnet": _MPNET,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
