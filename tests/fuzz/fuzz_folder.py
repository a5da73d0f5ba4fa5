"""Model folders with damaged files: `load` and `verify` refuse each in words, or read it; they raise nothing else.

    python tests/fuzz/fuzz_folder.py [SECONDS [SEED]]

A small folder is written once; then its manifest, configuration and weight file are changed, with checksums that agree
again in half of the cases, so that what lies behind them is reached.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from mutations import byte_changes, json_changes, resealed, safetensors_changes
from running import arguments, run_for
from torch import nn

from sparsekit import SparseLinear, convert, finalize, load, prune, save, verify


def fresh() -> nn.Module:
    layers = nn.Linear(33, 20), nn.ReLU(), nn.Linear(20, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
    return nn.Sequential(*layers)


def write_plain(folder: Path) -> None:
    """A folder of a model that is given to `load`: int8 with an activation function, blocks, a dense layer, dense
    arrays."""
    torch.manual_seed(0)
    model = fresh()
    prune(model, 0.7, targets=["0", "3"])
    prune(model, 0.5, targets=["2"], mask_structure="4x1")
    prune(model, 0.25, targets=["4"])  # its dense array lists zeros, that of the last layer none
    finalize(model)
    model[4].weight.data[:, 0] = 1e-6
    for number, dtype in ((0, "int8"), (2, "float32"), (4, "int8"), (5, "int8")):
        model[number] = SparseLinear.from_linear(model[number], dtype=dtype)
    save(model, folder)


def write_bert(folder: Path) -> None:
    """A folder of a transformers model, which `load` makes from `config.json`, with embeddings in int8."""
    from transformers import BertConfig, BertModel, logging

    logging.set_verbosity_error()  # it warns of every strange configuration
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertModel(BertConfig(vocab_size=10, max_position_embeddings=8, **sizes))
    prune(model, 0.8)
    convert(model, min_sparsity=0.5, embeddings="int8")
    save(model, folder)


def write_llama(folder: Path) -> None:
    """A folder with several weight files, settings for generation and inputs to verify with."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=10, max_position_embeddings=8, **sizes))
    prune(model, 0.8, targets=["re:model.layers"])
    convert(model, targets=["re:model.layers"], min_sparsity=0.5)
    save(model, folder, max_shard_size=500, verify_inputs={"input_ids": torch.ones(1, 3, dtype=torch.int64)})


@st.composite
def damaged(draw: st.DrawFn, good: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a folder, one or two of them changed."""
    files = dict(good)
    for name in draw(st.lists(st.sampled_from(sorted(good)), min_size=1, max_size=2, unique=True)):
        deep: Any = json_changes if name.endswith(".json") else safetensors_changes
        change = deep if draw(st.integers(0, 3)) else byte_changes
        files[name] = draw(change(files[name]))
    if draw(st.booleans()):
        files["sparsekit.json"] = resealed(files["sparsekit.json"], files.get("model.safetensors", b""))
    return files


def main() -> None:
    seconds, seed = arguments()
    kinds: list[tuple[Any, Any]] = [
        (write_plain, lambda folder: load(folder, model=fresh())),
        (write_bert, load),
        (write_llama, verify),
    ]
    for write, read in kinds:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "model"
            write(folder)
            good = {
                path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".safetensors")
            }

            def check(files: dict[str, bytes], folder: Path = folder, read: Any = read) -> None:
                for name, data in files.items():
                    (folder / name).write_bytes(data)
                with contextlib.suppress(ValueError, FileNotFoundError):
                    read(folder)

            run_for(seconds / len(kinds), seed, check, damaged(good))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
