"""Import folders of compressed-tensors: quantized weights, and `sparse-bitmask`, which it itself reads no longer.

A weight `W` with zeros is stored as four arrays (three for 2:4 sparsity):

    W.shape        int64                          sizes of the dense tensor
    W.bitmask      uint8 [rows, ceil(cols / 8)]   bit 0 of byte 0 is column 0; set where there is a value
    W.compressed   flat; [rows, cols / 2] for 2:4  the values, row by row
    W.row_offsets  int64 [rows]                   start of each row in `compressed`; not for 2:4

Versions before 0.8 did this to every tensor under its full name (`layer.weight.bitmask`, `layer.bias.bitmask`), later
ones to weights under the layer's name (`layer.bitmask`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsekit.importers.quantization_schemes import Scheme, read_schemes
from sparsekit.importers.quantized_layers import QuantizedWeight, is_quantized, quantized_weight
from sparsekit.importers.weight_files import read_safetensors_folder
from sparsekit.io.file_names import CONFIG
from sparsekit.io.safetensors_file import entries_of
from sparsekit.io.untrusted import read_object, regular_file

_PARTS = ("shape", "compressed", "bitmask", "row_offsets")
#: Formats that a configuration may name; "dense" means a dense weight with zeros.
_FORMATS = ("dense", "sparse-bitmask", "sparse-24-bitmask")
#: Sections of a configuration that describe how weights are stored; the second name is older.
_SECTIONS = ("quantization_config", "compression_config")
_SPARSITY = "sparsity_config"


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a folder; empty if there is none.

    Raises:
        ValueError: it cannot be read.
    """
    return read_object(regular_file(folder, CONFIG)) if (folder / CONFIG).exists() else {}


