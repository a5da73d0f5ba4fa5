"""Tiny models of many architectures, random weights, each with an input it runs on."""

import torch
import transformers
from torch import nn

_SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_PADS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_T5 = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 4, "num_heads": 4}
_BART = {"vocab_size": 50, "d_model": 32, "encoder_layers": 4, "decoder_layers": 4, "encoder_ffn_dim": 48, **_PADS}
_BART |= {
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "decoder_start_token_id": 1,
}
_VIT = {key: value for key, value in _SIZES.items() if key != "vocab_size"} | {"image_size": 32, "patch_size": 8}
_CONV = {"conv_dim": [16, 16], "conv_kernel": [4, 4], "conv_stride": [4, 4], "num_feat_extract_layers": 2}
_WAV = {**_SIZES, **_CONV, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
_XLM = {"vocab_size": 50, "emb_dim": 32, "n_layers": 4, "n_heads": 4}
_FALCON = {**_SIZES, "new_decoder_architecture": False, "multi_query": False, "alibi": False, "ffn_hidden_size": 48}

#: Name -> class of the model, class of its config, sizes.
NAMED = {
    "albert": ("AlbertForMaskedLM", "AlbertConfig", {**_SIZES, "embedding_size": 32}),
    "bamba": ("BambaForCausalLM", "BambaConfig", {**_GROUPED, "attn_layer_indices": [1, 3], **_PADS}),
    "bart": ("BartForConditionalGeneration", "BartConfig", _BART),
    "beit": ("BeitModel", "BeitConfig", {**_VIT, "use_relative_position_bias": True, "out_indices": [1, 2, 3, 4]}),
    "bloom": ("BloomForCausalLM", "BloomConfig", {"vocab_size": 50, "hidden_size": 32, "n_layer": 4, "n_head": 4}),
    "convnext": ("ConvNextModel", "ConvNextConfig", {"hidden_sizes": [8, 16], "depths": [2, 2], "num_stages": 2}),
    "deberta": ("DebertaForMaskedLM", "DebertaConfig", {**_SIZES, "relative_attention": True}),
    "deberta-v2": ("DebertaV2ForMaskedLM", "DebertaV2Config", {**_SIZES, "relative_attention": True}),
    "diffllama": ("DiffLlamaForCausalLM", "DiffLlamaConfig", _GROUPED),
    "dinov2": ("Dinov2Model", "Dinov2Config", _VIT),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", _VIT),
    "dpt": ("DPTModel", "DPTConfig", {**_VIT, "backbone_out_indices": [0, 1, 2, 3], "is_hybrid": False}),
    "falcon": ("FalconForCausalLM", "FalconConfig", _FALCON),
    "falcon-grouped": (
        "FalconForCausalLM",
        "FalconConfig",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "falcon-multi-query": ("FalconForCausalLM", "FalconConfig", {**_FALCON, "multi_query": True}),
    "falcon-alibi": ("FalconForCausalLM", "FalconConfig", {**_FALCON, "alibi": True}),
    "flaubert": ("FlaubertWithLMHeadModel", "FlaubertConfig", _XLM),
    "fsmt": (
        "FSMTForConditionalGeneration",
        "FSMTConfig",
        {**_BART, "langs": ["en", "de"], "src_vocab_size": 50, "tgt_vocab_size": 50},
    ),
    "gpt-neo": (
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {"vocab_size": 50, "hidden_size": 32, "num_layers": 4, "num_heads": 4, "intermediate_size": 48}
        | {"attention_types": [[["global", "local"], 2]]},
    ),
    "gpt-oss": (
        "GptOssForCausalLM",
        "GptOssConfig",
        {**_GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "hubert": ("HubertModel", "HubertConfig", _WAV),
    "led": (
        "LEDForConditionalGeneration",
        "LEDConfig",
        {**_BART, "attention_window": [4] * 4, "max_encoder_position_embeddings": 64},
    ),
    "longformer": ("LongformerForMaskedLM", "LongformerConfig", {**_SIZES, "attention_window": [4] * 4, **_PADS}),
    "lxmert": (
        "LxmertModel",
        "LxmertConfig",
        {**_SIZES, "l_layers": 4, "x_layers": 2, "r_layers": 2, "visual_feat_dim": 16},
    ),
    "markuplm": (
        "MarkupLMModel",
        "MarkupLMConfig",
        {**_SIZES, "max_xpath_tag_unit_embeddings": 16, "max_xpath_subs_unit_embeddings": 16}
        | {"tag_pad_id": 15, "subs_pad_id": 15, "xpath_unit_hidden_size": 8},
    ),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertConfig", {**_SIZES, **_PADS}),
    "moonshine": (
        "MoonshineForConditionalGeneration",
        "MoonshineConfig",
        {key: value for key, value in _SIZES.items() if key in ("vocab_size", "hidden_size", "intermediate_size")}
        | {"encoder_num_hidden_layers": 4, "decoder_num_hidden_layers": 4, **_PADS, "decoder_start_token_id": 1}
        | {"encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4},
    ),
    "mpnet": ("MPNetForMaskedLM", "MPNetConfig", _SIZES),
    "neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**_SIZES, **_PADS}),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {**_GROUPED, **_PADS}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _GROUPED),
    "qwen3-next": (
        "Qwen3NextForCausalLM",
        "Qwen3NextConfig",
        {**_GROUPED, "head_dim": 8, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2}
        | {"linear_num_value_heads": 2, "num_experts": 0, "num_experts_per_tok": 0},
    ),
    "reformer": (
        "ReformerForMaskedLM",
        "ReformerConfig",
        {"vocab_size": 50, "attn_layers": ["local", "lsh"] * 2, "hidden_size": 32, "axial_pos_embds_dim": [16, 16]}
        | {"axial_pos_shape": [4, 4], "attention_head_size": 8, "num_attention_heads": 4, "feed_forward_size": 48}
        | {"num_buckets": 2, "lsh_attn_chunk_length": 4, "local_attn_chunk_length": 4, "is_decoder": False},
    ),
    "segformer": (
        "SegformerModel",
        "SegformerConfig",
        {"hidden_sizes": [16, 32], "depths": [2, 2], "num_encoder_blocks": 2, "sr_ratios": [2, 1]}
        | {"patch_sizes": [3, 3], "strides": [2, 2], "num_attention_heads": [2, 4], "mlp_ratios": [2, 2]},
    ),
    "t5": ("T5ForConditionalGeneration", "T5Config", {**_T5, "decoder_start_token_id": 0}),
    "table-transformer": (
        "TableTransformerModel",
        "TableTransformerConfig",
        {key: value for key, value in _BART.items() if "vocab" not in key and "token" not in key}
        | {"num_queries": 5, "use_timm_backbone": False}
        | {
            "backbone_config": transformers.ResNetConfig(
                embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, out_features=["stage4"]
            )
        },
    ),
    "trocr": (
        "TrOCRForCausalLM",
        "TrOCRConfig",
        {key: value for key, value in _BART.items() if "encoder" not in key or "decoder_" in key},
    ),
    "umt5": ("UMT5ForConditionalGeneration", "UMT5Config", {**_T5, "decoder_start_token_id": 0}),
    "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2Config", _WAV),
    "xglm": (
        "XGLMForCausalLM",
        "XGLMConfig",
        {"vocab_size": 50, "d_model": 32, "ffn_dim": 48, "num_layers": 4, "attention_heads": 4, **_PADS},
    ),
    "xlm": ("XLMWithLMHeadModel", "XLMConfig", _XLM),
    "zamba2": (
        "Zamba2ForCausalLM",
        "Zamba2Config",
        {**_SIZES, "layers_block_type": ["mamba", "hybrid"] * 2, "mamba_d_state": 8, "mamba_headdim": 8}
        | {"n_mamba_heads": 8, "mamba_ngroups": 1, "num_mem_blocks": 1, "num_key_value_heads": 4},
    ),
}
NAMED["bamba"][2].update(mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1, mamba_expand=2)
NAMED["deberta"][2].update(pos_att_type=["p2c", "c2p"])
NAMED["deberta-v2"][2].update(pos_att_type=["p2c", "c2p"], position_buckets=8)
_SINGLE = ("fsmt", "gpt-oss", "xglm")  # their code mixes types where the weights are float64


def named(name: str) -> nn.Module:
    """A model whose random weights are large enough that every mistake shows."""
    torch.manual_seed(0)
    model_class, config_class, sizes = NAMED[name]
    config = getattr(transformers, config_class)(**sizes)
    model = getattr(transformers, model_class)._from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return (model if name in _SINGLE else model.double()).eval()
