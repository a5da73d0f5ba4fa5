"""Language models as compressed-tensors quantizes them, made from its published layout."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def packed(weight: torch.Tensor, bits: int, group_size: int | None) -> dict[str, torch.Tensor]:
    """The arrays of `pack-quantized`, codes from the lowest bits on."""
    rows, columns = weight.shape
    size = group_size or columns
    parts = torch.nn.functional.pad(weight, (0, -columns % size)).reshape(rows, -1, size)
    scales = (parts.abs().amax(2) / (2 ** (bits - 1) - 1)).clamp(min=1e-6).half()
    codes = torch.round(parts / scales.float()[:, :, None]).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    codes = codes.reshape(rows, -1)[:, :columns].numpy().astype(np.int64) + 2 ** (bits - 1)
    per_word = 32 // bits
    codes = np.pad(codes, ((0, 0), (0, -columns % per_word))).reshape(rows, -1, per_word)
    words = (codes << (bits * np.arange(per_word))).sum(2).astype(np.uint32).view(np.int32)
    return {
        "weight_packed": torch.from_numpy(words),
        "weight_scale": scales,
        "weight_shape": torch.tensor([rows, columns]),
    }


def quantize(folder: Path, bits: int, group_size: int | None, shards: int = 1) -> None:
    """Quantize a plain folder in place, and cut it into shards anywhere between its arrays."""
    state = load_file(folder / "model.safetensors")
    for name in [name for name in state if name.split(".")[-2] in LAYERS and name.endswith(".weight")]:
        module = name.removesuffix(".weight")
        state.update({f"{module}.{part}": array for part, array in packed(state.pop(name), bits, group_size).items()})
    strategy = {"strategy": "group" if group_size else "channel", "group_size": group_size}
    weights = {"num_bits": bits, "type": "int", "symmetric": True, **strategy}
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(state, folder / "model.safetensors")
        return
    (folder / "model.safetensors").unlink()
    where = {name: f"model-{n % shards + 1:05}-of-{shards:05}.safetensors" for n, name in enumerate(sorted(state))}
    for shard in set(where.values()):
        save_file({name: tensor for name, tensor in state.items() if where[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