def _sections(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The sections of a configuration that describe how weights are stored.

    Raises:
        ValueError: one is of another tool than compressed-tensors, or names an unknown sparse format.
    """
    for key in _SECTIONS:
        section = config.get(key)
        if section is None:
            continue
        if not isinstance(section, dict):
            raise ValueError(f"{key} must be an object, got {section!r:.80}")
        method = section.get("quant_method", "compressed-tensors")
        if method != "compressed-tensors":
            raise ValueError(
                f"weights must be of compressed-tensors, these are quantized otherwise ({method!r:.80}); dequantize "
                "them with the tool that made them first"
            )
        sparsity = section.get(_SPARSITY)
        if sparsity and (not isinstance(sparsity, dict) or sparsity.get("format") not in _FORMATS):
            raise ValueError(f"{_SPARSITY} must have a format among {', '.join(_FORMATS)}, got {sparsity!r:.80}")
        yield section


def schemes_of(config: dict[str, Any], where: Path) -> tuple[Scheme, ...]:
    """How a configuration says that weights are quantized; none where they are floats.

    Raises:
        ValueError: in a way that is not read here.
    """
    try:
        return tuple(scheme for section in _sections(config) for scheme in read_schemes(section))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def check_not_quantized(config: dict[str, Any], where: Path) -> None:
    """Raise ValueError if a configuration describes weights other than floats with zeros."""
    if schemes_of(config, where):
        raise ValueError(f"{where}: weights must be floats with zeros, these are quantized; save them as safetensors")


def rewritten_config(folder: Path | str) -> dict[str, Any]:
    """`config.json` to go with the dense weights: without the entries that describe compression.

    Loaders newer than compressed-tensors' sparse formats refuse `sparsity_config` even if the weights are dense.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: `config.json` is missing or malformed, or says that weights are quantized in a way that is not read.
    """
    path = existing_folder(folder)
    config = read_object(regular_file(path, CONFIG))
    schemes_of(config, path / CONFIG)
    return {key: value for key, value in config.items() if key not in (*_SECTIONS, _SPARSITY)}


def existing_folder(folder: Path | str) -> Path:
    """The path of a folder.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    return path


def import_compressed_tensors(folder: Path | str) -> dict[str, torch.Tensor]:
    """State dict of a folder in a sparse or quantized format of compressed-tensors.

    Sparse formats are `sparse-bitmask` and `sparse-24-bitmask`, quantized ones symmetric `pack-quantized` and
    `int-quantized` of 4 or 8 bits, the latter also with bit masks. Dense weights are accepted: a configuration may say
    "sparse" although weights are stored dense.

    Args:
        folder: with `model.safetensors` or several weight files and their index; `config.json` may be missing where
            weights are not quantized.

    Returns:
        Dense tensors with zeros for `model.load_state_dict`, in their stored dtypes; quantized weights in that of their
        scales, as compressed-tensors itself makes them.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is missing or malformed, arrays contradict each other, or weights are quantized otherwise.
    """
    path = existing_folder(folder)
    schemes = schemes_of(read_config(path), path / CONFIG)
    return dense_tensors(read_safetensors_folder(path), schemes)


def dense_tensors(tensors: dict[str, torch.Tensor], schemes: Sequence[Scheme] = ()) -> dict[str, torch.Tensor]:
    """The tensors, with those stored as bit masks or quantized made dense.

    Raises:
        ValueError: arrays of a bit mask or quantized weight are missing or contradict each other, or fit no scheme.
    """
    found = {}
    for module, layer in by_module(without_bitmasks(tensors)).items():
        if is_quantized(layer):
            weight, others = checked_weight(module, layer, schemes)
            layer = {"weight": weight.to_dense(), **others}
        found.update({joined(module, name): tensor for name, tensor in layer.items()})
    return found


def joined(module: str, name: str) -> str:
    """Name of a tensor of a module."""
    return f"{module}.{name}" if module else name


def by_module(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Module name -> its tensors by the last part of their names."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, key = name.rpartition(".")
        found.setdefault(module, {})[key] = tensor
    return found


def checked_weight(
    module: str, layer: Mapping[str, torch.Tensor], schemes: Sequence[Scheme]
) -> tuple[QuantizedWeight, dict[str, torch.Tensor]]:
    """As `quantized_weight`, with the module's name in errors."""
    if not schemes:
        raise ValueError(f"layer {module!r} is quantized, and no config.json says how; read the whole folder")
    try:
        return quantized_weight(layer, schemes)
    except ValueError as error:
        raise ValueError(f"layer {module!r}: {error}") from error


def without_bitmasks(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, with those stored as bit masks made dense.

    Raises:
        ValueError: arrays of a bit mask are missing or contradict each other.
    """
    groups = [name.removesuffix(".bitmask") for name in tensors if name.endswith(".bitmask")]
    full_names = any(group.endswith(".weight") for group in groups)
    taken = {f"{group}.{part}" for group in groups for part in _PARTS}
    found = {name: tensor for name, tensor in tensors.items() if name not in taken}
    for group in groups:
        name = group if full_names else f"{group}.weight"
        if name in found:
            raise ValueError(f"{name!r} must be there once, got it dense and as a bit mask")
        parts = {part: tensors[f"{group}.{part}"] for part in _PARTS if f"{group}.{part}" in tensors}
        try:
            found[name] = _dense(parts)
        except ValueError as error:
            raise ValueError(f"bit mask of {name!r}: {error}") from error
    return found


def _expect(name: str, tensor: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        expected, got = f"{dtype} {list(shape)}", f"{tensor.dtype} {list(tensor.shape)}"
        raise ValueError(f"{name} must be {expected}, got {got}")


def _dense(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    """The dense tensor that the arrays of a bit mask encode."""
    missing = [part for part in _PARTS[:3] if part not in parts]
    if not missing and "row_offsets" not in parts and parts["compressed"].dim() != 2:
        missing = ["row_offsets"]
    if missing:
        raise ValueError(f"the arrays {missing} are missing")
    sizes, values = parts["shape"].flatten().tolist(), parts["compressed"].flatten()
    if parts["shape"].dtype != torch.int64 or not sizes:
        raise ValueError(f"shape must hold the int64 sizes of a tensor, got {sizes!r:.80}")
    entries_of(sizes)
    _expect("bitmask", parts["bitmask"], torch.uint8, (*sizes[:-1], -(-sizes[-1] // 8)))
    if "row_offsets" in parts:
        _expect("row_offsets", parts["row_offsets"], torch.int64, tuple(sizes[:-1]))
    bits = np.unpackbits(parts["bitmask"].numpy(), axis=-1, bitorder="little")
    kept, beyond = bits[..., : sizes[-1]].astype(bool), bits[..., sizes[-1] :]
    if beyond.any() or kept.sum() != values.numel():
        raise ValueError(f"bitmask must have one bit for each of the {values.numel()} values, got {bits.sum()}")
    if "row_offsets" in parts:
        _check_offsets(parts["row_offsets"].numpy(), kept.sum(axis=-1))
    dense = torch.zeros(sizes, dtype=values.dtype)
    dense[torch.from_numpy(kept)] = values
    return dense


def _check_offsets(offsets: Any, counts: Any) -> None:
    expected = np.cumsum(counts, axis=0).reshape(counts.shape) - counts  # also for 1-D tensors
    if not np.array_equal(offsets, expected):
        raise ValueError("row_offsets must say where the rows begin in compressed; copy the file again")
