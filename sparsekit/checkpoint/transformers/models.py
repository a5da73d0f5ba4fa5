"""transformers models: write and read their `config.json`, and build a model without weights from it."""

from __future__ import annotations

import copy
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsekit.checkpoint.transformers.buffers import fill_buffers
from sparsekit.checkpoint.transformers.module_budget import enough_for
from sparsekit.extras import how_to_install
from sparsekit.folder.layout import FORMAT, METHOD
from sparsekit.folder.manifest import Manifest
from sparsekit.io.file_names import CONFIG, GENERATION_CONFIG
from sparsekit.io.untrusted import read_object, regular_file

#: Config key for the name of the weight file. Its value is a message: without sparsekit, transformers fails with an
#: error that shows it, instead of opening the folder with random weights for those that it cannot read.
WEIGHTS_KEY = "transformers_weights"
REFUSAL = "this model is sparse: install sparsekit and call `import sparsekit` before you open it"
#: Config keys that are ignored at any depth: they name code to run or files to open, or change how others are read.
#: Keys that start with an underscore are ignored too.
_NOT_READ = (
    "attn_implementation",
    "attribute_map",
    "auto_map",
    "custom_pipelines",
    "experts_implementation",
    "kernel_config",
    "quantization_config",
    WEIGHTS_KEY,
    "use_kernels",
)
#: Suffixes of config keys for which configs build lists, of layers or labels. The limit is `_MANY`, or the number of
#: arrays if that is larger: no model has more, and building them would take forever. `enough_for` limits models.
_COUNTS = ("layers", "n_layer", "num_labels", "dense_replace", "depths")
_MANY = 1000


def is_changed_by_itself(module: nn.Module, other: nn.Module) -> bool:
    """Whether transformers itself may have replaced one module with the other, as BigBird does for short texts."""
    home = type(module).__module__
    return home.startswith("transformers.models.") and home == type(other).__module__


def is_transformers(model: nn.Module) -> bool:
    """Whether a model is a transformers model, or of a class derived from one."""
    transformers = sys.modules.get("transformers")  # not imported: no model can be one
    return transformers is not None and isinstance(model, transformers.PreTrainedModel)


def mark_config(values: dict[str, Any]) -> None:
    """Mark a config, and nested ones that transformers may load on their own, as one that needs sparsekit."""
    values.pop("auto_map", None)
    values["quantization_config"] = {"quant_method": METHOD, "format": FORMAT}
    values[WEIGHTS_KEY] = REFUSAL
    for value in values.values():
        if isinstance(value, dict) and "model_type" in value:
            mark_config(value)


