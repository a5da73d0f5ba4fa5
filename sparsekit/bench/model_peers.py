"""Engines that run a whole encoder on the CPU: one adapter each, as `peers.py` has them for a layer.

An adapter gets a dense model with its inputs and returns a function without arguments that computes its last hidden
state. Exported models have fixed sizes, which is what the engines run fastest.
"""

from __future__ import annotations

import copy
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

from sparsekit.bench.peers import Floats, Peer
from sparsekit.conversion import convert


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


def _sparsekit(problem: ModelProblem) -> ModelCall:
    """Converted for the number of tokens of the inputs; layers that would lose stay dense."""
    model = copy.deepcopy(problem.model)
    convert(model, tokens=[problem.input_ids.numel()])
    return InTorch(model, problem)


def _export(problem: ModelProblem, path: Path) -> None:
    """Write the model as ONNX, its weights in the same file; what the exporter has to say is not for the user."""
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
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
        quiet.setLevel(level)


def _onnxruntime(problem: ModelProblem) -> ModelCall:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = problem.threads, 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _export(problem, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    arrays = problem.arrays
    return lambda: np.asarray(session.run(None, arrays)[0])


def _openvino(problem: ModelProblem) -> ModelCall:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": problem.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _export(problem, path)
        compiled = openvino.Core().compile_model(path, "CPU", settings)
    request, arrays = compiled.create_infer_request(), problem.arrays
    return lambda: np.asarray(request.infer(arrays)[0])


MODEL_PEERS: dict[str, Peer[ModelProblem]] = {
    "sparsekit": Peer(_sparsekit, (), sparse=True),
    "torch": Peer(_torch, ("torch",), sparse=False),
    "onnxruntime": Peer(_onnxruntime, ("onnxruntime", "onnx", "onnxscript"), sparse=False),
    "openvino": Peer(_openvino, ("openvino", "onnx", "onnxscript"), sparse=False),
}
