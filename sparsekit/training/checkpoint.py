"""Checkpoints of a training run: a safetensors file from which it resumes bit for bit.

Tensors are named `model.<name>`, `optimizer.<parameter>.<name>` and `random.<process>.<device>`; everything else is
JSON in the file's header.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from sparsekit.io.atomic_file import write_atomically
from sparsekit.pruning.layers import oriented
from sparsekit.pruning.masks.int4_rounding import apply_rounding, rounding_of
from sparsekit.pruning.masks.parametrization import apply_mask, mask_of
from sparsekit.training.processes import from_all, process_number, wait_for_all
from sparsekit.training.sharding import load_whole_state, parts_like, whole_tensors

_FORMAT = "2"
_MASK = re.compile(r"(?P<layer>.*)\.parametrizations\.(?P<name>\w+)\.0\.mask")
_ROUNDING = re.compile(r"(?P<layer>.*)\.parametrizations\.weight\.1\.scales")


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{number}.{name}": value if isinstance(value, torch.Tensor) else torch.tensor(value)
        for number, values in state.items()
        for name, value in values.items()
    }


def _random_states() -> dict[str, torch.Tensor]:
    """Random number generator states of all processes, which draw different dropout masks."""
    own = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        own["cuda"] = torch.cuda.get_rng_state()
    return {
        f"random.{process}.{device}": state
        for device, one in own.items()
        for process, state in enumerate(from_all(one))
    }


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Mapping[str, Any]
) -> None:
    """Write everything that a run needs to resume, atomically. All processes call it; process 0 writes.

    Args:
        path: the file.
        model: the trained model, masks included.
        optimizer: its optimizer.
        progress: plain values of the run.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= _optimizer_tensors(optimizer) | _random_states()
    first = process_number() == 0
    apart = whole_tensors(tensors, kept=first)
    if first:
        header = {"format": _FORMAT, "progress": json.dumps(progress)}
        write_tensors(path, apart, header)
    wait_for_all()  # so that a process stopped right after this resumes from this checkpoint


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, str] | None = None) -> None:
    """Write tensors to a file, atomically.

    Raises:
        OSError: it cannot be written, for example on a full disk; an old file is unchanged.
    """
    try:
        write_atomically(path, partial(save_file, tensors, metadata=header))
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written ({error}); is the disk full?") from error


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the tensors and the header of a file.

    Raises:
        ValueError: the file is damaged or missing.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return tensors, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is no checkpoint of this version ({error}); delete it to start anew") from error


def read_progress(path: Path) -> dict[str, Any]:
    """Read the progress in a checkpoint, without its tensors.

    Raises:
        ValueError: the file is damaged or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        if header.get("format") != _FORMAT:
            raise ValueError(f"format {_FORMAT} was expected, got {header.get('format')}")
        found: dict[str, Any] = json.loads(header["progress"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no checkpoint of this version ({error}); delete it to start anew") from error
    return found


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _add_parametrization(model: nn.Module, key: str, tensor: torch.Tensor) -> None:
    """Add the mask or rounding that a tensor's name implies, unless the layer has it."""
    found = _MASK.fullmatch(key)
    if found:
        layer = model.get_submodule(found["layer"])
        if mask_of(layer, found["name"]) is None:
            apply_mask(layer, oriented(layer, tensor.clone()), name=found["name"])
    found = _ROUNDING.fullmatch(key)
    if found and rounding_of(model.get_submodule(found["layer"])) is None:
        apply_rounding(model.get_submodule(found["layer"]), tensor.clone())


def load_model_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load a state dict into a model, adding its masks and int4 rounding.

    Raises:
        ValueError: names or shapes do not fit.
    """
    try:
        for key in state:
            _add_parametrization(model, key, state[key])
        load_whole_state(model, state)
    except (RuntimeError, AttributeError) as error:
        raise ValueError(f"the checkpoint is of another model: {error}") from error


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore model, optimizer and random number generators from a checkpoint.

    Raises:
        ValueError: the file is damaged, or of another model.
    """
    tensors, _ = read_tensors(path)
    load_model_state(model, _part(tensors, "model."))
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in _part(tensors, "optimizer.").items():
        number, _, name = key.partition(".")
        of = parameters[int(number)]
        state.setdefault(int(number), {})[name] = parts_like(tensor, of) if tensor.shape == of.shape else tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    states = _part(tensors, f"random.{process_number()}.")
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
