"""Write the folders of `sparse-bitmask` weights in here, with compressed-tensors itself.

    pip download --no-deps -d old compressed-tensors==0.7.1 compressed-tensors==0.9.4
    unzip -d old/0.7.1 old/compressed_tensors-0.7.1-*.whl; unzip -d old/0.9.4 old/compressed_tensors-0.9.4-*.whl
    for version in 0.7.1 0.9.4; do PYTHONPATH=old/$version python tests/data/make_sparse_bitmask.py; done

Each folder has `dense.safetensors` too, the weights before they were compressed.
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
NAMES = ("sparse-bitmask", "sparse-24-bitmask")


def model(name: str) -> nn.Module:
    """A small model of which two layers are pruned; one of them has an empty row, the other is in bfloat16."""
    torch.manual_seed(0)
    made = nn.ModuleDict(
        {"embedding": nn.Embedding(6, 20), "dense": nn.Linear(20, 9), "norm": nn.LayerNorm(9), "head": nn.Linear(20, 4)}
    )
    for key in ("dense", "head"):
        weight = made[key].weight.data
        kept = torch.arange(weight.numel()).reshape(weight.shape) * 7 % 10 < 3
        if name == "sparse-24-bitmask":
            kept = torch.tensor([True, False, False, True]).repeat(weight.shape[0], weight.shape[1] // 4)
        made[key].weight.data = weight * kept
    if name == "sparse-bitmask":
        made["dense"].weight.data[4] = 0.0
    made["head"].to(torch.bfloat16)
    return made


def write(name: str, version: str) -> None:
    """One folder, as llm-compressor has its files written: weights through the compressor, config by its update."""
    from compressed_tensors import ModelCompressor
    from compressed_tensors.config import SparsityCompressionConfig

    folder = HERE / f"{name}-{version}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    arguments: dict[str, Any] = {} if version == "0.7.1" else {"targets": ["Linear"], "ignore": []}
    config = SparsityCompressionConfig.load_from_registry(name, global_sparsity=0.7, **arguments)
    made, compressor = model(name), ModelCompressor(sparsity_config=config)
    save_file(made.state_dict(), folder / "dense.safetensors")
    save_file(compressor.compress(made), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 20}))
    compressor.update_config(str(folder))
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes for the owner's eyes only


if __name__ == "__main__":
    import compressed_tensors

    for name in NAMES if compressed_tensors.__version__ != "0.7.1" else NAMES[:1]:
        write(name, compressed_tensors.__version__)
