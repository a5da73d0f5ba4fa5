"""Write Llama models as GGUF files for llama.cpp, with its types, tensor names and row order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsekit.folder.weight_files import weight_files
from sparsekit.formats.dtypes import BY_SAFETENSORS

if TYPE_CHECKING:
    import gguf

#: transformers' tensor name in a layer -> llama.cpp's.
_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTSIDE = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm", "lm_head.weight": "output"}
#: Tokens to write as control tokens, by their key in the configuration.
_SPECIAL = {"bos_token_id": "add_bos_token_id", "eos_token_id": "add_eos_token_id", "pad_token_id": "add_pad_token_id"}


def _name_of(name: str) -> str:
    if name in _OUTSIDE:
        return f"{_OUTSIDE[name]}.weight"
    parts = name.removeprefix("model.layers.").split(".", 1)
    inside = parts[-1].removesuffix(".weight")
    if not parts[0].isdigit() or inside not in _IN_LAYER:
        raise ValueError(f"a Llama has no tensor {name!r}")
    return f"blk.{parts[0]}.{_IN_LAYER[inside]}.weight"


def _rotary_order(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Permute rows so that the two features of a rotary pair are adjacent."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def _ordered(name: str, values: NDArray[np.float32], config: dict[str, Any]) -> NDArray[np.float32]:
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    part = name.split(".")[-2]
    return _rotary_order(values, heads[part]) if part in heads else values


def _read_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != "llama":
        raise ValueError(f"only Llamas are written as GGUF, got {config.get('model_type')!r}; leave llama.cpp out")
    return config


def _add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    theta = (config.get("rope_parameters") or {}).get("rope_theta", config.get("rope_theta", 10000.0))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_rope_freq_base(theta)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    """Write a byte-pair vocabulary. Benchmarks pass token ids, so pre-tokenization does not matter."""
    import gguf

    found = json.loads((folder / "tokenizer.json").read_text())
    ids = {**found["model"]["vocab"], **{one["content"]: one["id"] for one in found["added_tokens"]}}
    names = {number: token for token, number in ids.items()}
    special = {one["id"] for one in found["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([names.get(i, f"[unused{i}]") for i in range(config["vocab_size"])])
    types = (gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(config["vocab_size"]))
    writer.add_token_types(list(types))
    merges = found["model"].get("merges", [])
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    for key, method in _SPECIAL.items():
        if isinstance(config.get(key), int):
            getattr(writer, method)(config[key])


def write_gguf(folder: Path, file: Path, kind: str) -> None:
    """Write a Llama as GGUF.

    Args:
        folder: a transformers folder with float weights and a byte-pair tokenizer.
        file: file to write.
        kind: type of matrices: "F32", "F16", "Q8_0" or "Q4_0"; vectors are F32.

    Raises:
        ValueError: the model is not a Llama.
    """
    import gguf

    config = _read_config(folder)
    quantization = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(str(file), "llama")
    _add_shape(writer, config)
    _add_tokenizer(writer, folder, config)
    for name, source in weight_files(folder).items():
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        place = source.places[name]
        values = BY_SAFETENSORS[place.dtype].float32(source.raw(name)).reshape(place.shape)
        if values.ndim == 1:
            writer.add_tensor(_name_of(name), values)
        else:
            data = gguf.quants.quantize(_ordered(name, values, config), quantization)
            writer.add_tensor(_name_of(name), data, raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
