"""Read the modules of a sentence-transformers folder: the encoder's subfolder, pooling, normalization, dense layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsekit.engine.compiled_file import POOLINGS
from sparsekit.engine.refusals import refusal
from sparsekit.io.file_names import CONFIG, SENTENCE_MODULES, SENTENCE_OPTIONS
from sparsekit.io.untrusted import read_json, read_object, regular_file

_OUTPUT = "last_hidden_state"
#: Keys of older versions -> pooling.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


#: Name of the linear layer in a Dense module's weight file.
DENSE_LAYER = "linear"
#: Activation function of a Dense module -> name in the engine.
_DENSE_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "none",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.SiLU": "silu",
}
#: Key of a Dense module -> supported values, if the key is present.
_DENSE_FIXED = {
    "module_input_name": ("sentence_embedding",),
    "module_output_name": ("sentence_embedding", None),
    "use_residual": (False,),
}


@dataclass(frozen=True)
class DenseModule:
    """A linear layer after pooling."""

    folder: Path
    activation: str  # a name of `runtime.ACTIVATIONS`, or "tanh"


@dataclass(frozen=True)
class SentenceModules:
    """The modules of a sentence-transformers model."""

    encoder: Path  # folder of the transformers model
    pooling: str | None = None  # a key of `POOLINGS`
    dense: DenseModule | None = None  # after pooling
    normalize: bool = False


#: Modules, in the order in which the engine runs them.
_STEPS = ("Transformer", "Pooling", "Dense", "Normalize")


def read_modules(folder: Path) -> SentenceModules:
    """Read modules.json; without it, the folder itself is the encoder's.

    Raises:
        ValueError: a file is missing or damaged, or the engine does not support a module.
    """
    if not (folder / SENTENCE_MODULES).exists():
        return SentenceModules(folder)
    path = regular_file(folder, SENTENCE_MODULES)
    steps = read_json(path)
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ValueError(f"{path} must hold a list of objects, got {steps!r:.80}")
    kinds = [str(step.get("type")).rpartition(".")[2] for step in steps]
    _check_kinds(kinds)
    folders = {kind: _subfolder(folder, step.get("path")) for kind, step in zip(kinds, steps, strict=True)}
    if "Pooling" in folders:
        _check_output(folders["Transformer"])
    return SentenceModules(
        folders["Transformer"],
        _pooling(folders["Pooling"]) if "Pooling" in folders else None,
        _dense(folders["Dense"]) if "Dense" in folders else None,
        "Normalize" in folders,
    )


def _check_kinds(kinds: Sequence[str]) -> None:
    """Raise ValueError unless the modules are in the order that the engine runs."""
    in_order = [kind for kind in _STEPS if kind in kinds]
    if list(kinds) != in_order or "Transformer" not in kinds or (len(kinds) > 1 and "Pooling" not in kinds):
        raise refusal(f"the modules {', '.join(kinds)!s:.200}, only {', '.join(_STEPS)}, in this order")


def _subfolder(folder: Path, name: Any) -> Path:
    """A direct subfolder, or the folder itself."""
    if not isinstance(name, str) or name in (".", "..") or any(sign in name for sign in "/\\\0"):
        raise ValueError(f"{folder / SENTENCE_MODULES} must name folders beside it, got {name!r:.80}")
    if name and (folder / name).resolve().parent != folder.resolve():
        raise ValueError(f"{folder / name} is a link out of the folder; copy the folder itself")
    return folder / name


def _check_output(encoder: Path) -> None:
    """Raise ValueError unless the last hidden states are pooled."""
    if not (encoder / SENTENCE_OPTIONS).exists():
        return
    kinds = read_object(regular_file(encoder, SENTENCE_OPTIONS)).get("modality_config")
    text = kinds.get("text") if isinstance(kinds, dict) else None
    output = text.get("method_output_name", _OUTPUT) if isinstance(text, dict) else _OUTPUT
    if output != _OUTPUT:
        raise refusal(f"pooling of {output!r:.80}, only of {_OUTPUT}")


def _pooling(folder: Path) -> str:
    config = read_object(regular_file(folder, CONFIG))
    if config.get("include_prompt", True) is not True:
        raise refusal("pooling without the prompt (include_prompt)")
    modes = _modes(config)
    ways = [mode for mode in modes if isinstance(mode, str) and mode in POOLINGS]
    if len(modes) != 1 or not ways:
        raise refusal(f"pooling by {', '.join(map(str, modes))!s:.80}, only one of {', '.join(filter(None, POOLINGS))}")
    return ways[0]


def _dense(folder: Path) -> DenseModule:
    config = read_object(regular_file(folder, CONFIG))
    name = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = _DENSE_ACTIVATIONS.get(name) if isinstance(name, str) else None
    if activation is None:
        raise refusal(f"a Dense module with activation_function={name!r:.80}, only {', '.join(_DENSE_ACTIVATIONS)}")
    for key, values in _DENSE_FIXED.items():
        if config.get(key, values[0]) not in values:
            raise refusal(f"a Dense module with {key}={config[key]!r:.80}, only {values[0]!r}")
    return DenseModule(folder, activation)


def _modes(config: Mapping[str, Any]) -> Sequence[Any]:
    mode = config.get("pooling_mode")
    if mode is not None:
        return mode if isinstance(mode, list) else [mode]
    return [name for flag, name in _FLAGS.items() if config.get(flag)] or ["mean"]
