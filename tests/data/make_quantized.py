"""Write the folders of quantized weights in here, with compressed-tensors itself.

    pip download --no-deps -d old compressed-tensors==0.9.4
    unzip -d old/0.9.4 old/compressed_tensors-0.9.4-*.whl
    PYTHONPATH=old/0.9.4 python tests/data/make_quantized.py

Each folder has `dense.safetensors` too, the weights as compressed-tensors dequantizes them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
#: Folder -> format, bits, size of groups, dtype of the model, whether int8 codes are stored as a bit mask.
FOLDERS = {
    "pack-int4-groups": ("pack-quantized", 4, 128, torch.bfloat16, False),
    "pack-int4-rows": ("pack-quantized", 4, -1, torch.float16, False),
    "pack-int8-rows": ("pack-quantized", 8, -1, torch.float32, False),
    "int-quantized-24": ("int-quantized", 8, -1, torch.bfloat16, True),
}


def network(dtype: torch.dtype) -> nn.Module:
    """A small model with a quantized layer whose weight is half zeros, 2 of 4, and one that is not quantized."""
    torch.manual_seed(0)
    made = nn.ModuleDict({"dense": nn.Linear(256, 6), "norm": nn.LayerNorm(6)})
    made["dense"].weight.data *= torch.tensor([True, False, False, True]).repeat(6, 64)
    return made.to(dtype)


def write(name: str, version: str) -> None:
    """One folder: codes and scales by the compressor, config as its own classes dump it."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.sparse_compressors.sparse_24_bitmask import Sparse24BitMaskTensor
    from compressed_tensors.config import SparsityCompressionConfig
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    form, bits, size, dtype, masked = FOLDERS[name]
    arguments = QuantizationArgs(num_bits=bits, symmetric=True, group_size=size)
    state = dict(network(dtype).state_dict())
    weight = state["dense.weight"]
    parts = weight.reshape(6, -1, size if size > 0 else 256)
    scale, _ = calculate_qparams(parts.amin(2), parts.amax(2), arguments)
    state["dense.weight_scale"] = scale.to(dtype)
    compressor = BaseCompressor.load_from_registry(form)
    stored = compressor.compress(dict(state), names_to_scheme={"dense": arguments})
    group = QuantizationScheme(targets=["Linear"], weights=arguments)
    config: dict[str, Any] = QuantizationConfig(config_groups={"group_0": group}, format=form).model_dump()
    config["quantization_status"] = "compressed"
    if masked:
        sparsity = SparsityCompressionConfig.load_from_registry("sparse-24-bitmask", targets=["Linear"], ignore=[])
        stored = BaseCompressor.load_from_registry("sparse-24-bitmask", config=sparsity).compress(stored, {"dense"})
        config["sparsity_config"] = sparsity.model_dump()
    whole = dict(stored)
    if masked:  # what was stored: of the codes -128, the largest in magnitude, the mask leaves out some
        parts = {name: whole.pop(f"dense.{name}") for name in ("compressed", "bitmask", "shape")}
        whole["dense.weight"] = Sparse24BitMaskTensor.from_compressed_data(**parts).decompress()
    ((_, found),) = compressor.decompress(whole, names_to_scheme={"dense": arguments})
    dense = {**network(dtype).state_dict(), "dense.weight": found["weight"].contiguous()}
    folder = HERE / f"{name}-{version}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    save_file(dense, folder / "dense.safetensors")
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    values = {"model_type": "bert", "hidden_size": 20, "quantization_config": config}
    (folder / "config.json").write_text(json.dumps(values, default=str, indent=2, sort_keys=True))
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes for the owner's eyes only


if __name__ == "__main__":
    import compressed_tensors

    for name in FOLDERS:
        write(name, compressed_tensors.__version__)
