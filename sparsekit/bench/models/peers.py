"""Engines of the model benchmark: one adapter each.

An adapter gets a dense model with its inputs and returns a function without arguments that computes its last hidden
state. Exported models have fixed sizes, which is what the engines run fastest.
"""

from __future__ import annotations

import copy
import functools
import logging
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from sparsekit import runtime
from sparsekit.bench.layers.peers import onnxruntime_session, openvino_request
from sparsekit.bench.layers.problem import Floats
from sparsekit.bench.peer import Peer, ours
from sparsekit.conversion import convert
from sparsekit.conversion.report import LEAST_ZEROS
from sparsekit.engine import compile_model
from sparsekit.fusion import fuse
from sparsekit.pruning import pruning_report


class HiddenState(nn.Module):
    """A transformers model whose only output is its last hidden state, [batch, tokens, features].

    Args:
        model: what `AutoModel` loads.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Run the model on token ids and mask, int64, [batch, tokens]."""
        hidden: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


@dataclass(frozen=True)
class ModelProblem:
    """One call of a whole model."""

    model: HiddenState  # dense, pruned weights as zeros
    input_ids: torch.Tensor  # int64, [batch, tokens]
    attention_mask: torch.Tensor
    threads: int

    @property
    def arrays(self) -> dict[str, Any]:
        """Inputs by name, as numpy arrays."""
        return {"input_ids": self.input_ids.numpy(), "attention_mask": self.attention_mask.numpy()}


ModelCall: TypeAlias = Callable[[], Floats]


class InTorch:
    """Runs a model in torch.

    Args:
        model: dense or converted.
        problem: its inputs.
    """

    def __init__(self, model: HiddenState, problem: ModelProblem) -> None:
        self.model = model
        self.inputs = problem.input_ids, problem.attention_mask

    def __call__(self) -> Floats:
        """The last hidden state."""
        hidden: Floats = self.model(*self.inputs).numpy()
        return hidden


def _torch(problem: ModelProblem) -> ModelCall:
    return InTorch(problem.model, problem)


def _sparsekit(problem: ModelProblem, dtype: str) -> ModelCall:
    """Converted for the number of tokens of the inputs, layers that would lose stay dense, and fused."""
    model = copy.deepcopy(problem.model)
    if dtype != "float32" or any(layer.sparsity >= LEAST_ZEROS for layer in pruning_report(model).layers):
        convert(model, tokens=[problem.input_ids.numel()], dtype=dtype)
    return InTorch(fuse(model), problem)


def _engine(problem: ModelProblem, dtype: str) -> ModelCall:
    """Compiled for the engine, every layer in this type, as a folder of transformers with zeros in its weights."""
    with tempfile.TemporaryDirectory() as folder:
        transformer: Any = problem.model.model
        transformer.save_pretrained(folder)
        encoder = runtime.CompiledEncoder(compile_model(folder, dtype=dtype))
    seen = problem.attention_mask.numpy().astype(bool)
    ids = problem.input_ids.numpy()[seen].astype(np.int32)
    offsets = np.concatenate([[0], seen.sum(axis=1).cumsum()])
    hidden = np.zeros((*seen.shape, encoder.features), np.float32)

    def call() -> Floats:
        hidden[seen] = encoder.run(ids, offsets)
        return hidden

    return call


def _export(problem: ModelProblem, path: Path) -> None:
    """Write the model as ONNX, its weights in the same file; what the exporter has to say is not for the user."""
    quiet = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in quiet]
    for logger in quiet:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                problem.model,
                (problem.input_ids, problem.attention_mask),
                path,
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=list(problem.arrays),
                output_names=["hidden"],
            )
    finally:
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)


def _onnxruntime(problem: ModelProblem, int8: bool = False, reduce_range: bool = False) -> ModelCall:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _export(problem, path)
        if int8:
            path = _quantized(path, reduce_range)
        session = onnxruntime_session(path, problem.threads)
    arrays = problem.arrays
    return lambda: np.asarray(session.run(None, arrays)[0])


def _quantized(path: Path, reduce_range: bool) -> Path:
    """The model with its linear layers in int8, a scale for each output, inputs quantized at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, quantized = path.with_name("prepared.onnx"), path.with_name("int8.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    options = {"per_channel": True, "reduce_range": reduce_range, "weight_type": QuantType.QInt8}
    quantize_dynamic(prepared, quantized, **options)
    return quantized


def _openvino(problem: ModelProblem) -> ModelCall:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _export(problem, path)
        request = openvino_request(path, problem.threads)
    arrays = problem.arrays
    return lambda: np.asarray(request.infer(arrays)[0])


_ONNX = ("onnxruntime", "onnx", "onnxscript")
#: Part of the hidden state's largest number by which 8 bits in every layer may be off.
_INT8_TOLERANCE = 0.5

_TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01, "int8": _INT8_TOLERANCE}

#: Engines by name; "int8" is in the names of those that compute in it.
MODEL_PEERS: dict[str, Peer[ModelProblem]] = {
    **ours("sparsekit", _sparsekit, _TOLERANCES),
    **ours("sparsekit-engine", _engine, _TOLERANCES),
    "torch": Peer(_torch, ("torch",), sparse=False, tolerance=1e-4),
    "onnxruntime": Peer(_onnxruntime, _ONNX, sparse=False, tolerance=1e-4),
    "openvino": Peer(_openvino, ("openvino", "onnx", "onnxscript"), sparse=False, tolerance=1e-4),
    "onnxruntime-int8": Peer(
        functools.partial(_onnxruntime, int8=True),
        _ONNX,
        sparse=False,
        tolerance=_INT8_TOLERANCE,
        remedy="onnxruntime-int8-reduce-range",
    ),
    "onnxruntime-int8-reduce-range": Peer(
        functools.partial(_onnxruntime, int8=True, reduce_range=True), _ONNX, sparse=False, tolerance=_INT8_TOLERANCE
    ),
}
