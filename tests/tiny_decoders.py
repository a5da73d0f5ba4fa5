"""Small causal language models of every family of the engine, random weights, odd sizes."""

import json
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from tiny_encoders import randomized
from torch import nn

_SIZES = {
    "vocab_size": 97,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 50,
    "max_position_embeddings": 64,
}
#: Of the tests' texts, several windows long.
_WINDOW = {"sliding_window": 5}
_GEMMA = {**_SIZES, **_WINDOW, "head_dim": 10, "query_pre_attn_scalar": 7, "final_logit_softcapping": 2.0}
_NEOX = {key: size for key, size in _SIZES.items() if key != "num_key_value_heads"}
#: `model_type` -> class of the model, that of its configuration, sizes.
DECODERS = {
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**_GEMMA, "attn_logit_softcapping": 1.5}),
    "gemma3_text": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**_GEMMA, "attn_logit_softcapping": 1.5, "sliding_window_pattern": 2},
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 97, "n_embd": 36, "n_layer": 3, "n_head": 3, "n_inner": 50, "n_positions": 64},
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**_NEOX, "rotary_pct": 0.5}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**_SIZES, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**_SIZES, **_WINDOW, "head_dim": 14}),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", {**_SIZES, "num_key_value_heads": 1}),
    "phi3": (
        "Phi3ForCausalLM",
        "Phi3Config",
        {**_SIZES, **_WINDOW, "partial_rotary_factor": 0.5, "pad_token_id": 0},
    ),
    "qwen2": (
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {**_SIZES, **_WINDOW, "use_sliding_window": True, "max_window_layers": 1, "tie_word_embeddings": True},
    ),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**_SIZES, "head_dim": 16}),
    "smollm3": (
        "SmolLM3ForCausalLM",
        "SmolLM3Config",
        {**_SIZES, **_WINDOW, "use_sliding_window": True, "no_rope_layer_interval": 2, "pad_token_id": 0},
    ),
}


#: Tokens of `write_tokenizer`.
WORDS = {"<s>": 0, "</s>": 1, **{f"w{number}": number for number in range(2, 97)}}


def decoder(family: str, model_class: str | None = None, **changes) -> nn.Module:
    """A model of a family; `changes` are options of its configuration."""
    default_class, config_class, sizes = DECODERS[family]
    config = getattr(transformers, config_class)(**{**sizes, **changes}, attn_implementation="eager")
    return randomized(getattr(transformers, model_class or default_class)(config))


def tokens(length: int = 23) -> list[int]:
    return np.random.default_rng(3).integers(1, 97, length).tolist()


def logits(model: nn.Module, ids: list[int]) -> np.ndarray:
    """What PyTorch computes for one text, shape [tokens, vocabulary]."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().numpy()


def write_tokenizer(folder: Path, **options) -> None:
    """A word is a token."""
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, "<s>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    (folder / "generation_config.json").write_text("{}")


def saved(model, folder: Path) -> Path:
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder
