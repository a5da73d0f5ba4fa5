"""Names of the attention layers in transformers models, and the classes from which no head can be removed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pattern:
    """Names of an attention's layers inside the module that holds them."""

    inputs: tuple[str, ...]  # query, key, value; or one fused layer
    output: str
    by_head: bool = False  # a fused layer interleaves query, key and value head by head, not all queries first
    more: tuple[str, ...] = ()  # optional further layers with outputs for every head
    vectors: tuple[str, ...] = ()  # parameters of the module with one value for every output of a head
    beside: tuple[str, ...] = ()  # modules inside it that run after the output layer
    by_config: bool = False  # its forward reads the numbers of heads from the config


_SEPARATE = ("q_proj", "k_proj", "v_proj")
#: Attention modules in transformers, by model family.
PATTERNS = (
    Pattern(("self.query", "self.key", "self.value"), "output.dense"),  # BERT, RoBERTa, ELECTRA
    Pattern(
        ("self.query_proj", "self.key_proj", "self.value_proj"),  # DeBERTa-v2, v3
        "output.dense",
        more=("self.pos_key_proj", "self.pos_query_proj"),
    ),
    Pattern(
        ("self.in_proj",),  # DeBERTa
        "output.dense",
        by_head=True,
        more=("self.pos_proj", "self.pos_q_proj"),
        vectors=("q_bias", "v_bias"),
    ),
    Pattern(_SEPARATE, "o_proj"),  # Llama, Mistral, Qwen, Gemma
    Pattern(_SEPARATE, "out_proj"),  # OPT, BART, Whisper, CLIP, GPT-Neo, GPT-J
    Pattern(_SEPARATE, "dense"),  # Phi
    Pattern(("q_lin", "k_lin", "v_lin"), "out_lin"),  # DistilBERT
    Pattern(("query", "key", "value"), "dense", beside=("LayerNorm",)),  # ALBERT
    Pattern(("q", "k", "v"), "o"),  # T5, MPNet
    Pattern(("c_attn",), "c_proj"),  # GPT-2; GPTBigCode by head
    Pattern(("Wqkv",), "Wo"),  # ModernBERT
    Pattern(("qkv_proj",), "o_proj", by_config=True),  # Phi-3
    Pattern(("query_key_value",), "dense", by_head=True),  # GPT-NeoX, Falcon, Persimmon
)

_WHOLE = "its code takes the heads together for as wide as the hidden states"
#: Attention class from which no head can be removed -> the reason.
REFUSED = {
    "BloomAttention": "the model makes the slopes of its position biases (ALiBi) for all heads it was built with",
    "DiffLlamaAttention": "it subtracts one half of its heads from the other",
    "BeitAttention": "its transformer blocks have a table of position biases for every head",
    "LEDDecoderAttention": _WHOLE,
    "PegasusXAttention": _WHOLE,
    "TrOCRAttention": _WHOLE,
    "MoonshineAttention": "it reads one number of heads for all of its model from the config",
}
