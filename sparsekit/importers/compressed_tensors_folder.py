"""`convert_compressed_tensors`: a folder of compressed-tensors as a model folder, without making the model dense."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sparsekit
from sparsekit.checkpoint.card import card
from sparsekit.checkpoint.shards import ShardWriter
from sparsekit.checkpoint.tensors import to_tensor
from sparsekit.checkpoint.transformers.models import mark_config
from sparsekit.checkpoint.weights import as_stored
from sparsekit.folder.layout import METHOD, is_written_by_save, is_written_with_tokenizer
from sparsekit.folder.manifest import LayerEntry, Manifest
from sparsekit.folder.stored_weight import smallest_form
from sparsekit.folder.weight_files import weight_files
from sparsekit.formats.dtypes import BY_SAFETENSORS
from sparsekit.importers.compressed_tensors import (
    checked_weight,
    existing_folder,
    joined,
    read_config,
    rewritten_config,
    schemes_of,
    without_bitmasks,
)
from sparsekit.importers.quantization_schemes import Scheme
from sparsekit.importers.quantized_layers import is_quantized
from sparsekit.io.atomic_folder import replaced_folder
from sparsekit.io.file_names import CARD, CONFIG, GENERATION_CONFIG, MANIFEST
from sparsekit.io.safetensors_file import ArrayFile
from sparsekit.io.untrusted import read_object, regular_file

_DENSE_BYTES = 2  # of a quantized weight where it was dense: language models are of 16 bits
#: Where transformers' language models have their embeddings, and a head that is tied to them.
_TIED = ("lm_head.weight", "model.embed_tokens.weight")


def is_quantized_folder(folder: Path) -> bool:
    """Whether `convert_compressed_tensors` is for a folder: its configuration says how weights are quantized.

    Raises:
        ValueError: they are quantized in a way that is not read.
    """
    config = read_config(folder)
    section = config.get("quantization_config")
    ours = isinstance(section, dict) and section.get("quant_method") == METHOD
    return not ours and bool(schemes_of(config, folder / CONFIG))


def convert_compressed_tensors(folder: Path | str, out: Path | str, *, max_shard_size: int = 10**9) -> None:
    """Write the quantized model in a folder of compressed-tensors as a model folder, layer by layer.

    Codes and scales stay as they are, in int4 or int8, but for codes of -128, which become -127. Only one layer is in
    memory beside a weight file to be written. `sparsekit.engine.Generator` and `load` open the folder. The tokenizer's
    files are copied.

    Args:
        folder: with `config.json` and weights in safetensors, quantized as `import_compressed_tensors` says.
        out: folder to write; it is replaced atomically, files of other tools in it are kept.
        max_shard_size: largest size of a weight file, in bytes.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: `out` cannot be written; it is as it was.
        ValueError: no weight is quantized, or in a way that kernels here cannot compute, such as groups of other sizes
            than multiples of 128; a file is missing or malformed; `out` is `folder` or cannot be replaced.
    """
    source = existing_folder(folder)
    schemes = schemes_of(read_config(source), source / CONFIG)
    if not schemes:
        raise ValueError(f"{source / CONFIG} must say how weights are quantized; use read_weights for other folders")
    if source.resolve() == Path(out).resolve():
        raise ValueError(f"{out} is the folder to convert; give another one")
    config = rewritten_config(source)
    with replaced_folder(Path(out), is_written_with_tokenizer) as new:
        manifest, stored, dense = _write_weights(source, new, config, schemes, max_shard_size)
        mark_config(config)
        _write_json(new / CONFIG, config)
        _write_json(new / MANIFEST, manifest.to_json())
        (new / CARD).write_text(card(_architecture(config), manifest, stored, dense, needs_model=False))
        _copy_settings(source, new)


def _architecture(config: Mapping[str, Any]) -> str:
    """Name of the model's class."""
    found = config.get("architectures")
    if not isinstance(found, list) or len(found) != 1 or not str(found[0]).isidentifier():
        raise ValueError(f"architectures in {CONFIG} must hold the name of one class, got {found!r:.80}")
    return str(found[0])


def _write_weights(
    source: Path, new: Path, config: Mapping[str, Any], schemes: tuple[Scheme, ...], max_shard_size: int
) -> tuple[Manifest, int, int]:
    """The manifest of all tensors, their bytes, and those if all were dense."""
    shards = ShardWriter(new, max_shard_size, METHOD)
    layers: dict[str, LayerEntry] = {}
    files = weight_files(source)
    dense_bytes = 0
    for names in _names_by_layer(files).values():
        tensors = without_bitmasks({name: _tensor(files[name], name) for name in names})
        layer = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
        module = names[0].rpartition(".")[0].removesuffix(".weight")
        if is_quantized(layer):
            weight, layer = checked_weight(module, layer, schemes)
            try:
                csr = weight.to_csr()
            except ValueError as error:
                raise ValueError(f"layer {module!r}: {error}") from error
            form = smallest_form(csr)
            layers[module] = LayerEntry(csr.shape, csr.dtype, csr.nnz, form)
            shards.add(as_stored(module, csr, form))
            dense_bytes += csr.out_features * csr.in_features * _DENSE_BYTES
        for name, tensor in layer.items():
            shards.add({joined(module, name): tensor})
            dense_bytes += tensor.nbytes
    shards.close()
    head, embeddings = _TIED
    tied = config.get("tie_word_embeddings") is True and head not in shards.entries and embeddings in shards.entries
    shared = {head: embeddings} if tied and "lm_head" not in layers else {}
    return Manifest(sparsekit.__version__, layers, {}, shards.entries, shared), shards.nbytes, dense_bytes


def _names_by_layer(names: Mapping[str, object]) -> dict[str, list[str]]:
    """The arrays of every module; older bit masks have the weight's own name before that of the part."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.rpartition(".")[0].removesuffix(".weight"), []).append(name)
    return found


def _tensor(file: ArrayFile, name: str) -> Any:
    place = file.places[name]
    return to_tensor(name, file.raw(name), BY_SAFETENSORS[place.dtype], place.shape)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def _copy_settings(source: Path, new: Path) -> None:
    """The tokenizer's files, and how texts are generated."""
    for path in sorted(source.iterdir()):
        name = path.name
        if is_written_with_tokenizer(name) and not is_written_by_save(name) and path.is_file():
            shutil.copyfile(regular_file(source, name), new / name)
    if (source / GENERATION_CONFIG).exists():
        _write_json(new / GENERATION_CONFIG, read_object(regular_file(source, GENERATION_CONFIG)))
