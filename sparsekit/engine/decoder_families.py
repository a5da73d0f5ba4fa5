"""Families of causal language models as data: names of their tensors and of their configuration keys.

A family is a row of `DECODER_FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

#: Kinds of modules: norms before attention and feed-forward network, of queries and keys, after either; linear layers.
DECODER_NORMS = (
    "attention_norm",
    "query_norm",
    "key_norm",
    "attention_post_norm",
    "output_norm",
    "feed_forward_post_norm",
    "final_norm",
)
ATTENTION_LINEARS = ("query", "key", "value", "attention_output")
FEED_FORWARD_LINEARS = ("up", "gate", "down")


@dataclass(frozen=True)
class DecoderFamily:
    """Decoders with the same tensor names and configuration keys."""

    classes: tuple[str, ...]  # of transformers, whose weights these are
    #: What a module holds -> its name in the model, with `{layer}` for the number of its layer. Linear layers of one
    #: name are parts of its rows, in this order. The activation function is that of `up`, multiplied by `gate`.
    modules: Mapping[str, str]
    #: Option -> default value in transformers.
    defaults: Mapping[str, Any]
    #: Option -> key of config.json.
    keys: Mapping[str, str]
    #: Linear layer -> whether it has a bias, or the key of config.json that decides and its default.
    biases: Mapping[str, bool | tuple[str, bool]] = field(default_factory=dict)
    #: Key of config.json -> the only value supported, if the key is present.
    fixed: Mapping[str, Any] = field(default_factory=dict)
    norm: str = "rms"  # a key of `compiled_file.NORM_KINDS`
    norm_offset: float = 0.0  # added to weights of norms
    scaled_embeddings: bool = False  # by the root of their features
    rotary: bool = True  # whether queries and keys are rotated
    #: Older names of kinds of `rope_parameters` -> those of today.
    rotary_aliases: Mapping[str, str] = field(default_factory=dict)
    #: Which layers have a sliding window: "none", "all", or a family's rule in `decoder_positions`.
    windows: str = "none"
    interleaved: bool = False  # whether the shared module of query, key and value has those of one head together
    transposed: bool = False  # whether weights of linear layers are [in_features, out_features]
    heads: tuple[str, ...] = ("lm_head",)  # names of the layer behind the hidden states
    #: Tensors that older versions of transformers stored, and computes now, with `{layer}` for the number of a layer.
    buffers: tuple[str, ...] = ("layers.{layer}.self_attn.rotary_emb.inv_freq",)


_KEYS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "key_heads": "num_key_value_heads",
    "features": "hidden_size",
    "head_dim": "head_dim",
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
    "activation": "hidden_act",
    "norm_eps": "rms_norm_eps",
    "tied": "tie_word_embeddings",
    "rotary_base": "rope_theta",
}
_DEFAULTS = {"activation": "silu", "norm_eps": 1e-6, "tied": False, "rotary_base": 10_000.0}
_LLAMA_MODULES = {
    "word_embeddings": "embed_tokens",
    "final_norm": "norm",
    "attention_norm": "layers.{layer}.input_layernorm",
    "query": "layers.{layer}.self_attn.q_proj",
    "key": "layers.{layer}.self_attn.k_proj",
    "value": "layers.{layer}.self_attn.v_proj",
    "attention_output": "layers.{layer}.self_attn.o_proj",
    "output_norm": "layers.{layer}.post_attention_layernorm",
    "up": "layers.{layer}.mlp.gate_proj",
    "gate": "layers.{layer}.mlp.up_proj",
    "down": "layers.{layer}.mlp.down_proj",
}
_QUERY_NORMS = {"query_norm": "layers.{layer}.self_attn.q_norm", "key_norm": "layers.{layer}.self_attn.k_norm"}
_GEMMA2_MODULES = {
    **_LLAMA_MODULES,
    "attention_post_norm": "layers.{layer}.post_attention_layernorm",
    "output_norm": "layers.{layer}.pre_feedforward_layernorm",
    "feed_forward_post_norm": "layers.{layer}.post_feedforward_layernorm",
}
_OLMO2_MODULES = {
    **{kind: name for kind, name in _LLAMA_MODULES.items() if kind not in ("attention_norm", "output_norm")},
    **_QUERY_NORMS,
    "attention_post_norm": "layers.{layer}.post_attention_layernorm",
    "feed_forward_post_norm": "layers.{layer}.post_feedforward_layernorm",
}
_PHI3_MODULES = {
    **_LLAMA_MODULES,
    **dict.fromkeys(("query", "key", "value"), "layers.{layer}.self_attn.qkv_proj"),
    **dict.fromkeys(("up", "gate"), "layers.{layer}.mlp.gate_up_proj"),
}
_GPT2_MODULES = {
    "word_embeddings": "wte",
    "position_embeddings": "wpe",
    "final_norm": "ln_f",
    "attention_norm": "h.{layer}.ln_1",
    **dict.fromkeys(("query", "key", "value"), "h.{layer}.attn.c_attn"),
    "attention_output": "h.{layer}.attn.c_proj",
    "output_norm": "h.{layer}.ln_2",
    "up": "h.{layer}.mlp.c_fc",
    "down": "h.{layer}.mlp.c_proj",
}
_GPT_NEOX_MODULES = {
    "word_embeddings": "embed_in",
    "final_norm": "final_layer_norm",
    "attention_norm": "layers.{layer}.input_layernorm",
    **dict.fromkeys(("query", "key", "value"), "layers.{layer}.attention.query_key_value"),
    "attention_output": "layers.{layer}.attention.dense",
    "output_norm": "layers.{layer}.post_attention_layernorm",
    "up": "layers.{layer}.mlp.dense_h_to_4h",
    "down": "layers.{layer}.mlp.dense_4h_to_h",
}
_ATTENTION_BIAS = dict.fromkeys(ATTENTION_LINEARS, ("attention_bias", False))
#: Keys of any family that change what is computed.
_FIXED = {"is_causal": True, "use_bidirectional_attention": False, "per_layer_config": None, "layer_types": None}
_TYPED = {key: value for key, value in _FIXED.items() if key != "layer_types"}

_LLAMA = DecoderFamily(
    ("LlamaForCausalLM", "LlamaModel"),
    _LLAMA_MODULES,
    {**_DEFAULTS, "positions": 2048},
    _KEYS,
    biases={**_ATTENTION_BIAS, **dict.fromkeys(FEED_FORWARD_LINEARS, ("mlp_bias", False))},
    fixed=_FIXED,
)
_QWEN2 = DecoderFamily(
    ("Qwen2ForCausalLM", "Qwen2Model"),
    _LLAMA_MODULES,
    {**_DEFAULTS, "positions": 32_768, "key_heads": 32, "window": 4096},
    {**_KEYS, "window": "sliding_window"},
    biases=dict.fromkeys(("query", "key", "value"), True),
    fixed=_TYPED,
    windows="qwen",
)
_GEMMA2 = DecoderFamily(
    ("Gemma2ForCausalLM", "Gemma2Model"),
    _GEMMA2_MODULES,
    {
        **_DEFAULTS,
        "activation": "gelu_pytorch_tanh",
        "tied": True,
        "positions": 8192,
        "key_heads": 4,
        "head_dim": 256,
        "scale_features": 256,
        "attention_cap": 50.0,
        "logit_cap": 30.0,
        "window": 4096,
    },
    {
        **_KEYS,
        "activation": "hidden_activation",
        "scale_features": "query_pre_attn_scalar",
        "attention_cap": "attn_logit_softcapping",
        "logit_cap": "final_logit_softcapping",
        "window": "sliding_window",
    },
    biases=_ATTENTION_BIAS,
    fixed=_TYPED,
    norm_offset=1.0,
    scaled_embeddings=True,
    windows="gemma2",
)

#: `model_type` of config.json -> family.
DECODER_FAMILIES: Mapping[str, DecoderFamily] = {
    "gemma2": _GEMMA2,
    "gemma3_text": replace(
        _GEMMA2,
        classes=("Gemma3ForCausalLM", "Gemma3TextModel"),
        modules={**_GEMMA2_MODULES, **_QUERY_NORMS},
        defaults={
            **{
                option: value
                for option, value in _GEMMA2.defaults.items()
                if option not in ("attention_cap", "logit_cap")
            },
            "positions": 131_072,
            "rotary_base": 1_000_000.0,
            "local_rotary_base": 10_000.0,
        },
        # transformers reads attn_logit_softcapping and does not use it
        keys={
            **{option: key for option, key in _GEMMA2.keys.items() if option != "attention_cap"},
            "local_rotary_base": "rope_local_base_freq",
        },
        windows="gemma3",
    ),
    "gpt2": DecoderFamily(
        ("GPT2LMHeadModel", "GPT2Model"),
        _GPT2_MODULES,
        {**_DEFAULTS, "activation": "gelu_new", "norm_eps": 1e-5, "tied": True, "positions": 1024},
        {
            "layers": "n_layer",
            "heads": "n_head",
            "features": "n_embd",
            "vocabulary": "vocab_size",
            "positions": "n_positions",
            "activation": "activation_function",
            "norm_eps": "layer_norm_epsilon",
            "tied": "tie_word_embeddings",
            "scaled_attention": "scale_attn_weights",
        },
        biases=dict.fromkeys((*ATTENTION_LINEARS, "up", "down"), True),
        fixed={**_FIXED, "add_cross_attention": False, "scale_attn_by_inverse_layer_idx": False},
        norm="layer",
        rotary=False,
        transposed=True,
        buffers=("h.{layer}.attn.bias", "h.{layer}.attn.masked_bias"),
    ),
    "gpt_neox": DecoderFamily(
        ("GPTNeoXForCausalLM", "GPTNeoXModel"),
        _GPT_NEOX_MODULES,
        {**_DEFAULTS, "activation": "gelu", "norm_eps": 1e-5, "positions": 2048, "rotary_fraction": 0.25},
        {
            **{option: key for option, key in _KEYS.items() if option not in ("key_heads", "head_dim")},
            "norm_eps": "layer_norm_eps",
            "rotary_base": "rotary_emb_base",
            "rotary_fraction": "rotary_pct",
            "parallel": "use_parallel_residual",
        },
        biases={**dict.fromkeys(ATTENTION_LINEARS, ("attention_bias", True)), "up": True, "down": True},
        fixed=_FIXED,
        norm="layer",
        interleaved=True,
        heads=("lm_head", "embed_out"),  # in folders of sparsekit, and of transformers
        buffers=(
            "layers.{layer}.attention.bias",
            "layers.{layer}.attention.masked_bias",
            "layers.{layer}.attention.rotary_emb.inv_freq",
        ),
    ),
    "llama": _LLAMA,
    "mistral": replace(
        _LLAMA,
        classes=("MistralForCausalLM", "MistralModel"),
        defaults={**_DEFAULTS, "positions": 131_072, "key_heads": 8, "window": 4096},
        keys={**_KEYS, "window": "sliding_window"},
        biases={},
        windows="all",
    ),
    "olmo2": replace(
        _LLAMA,
        classes=("Olmo2ForCausalLM", "Olmo2Model"),
        modules=_OLMO2_MODULES,
        defaults={**_LLAMA.defaults, "norm_eps": 1e-5},
        biases=_ATTENTION_BIAS,
    ),
    "phi3": replace(
        _LLAMA,
        classes=("Phi3ForCausalLM", "Phi3Model"),
        modules=_PHI3_MODULES,
        defaults={
            **_DEFAULTS,
            "norm_eps": 1e-5,
            "positions": 4096,
            "original_positions": 4096,
            "rotary_fraction": 1.0,
            "window": None,
        },
        keys={
            **_KEYS,
            "rotary_fraction": "partial_rotary_factor",
            "window": "sliding_window",
        },
        biases={},
        rotary_aliases={"su": "longrope", "yarn": "longrope"},
        windows="all",
    ),
    "qwen2": _QWEN2,
    "qwen3": replace(
        _QWEN2,
        classes=("Qwen3ForCausalLM", "Qwen3Model"),
        modules={**_LLAMA_MODULES, **_QUERY_NORMS},
        defaults={**_QWEN2.defaults, "head_dim": 128},
        biases=_ATTENTION_BIAS,
    ),
    "smollm3": replace(
        _LLAMA,
        classes=("SmolLM3ForCausalLM", "SmolLM3Model"),
        defaults={
            **_DEFAULTS,
            "tied": True,
            "positions": 32_768,
            "key_heads": 4,
            "rotary_base": 2_000_000.0,
            "window": None,
        },
        keys={**_KEYS, "window": "sliding_window"},
        fixed=_TYPED,
        windows="smollm3",
    ),
}
