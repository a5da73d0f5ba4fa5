"""Export a dense model for other engines: ONNX in float32, or in int8 with dynamic quantization."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import torch

from sparsekit.bench.models.problem import HiddenState

_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir", "nncf", "transformers")
#: Upper bounds of the dynamic batch and sequence dimensions.
_MOST_TEXTS, _MOST_TOKENS = 4096, 512


@contextmanager
def quietly() -> Iterator[None]:
    """Silence messages and warnings of exporters and quantizers."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def export_onnx(model: HiddenState, input_ids: torch.Tensor, path: Path, *, any_size: bool = False) -> None:
    """Write a model as ONNX, from int64 ids and mask to "hidden", with its weights in the same file.

    Args:
        model: the model.
        input_ids: example input, int64, [batch, tokens].
        path: the file.
        any_size: whether batch and sequence length are dynamic.
    """
    sizes = {0: torch.export.Dim("texts", max=_MOST_TEXTS), 1: torch.export.Dim("tokens", max=_MOST_TOKENS)}
    with quietly():
        torch.onnx.export(
            model,
            (input_ids, torch.ones_like(input_ids)),
            path,
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=["input_ids", "attention_mask"],
            output_names=["hidden"],
            dynamic_shapes={"input_ids": sizes, "attention_mask": sizes} if any_size else None,
        )


def quantized_onnx(path: Path, *, reduce_range: bool = False) -> Path:
    """Quantize linear layers to int8 dynamically, with a scale for each output.

    Args:
        path: a float32 model; the new file is written beside it.
        reduce_range: use 7-bit weights, for processors without VNNI, where sums of byte products saturate.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, quantized = path.with_name("prepared.onnx"), path.with_name("int8.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    options = {"per_channel": True, "reduce_range": reduce_range, "weight_type": QuantType.QInt8}
    quantize_dynamic(prepared, quantized, **options)
    return quantized
