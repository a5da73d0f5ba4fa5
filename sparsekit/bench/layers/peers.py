"""Adapters of the engines that run a linear layer on the CPU.

An adapter takes a `Problem` and returns a function without arguments that computes `x @ weight.T + bias`, with
row-major input and output, in the fastest way that the engine offers its users: weights are packed and outputs bound in
advance if possible. Transposes that an engine needs count as part of the call.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from sparsekit import runtime
from sparsekit.bench.layers.problem import Call, Floats, Problem
from sparsekit.bench.peer import Peer, ours


def _sparsekit(problem: Problem, dtype: str) -> Call:
    packed = problem.weight.packed(dtype)
    (batch, in_features), out_features = problem.x.shape, problem.bias.size
    runtime.follow_torch_threads()
    arguments = (packed.ctypes.data, packed.size, problem.x.ctypes.data, in_features, in_features, batch)
    result = (problem.result.ctypes.data, out_features, problem.bias.ctypes.data, 0)

    def call(_keep: Problem = problem) -> Floats:
        runtime.linear_at(*arguments, *result)
        return problem.result

    return call


def _torch(problem: Problem) -> Call:
    import torch
    from torch.nn import functional as F

    x, weight, bias = (torch.from_numpy(array) for array in (problem.x, problem.weight.dense, problem.bias))
    return lambda: F.linear(x, weight, bias)


def _torch_int8(problem: Problem) -> Call:
    import torch

    linear = torch.nn.Linear(problem.x.shape[1], problem.bias.size)
    linear.weight.data, linear.bias.data = torch.from_numpy(problem.weight.dense), torch.from_numpy(problem.bias)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends another package, which is slower on CPUs
        quantized = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(linear), {torch.nn.Linear})
    x = torch.from_numpy(problem.x)
    return lambda: quantized(x)


def _torch_csr(problem: Problem) -> Call:
    import torch

    weight = problem.weight.csr.to_torch()
    x, bias = torch.from_numpy(problem.x), torch.from_numpy(problem.bias)
    return lambda: (weight @ x.T).T + bias


def _scipy(problem: Problem) -> Call:
    weight = problem.weight.csr.to_scipy()
    return lambda: (weight @ problem.x.T).T + problem.bias


def _find_mkl() -> None:
    """Point sparse_dot_mkl to the library of the `mkl` package, which is outside the linker's search path."""
    libraries = sorted((Path(sys.prefix) / "lib").glob("libmkl_rt.so*"))
    if libraries:
        os.environ.setdefault("MKL_RT", str(libraries[0]))


def _mkl(problem: Problem) -> Call:
    _find_mkl()
    from sparse_dot_mkl import dot_product_mkl, mkl_set_num_threads

    mkl_set_num_threads(problem.threads)
    weight = problem.weight.csr.to_scipy()
    return lambda: dot_product_mkl(weight, np.ascontiguousarray(problem.x.T)).T + problem.bias


def _onnx(problem: Problem, nodes: list[Any]) -> Any:
    """ONNX model from `x` to `y` with the transposed weight `w` and the bias `b`."""
    from onnx import TensorProto, helper, numpy_helper

    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, problem.x.shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, problem.result.shape)]
    constants = {"w": np.ascontiguousarray(problem.weight.dense.T), "b": problem.bias}
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _onnxruntime(problem: Problem) -> Call:
    from onnx import helper

    return _in_onnxruntime(problem, _onnx(problem, [helper.make_node("Gemm", ["x", "w", "b"], ["y"])]))


def _onnxruntime_int8(problem: Problem, reduce_range: bool = False) -> Call:
    import onnx
    from onnx import helper
    from onnxruntime.quantization import QuantType, quantize_dynamic

    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends preprocessing, which changes nothing for one layer
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            options = {"per_channel": True, "reduce_range": reduce_range, "weight_type": QuantType.QInt8}
            quantize_dynamic(_onnx(problem, nodes), path, **options)
            return _in_onnxruntime(problem, onnx.load(path))
    finally:
        root.setLevel(level)


def onnxruntime_session(model: bytes | Path, threads: int) -> Any:
    """ONNX Runtime session on the CPU for a model's bytes or file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def openvino_request(model: Any, threads: int) -> Any:
    """OpenVINO inference request on the CPU in float32 for a model or file."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(model, "CPU", settings).create_infer_request()


def _in_onnxruntime(problem: Problem, model: Any) -> Call:
    session = onnxruntime_session(model.SerializeToString(), problem.threads)
    binding = session.io_binding()
    for bind, name, array in ((binding.bind_input, "x", problem.x), (binding.bind_output, "y", problem.result)):
        bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def call() -> Floats:
        session.run_with_iobinding(binding)
        return problem.result

    return call


def _openvino(problem: Problem) -> Call:
    import openvino
    from openvino import opset13 as ops

    x = ops.parameter(list(problem.x.shape), np.float32)
    product = ops.matmul(x, ops.constant(problem.weight.dense), False, True)
    model = openvino.Model([ops.add(product, ops.constant(problem.bias[None]))], [x], "linear")
    request = openvino_request(model, problem.threads)
    request.set_input_tensor(openvino.Tensor(problem.x, shared_memory=True))

    def call(_keep: Problem = problem) -> Any:
        request.infer()
        return request.get_output_tensor().data

    return call


#: Tolerance of int8 outputs, relative to the sum of the products' magnitudes.
_INT8_TOLERANCE = 0.02
_ONNX = ("onnxruntime", "onnx")

#: Engines by name; names of int8 engines contain "int8".
PEERS: dict[str, Peer[Problem]] = {
    **ours("sparsekit", _sparsekit, {"float32": 1e-5, "bfloat16": 4e-3, "float16": 5e-4, "int8": _INT8_TOLERANCE}),
    "torch": Peer(_torch, ("torch",), sparse=False),
    "onnxruntime": Peer(_onnxruntime, _ONNX, sparse=False),
    "openvino": Peer(_openvino, ("openvino",), sparse=False),
    "torch-int8": Peer(_torch_int8, ("torch",), sparse=False, tolerance=_INT8_TOLERANCE),
    "onnxruntime-int8": Peer(
        _onnxruntime_int8, _ONNX, sparse=False, tolerance=_INT8_TOLERANCE, remedy="onnxruntime-int8-reduce-range"
    ),
    # 7-bit weights: without VNNI, sums of two byte products saturate in 16 bits.
    "onnxruntime-int8-reduce-range": Peer(
        functools.partial(_onnxruntime_int8, reduce_range=True), _ONNX, sparse=False, tolerance=2 * _INT8_TOLERANCE
    ),
    "torch-csr": Peer(_torch_csr, ("torch",), sparse=True),
    "scipy": Peer(_scipy, ("scipy",), sparse=True),
    "mkl": Peer(_mkl, ("sparse_dot_mkl", "scipy"), sparse=True),
}
