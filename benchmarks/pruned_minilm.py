"""all-MiniLM-L6-v2 with its linear layers pruned by magnitude: times are those of a pruned model, answers are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparsekit import finalize, prune
from sparsekit.bench.layers.weights import mask_structure
from sparsekit.bench.minilm import minilm_folder
from sparsekit.bench.models.exporting import export_onnx, quantized_onnx, quietly
from sparsekit.bench.models.problem import HiddenState
from sparsekit.checkpoint.transformers.foreign import from_folder

SPARSITY = 0.9


def open_sentences(folder: Path) -> Any:
    """The model of sentence-transformers in a folder, on the CPU."""
    from sentence_transformers import SentenceTransformer

    with quietly():
        return from_folder(SentenceTransformer, folder, device="cpu")


def write_pruned(folder: Path, block: str = "1x1") -> Path:
    """Write it as a folder of sentence-transformers, zeros in dense weights; "4x1": zeros in blocks of four rows."""
    model = open_sentences(minilm_folder())
    prune(model[0].auto_model, SPARSITY, mask_structure=mask_structure(block))
    finalize(model)
    with quietly():
        model.save(str(folder))
    return folder


def hidden_state(folder: Path) -> HiddenState:
    """The encoder in such a folder."""
    return HiddenState(open_sentences(folder)[0].auto_model)


def write_onnx(folder: Path, path: Path) -> Path:
    """Write the encoder in such a folder as ONNX for inputs of any size, unless that is there."""
    if not path.exists():
        export_onnx(hidden_state(folder), torch.ones(2, 9, dtype=torch.int64), path, any_size=True)
    return path


def write_onnx_int8(path: Path, *, reduce_range: bool = False) -> Path:
    """Quantize such a file; see `quantized_onnx`."""
    with quietly():
        return quantized_onnx(path, reduce_range=reduce_range)
