"""Store reference outputs of a model in its folder, and compare them on another machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from sparsekit.checkpoint.tensors import storable, to_tensor
from sparsekit.folder.layer_checks import Check, compare, number
from sparsekit.formats.dtypes import BY_SAFETENSORS
from sparsekit.io.file_names import VERIFICATION
from sparsekit.io.safetensors_file import ArrayFile
from sparsekit.io.untrusted import regular_file
from sparsekit.nn import SparseLinear

#: Largest number of elements in an input: an untrusted folder must not request attention over millions of tokens.
_MOST_IDS, _MOST_FLOATS = 4096, 2**20
_MOST_BYTES = 64 * 2**20
_INPUTS, _OUTPUTS = "inputs.", "outputs."

#: Tolerances across processors and versions, relative to the largest output. Inputs of int8 and int4 layers are
#: quantized and sometimes round the other way, and models in 16-bit dtypes round everywhere.
_TOLERANCE, _COARSE_TOLERANCE = 1e-4, 2e-2


def _tolerance(model: nn.Module) -> float:
    halves = any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in model.parameters())
    rounds = any(isinstance(module, SparseLinear) and module.dtype in ("int8", "int4") for module in model.modules())
    return _COARSE_TOLERANCE if halves or rounds else _TOLERANCE


def _check_inputs(inputs: Mapping[str, Any]) -> None:
    if not inputs or not all(isinstance(tensor, torch.Tensor) for tensor in inputs.values()):
        raise TypeError("inputs must be tensors by the names of the model's arguments, such as {'input_ids': ids}")
    for name, tensor in inputs.items():
        most = _MOST_FLOATS if tensor.is_floating_point() else _MOST_IDS
        if tensor.numel() > most:
            raise ValueError(f"{name} must have at most {most} numbers, got {tensor.numel()}; give fewer texts")


def _run(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> Any:
    training = [module for module in model.modules() if module.training]
    try:
        with torch.inference_mode():
            return model.eval()(**inputs)
    except Exception as error:  # a model may raise anything on unsuitable inputs
        raise ValueError(f"the model cannot run on the inputs: {error}") from error
    finally:
        for module in training:
            module.training = True


def answers(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Floating-point outputs of a model in eval mode, by name or position.

    Raises:
        ValueError: the model cannot run on the inputs, or returns no floats or values that are not finite.
    """
    found = _run(model, inputs)
    if isinstance(found, torch.Tensor):
        found = [found]
    named = found if isinstance(found, Mapping) else dict(enumerate(found))
    tensors = {str(name): tensor for name, tensor in named.items() if isinstance(tensor, torch.Tensor)}
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floats or not all(bool(tensor.isfinite().all()) for tensor in floats.values()):
        raise ValueError(f"the model must return finite floats, got {sorted(tensors) or type(found).__name__}")
    return floats


def write_outputs(model: nn.Module, inputs: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Run the model on inputs, and write inputs and outputs to `verification.safetensors`.

    Returns:
        Its entry in `sparsekit.json`.

    Raises:
        TypeError: an input is not a tensor.
        ValueError: inputs or outputs are too large, outputs are not finite, or the model cannot run on the inputs.
    """
    _check_inputs(inputs)
    arrays = {f"{_INPUTS}{name}": tensor for name, tensor in inputs.items()}
    arrays |= {f"{_OUTPUTS}{name}": tensor for name, tensor in answers(model, inputs).items()}
    plain = {name: storable(name, tensor).clone() for name, tensor in arrays.items()}
    size = sum(tensor.nbytes for tensor in plain.values())
    if size > _MOST_BYTES:
        raise ValueError(f"inputs and outputs must have at most {_MOST_BYTES} bytes, got {size}; give fewer texts")
    save_file(plain, folder / VERIFICATION, metadata={"format": "pt"})
    checksum = hashlib.sha256((folder / VERIFICATION).read_bytes()).hexdigest()
    return {"sha256": checksum, "tolerance": _tolerance(model)}


def _read(folder: Path, checksum: Any) -> dict[str, torch.Tensor]:
    path = regular_file(folder, VERIFICATION)
    if path.stat().st_size > _MOST_BYTES + 2**20 or hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
        raise ValueError(f"{path} is damaged, its checksum is another; copy the folder again")
    file = ArrayFile(path)
    places = file.places.items()
    return {name: to_tensor(name, file.raw(name), BY_SAFETENSORS[p.dtype], p.shape) for name, p in places}


def check_outputs(model: nn.Module, folder: Path, entry: Any) -> dict[str, Check]:
    """Compare a model's outputs with those stored in the folder.

    Args:
        model: the model loaded from the folder.
        folder: the folder.
        entry: the entry that `write_outputs` returned.

    Returns:
        Output name -> check.

    Raises:
        ValueError: the file is missing, damaged or malformed, or the model cannot run on the inputs.
    """
    if not isinstance(entry, dict) or set(entry) != {"sha256", "tolerance"}:
        raise ValueError("verification.outputs must have the keys ['sha256', 'tolerance']")
    tolerance = number(entry["tolerance"], "verification.outputs.tolerance")
    arrays = _read(folder, entry["sha256"])
    inputs = {name.removeprefix(_INPUTS): array for name, array in arrays.items() if name.startswith(_INPUTS)}
    wanted = {name.removeprefix(_OUTPUTS): array for name, array in arrays.items() if name.startswith(_OUTPUTS)}
    _check_inputs(inputs)
    try:
        found = answers(model, inputs)
    except ValueError as error:
        raise ValueError(f"{folder / VERIFICATION}: {error}") from error
    shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in (found, wanted)]
    if shapes[0] != shapes[1] or not wanted:
        raise ValueError(f"the model must return what {folder / VERIFICATION} holds, {shapes[1]}, got {shapes[0]}")
    floats = {name: (found[name].double().numpy(), wanted[name].double().numpy()) for name in wanted}
    return {name: compare(one, other, tolerance) for name, (one, other) in floats.items()}
