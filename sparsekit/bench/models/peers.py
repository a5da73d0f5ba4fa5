"""Adapters of the engines of the model benchmark.

An adapter takes a dense model with its inputs and returns a function without arguments that computes the last hidden
state. Exported models have fixed shapes, which engines run fastest.
"""

from __future__ import annotations

import copy
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.bench.layers.peers import onnxruntime_session, openvino_request
from sparsekit.bench.layers.problem import Floats
from sparsekit.bench.models.ctranslate2_encoder import ctranslate2_encoder
from sparsekit.bench.models.exporting import export_onnx, quantized_onnx
from sparsekit.bench.models.problem import BoundCall, HiddenState, ModelCall, ModelProblem
from sparsekit.bench.models.static_int8 import fixed_size, quantized_openvino
from sparsekit.bench.peer import Peer, ours
from sparsekit.conversion import convert
from sparsekit.conversion.report import LEAST_ZEROS
from sparsekit.engine import compile_model
from sparsekit.fusion import fuse
from sparsekit.pruning import pruning_report


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
    """Converted for the inputs' number of tokens, slower layers left dense, and fused."""
    model = copy.deepcopy(problem.model)
    if dtype != "float32" or any(layer.sparsity >= LEAST_ZEROS for layer in pruning_report(model).layers):
        convert(model, tokens=[problem.input_ids.numel()], dtype=dtype)
    return InTorch(fuse(model), problem)


def compiled_call(compiled: NDArray[np.uint8], problem: ModelProblem) -> ModelCall:
    """Runs a compiled encoder in the engine.

    Args:
        compiled: as `compile_model` gives it.
        problem: its inputs.
    """
    return encoder_call(runtime.CompiledEncoder(compiled), problem.input_ids, problem.attention_mask)


def encoder_call(encoder: runtime.CompiledEncoder, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> ModelCall:
    """Runs an encoder in the engine, its hidden states padded as torch's.

    Args:
        encoder: the encoder.
        input_ids: int64, [batch, tokens].
        attention_mask: likewise.
    """
    seen = attention_mask.numpy().astype(bool)
    ids = input_ids.numpy()[seen].astype(np.int32)
    offsets = np.concatenate([[0], seen.sum(axis=1).cumsum()])
    hidden = np.zeros((*seen.shape, encoder.features), np.float32)

    def call() -> Floats:
        hidden[seen] = encoder.run(ids, offsets)
        return hidden

    return call


def _engine(problem: ModelProblem, dtype: str) -> ModelCall:
    """Compiled for sparsekit's engine, every layer in this type, from a dense folder with zeros."""
    with tempfile.TemporaryDirectory() as folder:
        transformer: Any = problem.model.model
        transformer.save_pretrained(folder)
        return compiled_call(compile_model(folder, dtype=dtype), problem)


def _onnxruntime(problem: ModelProblem, int8: bool = False, reduce_range: bool = False) -> ModelCall:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(problem.model, problem.input_ids, path)
        if int8:
            path = quantized_onnx(path, reduce_range=reduce_range)
        session = onnxruntime_session(path, problem.threads)

    def bind(*inputs: torch.Tensor) -> ModelCall:
        arrays = _arrays(*inputs)
        return lambda: np.asarray(session.run(None, arrays)[0])

    return BoundCall(bind, problem)


def _arrays(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, NDArray[Any]]:
    """Inputs by name."""
    return {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}


def _in_openvino(problem: ModelProblem, model: Any) -> ModelCall:
    request = openvino_request(model, problem.threads)

    def bind(*inputs: torch.Tensor) -> ModelCall:
        arrays = _arrays(*inputs)
        return lambda: np.asarray(request.infer(arrays)[0])

    return BoundCall(bind, problem)


def _openvino(problem: ModelProblem) -> ModelCall:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(problem.model, problem.input_ids, path)
        return _in_openvino(problem, path)


def _openvino_int8(problem: ModelProblem) -> ModelCall:
    calibration = problem.calibration or tuple(map(tuple, problem.input_ids.tolist()))
    model = quantized_openvino(problem.model, calibration)
    return _in_openvino(problem, fixed_size(model, *problem.input_ids.shape))


def _ctranslate2(problem: ModelProblem, compute_type: str) -> ModelCall:
    import ctranslate2

    encoder = ctranslate2_encoder(problem.model, compute_type, problem.threads)

    def bind(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> ModelCall:
        arrays = input_ids.numpy(), attention_mask.numpy().sum(axis=1)
        ids, lengths = (ctranslate2.StorageView.from_array(array.astype(np.int32)) for array in arrays)
        return lambda: np.asarray(encoder.forward_batch(ids, lengths).last_hidden_state)

    return BoundCall(bind, problem)


_ONNX = ("onnxruntime", "onnx", "onnxscript")
_CTRANSLATE2 = ("ctranslate2", "tokenizers")
#: Tolerance of int8 models, relative to the largest value of the hidden state.
_INT8_TOLERANCE = 0.5

#: The same by the type of our stored weights.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01, "int8": _INT8_TOLERANCE}

#: Engines by name; names of int8 engines contain "int8".
MODEL_PEERS: dict[str, Peer[ModelProblem]] = {
    **ours("sparsekit", _sparsekit, TOLERANCES),
    **ours("sparsekit-engine", _engine, TOLERANCES),
    "torch": Peer(_torch, ("torch",), sparse=False, tolerance=1e-4),
    "onnxruntime": Peer(_onnxruntime, _ONNX, sparse=False, tolerance=1e-4),
    "openvino": Peer(_openvino, ("openvino", "onnx", "onnxscript"), sparse=False, tolerance=1e-4),
    "openvino-int8": Peer(
        _openvino_int8, ("openvino", "nncf"), sparse=False, tolerance=_INT8_TOLERANCE, calibrates=True
    ),
    "ctranslate2": Peer(
        functools.partial(_ctranslate2, compute_type="float32"), _CTRANSLATE2, sparse=False, tolerance=1e-4
    ),
    "ctranslate2-int8": Peer(
        functools.partial(_ctranslate2, compute_type="int8"), _CTRANSLATE2, sparse=False, tolerance=_INT8_TOLERANCE
    ),
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

#: Dense engines, without those that only replace another one whose outputs are wrong.
DENSE_ENGINES = tuple(
    name
    for name, peer in MODEL_PEERS.items()
    if not peer.sparse and name not in {other.remedy for other in MODEL_PEERS.values()}
)
