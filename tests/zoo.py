"""Tiny random models of the text families of transformers: sizes from one table, exceptions from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY = 60
#: What a size is called, in the words of all families: a config gets those it has.
SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "n_embed", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_encoder_layers", "num_decoder_layers", "num_key_value_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts"), 4),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "d_ff", "hidden_dim", "n_inner", "d_inner", "encoder_ffn_dim"), 48
    ),
    **dict.fromkeys(("decoder_ffn_dim", "ffn_hidden_size"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 24),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 64),
    "word_embed_proj_dim": 32,
    "vocab_size": VOCABULARY,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}

ALL_HEADS_HAVE_KEYS = {"num_key_value_heads": 4}
HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
#: Families whose sizes depend on each other.
EXCEPTIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe_lite", "longcat_flash", "youtu"), ALL_HEADS_HAVE_KEYS),
    **dict.fromkeys(("minicpm3",), ALL_HEADS_HAVE_KEYS),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), HYBRID),
    "codegen": {"rotary_dim": 4},
    "falcon_h1": {"mamba_chunk_size": 16, "mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_state": 16},
    "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "attn_layer_indices": [1]},
    "granitemoehybrid": {"mamba_n_heads": 8, "mamba_d_head": 8, "layer_types": ["mamba", "attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 16, "chunk_size": 16},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "num_hidden_layers": 3, "lru_width": 32},
    "reformer": {
        "is_decoder": True,
        "attention_head_size": 8,
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [16, 16],
        "attn_layers": ["local", "local"],
        "feed_forward_size": 48,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "dots1": {"n_shared_experts": 1},
}
#: Every family whose models take texts alone and that a tiny config exists for.
FAMILIES = (
    *("afmoe", "albert", "apertus", "arcee", "aria_text", "bamba", "bart", "bert", "bert-generation"),
    *("big_bird", "bigbird_pegasus", "biogpt", "bitnet", "blenderbot", "blenderbot-small", "bloom"),
    *("camembert", "canine", "codegen", "cohere", "cohere2", "cohere2_moe", "convbert", "ctrl", "cwm"),
    *("data2vec-text", "deberta", "deberta-v2", "deepseek_v2", "deepseek_v3", "deepseek_v4", "diffllama"),
    *("distilbert", "doge", "dots1", "electra", "ernie", "ernie4_5", "ernie4_5_moe", "esm", "eurobert"),
    *("exaone4", "exaone_moe", "falcon", "falcon_h1", "falcon_mamba", "flaubert", "flex_olmo", "flint", "fnet"),
    *("fsmt", "funnel", "gemma", "gemma2", "gemma3_text", "gemma4_unified_text", "glm", "glm4", "glm4_moe"),
    *("glm4_moe_lite", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_neox_japanese", "gpt_oss"),
    *("gptj", "granite", "granite_swa", "granitemoe", "granitemoe_swa", "granitemoehybrid", "granitemoeshared"),
    *("gte", "helium", "hrm_text", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3", "hy_v4", "hyperclovax"),
    *("ibert", "inkling2_text", "inkling_text", "internlm3", "iquestcoder", "jais2", "jamba", "jetmoe"),
    *("jina_embeddings_v3", "kolibri1", "laguna", "layoutlm", "led", "lfm2", "lfm2_moe", "llama"),
    *("llama4_text", "longcat_flash", "longformer", "longt5", "m2m_100", "mamba", "mamba2", "marian", "mbart"),
    *("megatron-bert", "mellum", "mimo_v2_flash", "minicpm3", "minimax", "minimax_m2", "minimax_m3_vl_text"),
    *("ministral", "ministral3", "mistral", "mixtral", "mobilebert", "modernbert", "modernbert-decoder"),
    *("mpnet", "mpt", "mra", "mt5", "mvp", "nanochat", "nemotron", "nemotron_h", "nllb-moe", "nomic_bert"),
    *("nystromformer", "olmo", "olmo2", "olmo3", "olmo_hybrid", "olmoe", "openai-gpt", "opt", "pegasus"),
    *("pegasus_x", "persimmon", "phi", "phi3", "phimoe", "plbart", "prophetnet", "qwen2", "qwen2_moe", "qwen3"),
    *("qwen3_5_moe_text", "qwen3_5_text", "qwen3_moe", "qwen3_next", "recurrent_gemma", "reformer", "rembert"),
    *("roberta", "roberta-prelayernorm", "roformer", "rwkv", "seed_oss", "smollm3", "solar_open"),
    *("squeezebert", "stablelm", "starcoder2", "switch_transformers", "t5", "tapas", "ultrabert", "umt5"),
    *("vaultgemma", "xglm", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "yoso", "youtu"),
)
_KINDS = {
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "encoder-decoder": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "classifier": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
}


@dataclass(frozen=True)
class Member:
    """A model of the zoo, and how it is called."""

    family: str
    kind: str  # a key of _KINDS
    model: nn.Module

    @property
    def writes(self) -> bool:
        """Whether it generates text."""
        return self.kind in ("causal", "encoder-decoder") and self.model.can_generate()


def kind_of(family: str) -> str:
    """The first kind of model that a family has."""
    return next(kind for kind, names in _KINDS.items() if family in names)


def tiny_config(family: str) -> Any:
    """The family's config with the sizes of this page."""
    config_class = CONFIG_MAPPING[family]
    known = {*config_class().to_dict(), *config_class.attribute_map}
    sizes = {name: size for name, size in SIZES.items() if name in known}
    return config_class(**{**sizes, **EXCEPTIONS.get(family, {})})


def member(family: str) -> Member:
    """A tiny model of a family in float32, every parameter at random: zeros would hide mistakes."""
    kind = kind_of(family)
    names = _KINDS[kind][family]
    model_class = getattr(transformers, names if isinstance(names, str) else names[0])
    torch.manual_seed(0)
    model = model_class(tiny_config(family)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return Member(family, kind, model)


def inputs(kind: str) -> dict[str, torch.Tensor]:
    """Two texts, the second with padding: on the left for what goes on with a text, else on the right."""
    ids = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    padding = slice(0, 3) if kind == "causal" else slice(6, 9)
    mask[1, padding] = 0
    found = {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}
    if kind == "encoder-decoder":
        found["decoder_input_ids"] = ids[:, :5]
    return found


def logits(model: nn.Module, kind: str) -> torch.Tensor:
    """What the model says, padding left out."""
    with torch.inference_mode():
        found: torch.Tensor = model(**inputs(kind)).logits
    return found[inputs(kind)["attention_mask"].bool()] if kind in ("causal", "masked") else found
