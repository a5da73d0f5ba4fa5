"""Export models to ONNX, dense with their zeros."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsekit.conversion import densify
from sparsekit.extras import how_to_install
from sparsekit.pruning.masks.parametrization import finalize

#: Protobuf files are limited to 2 GiB; above this size the weights go to a separate file.
_MOST_INSIDE = 2**30
_QUIET = ("torch.onnx", "onnxscript", "onnx_ir")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's messages, which are for its developers."""
    loggers = [logging.getLogger(name) for name in _QUIET]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _plain(model: nn.Module) -> nn.Module:
    """A dense copy without masks that returns no cache."""
    plain: Any = densify(finalize(copy.deepcopy(model))).eval()
    for module in plain.modules():
        if hasattr(getattr(module, "config", None), "use_cache"):
            module.config.use_cache = False
    return plain  # type: ignore[no-any-return]


def _axes(name: str, tensor: torch.Tensor) -> dict[int, str]:
    """Dynamic dimensions of an input: batch and tokens."""
    if tensor.dim() == 0:
        return {}
    is_ids = tensor.dim() == 2 and not tensor.is_floating_point()
    axes = {0: "batch", 1: "tokens"} if is_ids or tensor.dim() > 2 else {0: "batch"}
    small = [f"dimension {axis} ({word})" for axis, word in axes.items() if tensor.shape[axis] < 2]
    if small:
        raise ValueError(f"example input {name!r} must have at least 2 in {small[0]}, got shape {list(tensor.shape)}: "
                         "the exporter takes 1 for a size that stays")  # fmt: skip
    return axes


def _output_names(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> list[str] | None:
    """Names of the outputs, if the model has names; None leaves them to the exporter."""
    with torch.no_grad():
        found = model(**inputs)
    if isinstance(found, torch.Tensor):
        return ["output"]
    if isinstance(found, Mapping) and all(isinstance(one, torch.Tensor) for one in found.values()):
        return list(found)
    return None


def _program(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> Any:
    """The exported model."""
    axes = {name: _axes(name, tensor) for name, tensor in inputs.items()}
    names = _output_names(model, inputs)
    try:
        with _quiet(), torch.no_grad():
            return torch.onnx.export(
                model, kwargs=dict(inputs), dynamo=True, verbose=False, dynamic_shapes=axes, output_names=names
            )
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        raise ValueError(
            f"this model cannot be exported for any number of texts and tokens; torch.onnx says: {cause}"
        ) from error


def export_onnx(model: nn.Module, path: Path | str, example_inputs: Mapping[str, torch.Tensor]) -> Path:
    """Write a model as ONNX with dynamic batch and sequence length, with pruned weights as zeros.

    ONNX has no sparse layers: the file is as large and as fast as that of the dense model. The model itself is not
    changed: a copy of it is densified and its masks are baked in.

    Args:
        model: any model on the CPU, converted or not.
        path: a file that ends in `.onnx`, or a folder for `model.onnx`; created if missing. Above 1 GiB, weights go to
            `model.onnx.data` beside it.
        example_inputs: keyword arguments of the model's forward, such as the result of `tokenizer(["one", "two"],
            ...)`. The first dimension of inputs is the batch; the second is tokens in integer and three-dimensional
            inputs. Both must be at least 2.

    Returns:
        Path of the file. Inputs are named as in `example_inputs`, outputs as in the model, or `output`.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.
        TypeError: `example_inputs` contains something other than tensors.
        ValueError: there are fewer than 2 texts or tokens, torch's exporter cannot export the model or its dynamic
            dimensions, or the user built a layer with a fused activation function.
    """
    if not example_inputs or not all(isinstance(tensor, torch.Tensor) for tensor in example_inputs.values()):
        kinds = sorted({type(tensor).__name__ for tensor in example_inputs.values()})
        raise TypeError(f"example_inputs must be tensors by the names of forward's arguments, got {kinds}")
    target = Path(path) if Path(path).suffix == ".onnx" else Path(path) / "model.onnx"
    plain = _plain(model)
    try:
        program = _program(plain, example_inputs)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"exporting needs onnx: {how_to_install('export')}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    outside = sum(tensor.nbytes for tensor in plain.state_dict().values()) > _MOST_INSIDE
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}-") as folder, _quiet():
        program.save(Path(folder) / target.name, external_data=outside)
        for written in sorted(Path(folder).iterdir(), reverse=True):  # the model last: it refers to the weights
            written.chmod(0o644)
            written.replace(target.parent / written.name)
    return target
