"""How near the sentence embeddings of a pruned MiniLM stay with smaller types of sparse weights.

.venv/bin/python benchmarks/answers.py benchmarks/results/answers.json
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AutoTokenizer

from sparsekit import conversion_report, convert, finalize
from sparsekit.bench.film_reviews import load_splits
from sparsekit.bench.minilm import load_minilm, minilm_folder
from sparsekit.bench.models.peers import MODEL_PEERS
from sparsekit.bench.models.problem import HiddenState, ModelProblem
from sparsekit.checkpoint.transformers.foreign import from_folder
from sparsekit.formats.dtypes import WEIGHT_DTYPES
from sparsekit.io.atomic_file import write_json
from sparsekit.pruning import prune_sparsegpt
from sparsekit.runtime.environment import environment

CALIBRATION = 128
SENTENCES = 256
TOKENS = 48


def encoded(tokenizer: Any, texts: list[str]) -> dict[str, torch.Tensor]:
    """Token ids and mask, int64, [texts, TOKENS]."""
    found = tokenizer(texts, truncation=True, max_length=TOKENS, padding="max_length", return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def embeddings(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens, of length 1: [texts, features]."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def cosines(a: torch.Tensor, b: torch.Tensor) -> dict[str, float]:
    """Mean and least cosine of embeddings of the same texts."""
    found = (a.double() * b.double()).sum(-1)
    return {"mean": found.mean().item(), "least": found.min().item()}


@torch.inference_mode()
def rows(encoder: Any, inputs: dict[str, torch.Tensor], sparsity: float, structure: str) -> list[dict[str, Any]]:
    """One row for each type of value, against the model's own float32 and against dense int8 with the same mask."""
    dense = HiddenState(encoder)
    mask = inputs["attention_mask"]
    exact = embeddings(dense(inputs["input_ids"], mask), mask)
    problem = ModelProblem(dense, inputs["input_ids"], mask, torch.get_num_threads())
    call = MODEL_PEERS["onnxruntime-int8"].prepare(problem)
    dense_int8 = embeddings(torch.from_numpy(call()), mask)
    found = []
    for dtype in WEIGHT_DTYPES:
        sparse = copy.deepcopy(dense)
        converted = conversion_report(convert(sparse, min_sparsity=0.5, dtype=dtype))
        mine = embeddings(sparse(inputs["input_ids"], mask), mask)
        found.append(
            {
                "sparsity": sparsity,
                "structure": structure,
                "dtype": dtype,
                "weight_bytes": converted.bytes_after,
                "dense_bytes": converted.bytes_before,
                "to_float32": cosines(mine, exact),
                "to_dense_int8": cosines(mine, dense_int8),
                "dense_int8_to_float32": cosines(dense_int8, exact),
            }
        )
    return found


def main(path: Path) -> None:
    """Measure and write."""
    splits = load_splits()
    encoder = load_minilm()
    tokenizer = from_folder(AutoTokenizer.from_pretrained, minilm_folder())
    encoder.eval()
    calibration = encoded(tokenizer, [example["text"] for example in splits.train[:CALIBRATION]])
    inputs = encoded(tokenizer, [example["text"] for example in splits.test[:SENTENCES]])
    found = []
    for structure in ("unstructured", "4x1"):
        for sparsity in (0.8, 0.9):
            pruned = copy.deepcopy(encoder)
            prune_sparsegpt(pruned, sparsity, [calibration], mask_structure=structure)
            found += rows(finalize(pruned), inputs, sparsity, structure)
    write_json(path, {"environment": environment(), "sentences": SENTENCES, "rows": found})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