def write_config(model: Any, folder: Path) -> None:
    """Write the `config.json` of a transformers model, and `generation_config.json` if it can generate."""
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = str(model.dtype).removeprefix("torch.")
    config.__dict__.pop("quantization_config", None)  # an object, if transformers opened the model
    values = json.loads(config.to_json_string())
    mark_config(values)
    (folder / CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    if model.can_generate():
        settings = _harmless(json.loads(model.generation_config.to_json_string()))
        (folder / GENERATION_CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def class_in_mappings(config: Any, architecture: str) -> type[Any] | None:
    """The class of this name in transformers' own auto mappings for a configuration; None if there is none."""
    from transformers.models.auto import modeling_auto

    for key, mapping in vars(modeling_auto).items():
        if not key.endswith("_MAPPING_NAMES"):
            continue
        names = mapping.get(config.model_type, ())
        if architecture in ((names,) if isinstance(names, str) else names):
            classes = getattr(modeling_auto, key.removesuffix("_NAMES"), {}).get(type(config), ())
            for found in classes if isinstance(classes, tuple | list) else (classes,):
                if found.__name__ == architecture:
                    return found  # type: ignore[no-any-return]
    return None


def from_config(model: Any) -> Any:
    """A model built by transformers from this model's configuration, on meta except for non-persistent buffers."""
    with torch.device("meta"):
        fresh = type(model)._from_config(copy.deepcopy(model.config))
    fill_buffers(fresh, copy.deepcopy(fresh), sys.maxsize)
    return fresh


def check_format(found: Any) -> None:
    """Raise ValueError if `quantization_config` in `config.json` has a format that this version does not read."""
    if found != FORMAT or type(found) is not int:
        raise ValueError(f"quantization_config.format must be {FORMAT}, got {found!r:.80}; a newer version of "
                         "sparsekit may read it")  # fmt: skip


def _harmless(value: Any) -> Any:
    """A configuration without the ignored keys."""
    if isinstance(value, list):
        return [_harmless(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: _harmless(one) for key, one in value.items() if key not in _NOT_READ and not key.startswith("_")}


def _check_counts(values: Any, most: int) -> None:
    for key, value in values.items() if isinstance(values, dict) else ():
        counts = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)]
        if key.endswith(_COUNTS) and max(counts, default=0) > most:
            raise ValueError(f"{key} must be at most {most}, got {max(counts)}")
        _check_counts(value, most)


def _read_config(path: Path, manifest: Manifest, config_class: type[Any] | None) -> Any:
    """The configuration in `config.json`, of one of transformers' own classes or of the given one."""
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    found = PreTrainedConfig._decode_special_floats(read_object(path))
    quantization = found.get("quantization_config")
    if isinstance(quantization, dict) and quantization.get("quant_method") == METHOD:
        check_format(quantization.get("format"))
    values = _harmless(found)
    model_type, architectures = values.get("model_type"), values.get("architectures")
    if config_class is None and (not isinstance(model_type, str) or model_type not in CONFIG_MAPPING):
        raise ValueError(f"model_type must be one that transformers knows, got {model_type!r}")
    if not isinstance(architectures, list) or len(architectures) != 1 or not isinstance(architectures[0], str):
        raise ValueError(f"architectures must hold the name of one class, got {architectures!r}")
    _check_counts(values, max(_MANY, len(manifest.arrays)))
    return (config_class or CONFIG_MAPPING[model_type]).from_dict(values)


def _make(path: Path, manifest: Manifest, given: type[Any] | None) -> nn.Module:
    config = _read_config(path, manifest, given and given.config_class)
    architecture = config.architectures[0]
    cls = given or class_in_mappings(config, architecture)
    if cls is None:
        raise ValueError(f"transformers' auto classes have no {architecture!r} for {config.model_type!r}; give model=")
    arguments = {}
    # The one argument in wide use that a configuration does not record.
    if "add_pooling_layer" in inspect.signature(cls.__init__).parameters:
        arguments["add_pooling_layer"] = any(name.startswith("pooler.") for name in manifest.arrays)
    with torch.device("meta"), enough_for(len(manifest.arrays) + len(manifest.shared)):
        model: nn.Module = cls._from_config(config, **arguments)
    return model


def make_empty(folder: Path, manifest: Manifest, cls: type[Any] | None = None) -> nn.Module:
    """Build the model described by `config.json` with all tensors on meta, using only transformers' own classes.

    Args:
        folder: folder with `config.json`.
        manifest: manifest of the weights.
        cls: class of the model; None for the one named in `config.json`.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        ValueError: there is no `config.json`, or it does not describe a model of transformers.
    """
    if not (folder / CONFIG).exists():
        raise ValueError(f"{folder} has no {CONFIG} to make a model from; give model=, freshly made")
    path = regular_file(folder, CONFIG)
    try:
        return _make(path, manifest, cls)
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ModuleNotFoundError(f"{path} needs transformers: {how_to_install('train')}") from error
    except Exception as error:  # transformers raises many exception types on malformed configurations
        raise ValueError(f"{path} describes no model that can be made: {error}") from error


def fill_generation_config(model: Any, folder: Path) -> None:
    """Load `generation_config.json` into a model, if there is one."""
    if model.can_generate() and (folder / GENERATION_CONFIG).exists():
        path = regular_file(folder, GENERATION_CONFIG)
        values = _harmless(read_object(path))
        try:
            model.generation_config = type(model.generation_config).from_dict(values)
        except Exception as error:  # as in make_empty
            raise ValueError(f"{path} holds no settings for generation: {error}") from error
