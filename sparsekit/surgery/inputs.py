"""Generate tiny inputs for transformers models from the signature of `forward` and the config."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

_TEXTS, _TOKENS, _DECODED = 2, 16, 5
_FIRST = 3  # lower ids are special tokens in many vocabularies


def _entry(config: Any, name: str, default: Any) -> Any:
    """An entry of a config or of a config nested in it."""
    for place in (config, *(value for value in vars(config).values() if hasattr(value, "to_dict"))):
        value = getattr(place, name, None)
        if value is not None:
            return value
    return default


def _ids(config: Any, tokens: int) -> torch.Tensor:
    vocabulary = int(_entry(config, "vocab_size", 0) or _entry(config, "src_vocab_size", 0) or 16)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(min(_FIRST, vocabulary - 1), vocabulary, (_TEXTS, tokens), generator=generator)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _pixels(config: Any) -> torch.Tensor:
    size = _entry(config, "image_size", 64)
    height, width = (size, size) if isinstance(size, int) else size
    return _random(1, _entry(config, "num_channels", 3), height, width)


def _wave(config: Any) -> torch.Tensor:
    return _random(1, _TOKENS * math.prod(_entry(config, "conv_stride", [320])))


def _spectrum(config: Any) -> torch.Tensor:
    frames = _entry(config, "max_source_positions", None)
    if frames is not None:
        return _random(1, _entry(config, "num_mel_bins", 80), 2 * frames)
    return _random(1, _TOKENS, _entry(config, "feature_projection_input_dim", 160))


#: Argument of `forward` -> function that makes a tiny one from a config.
_MAKERS: dict[str, Callable[[Any], torch.Tensor]] = {
    "input_ids": lambda config: _ids(config, _TOKENS),
    "pixel_values": _pixels,
    "input_values": _wave,
    "input_features": _spectrum,
    "visual_feats": lambda config: _random(_TEXTS, 4, _entry(config, "visual_feat_dim", 2048)),
    "visual_pos": lambda config: _random(_TEXTS, 4, _entry(config, "visual_pos_dim", 4)),
}


def is_transformers(module: nn.Module) -> bool:
    """Whether a module looks like a transformers model; the library need not be installed."""
    return hasattr(getattr(module, "config", None), "to_dict") and hasattr(type(module), "dummy_inputs")


def transformers_parts(model: nn.Module) -> list[str]:
    """Names of the outermost transformers models in a model; "" for the model itself."""
    found: list[str] = []
    for name, module in model.named_modules():
        if is_transformers(module) and not any(part == "" or name.startswith(f"{part}.") for part in found):
            found.append(name)
    return found


def tiny_inputs(model: nn.Module) -> Mapping[str, torch.Tensor] | None:
    """Keyword arguments for a transformers model's forward, a few tokens or one small image; None if unknown."""
    if not is_transformers(model):
        return None
    taken, config = inspect.signature(model.forward).parameters, model.config
    found = {name: make(config) for name, make in _MAKERS.items() if name in taken}
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in taken:
        found["decoder_input_ids"] = _ids(config, _DECODED)
    first = next(model.parameters())
    inputs = {
        name: value.to(first) if value.is_floating_point() else value.to(first.device) for name, value in found.items()
    }
    return inputs or None
