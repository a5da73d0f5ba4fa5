"""Attach int4 scales to a dense layer whose weight was rounded to them, until the layer is stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sparsekit.int4_groups import GROUP
from sparsekit.introspect.dense_classes import INT4_SCALES, is_conv1d

#: Largest distance of a weight from a multiple of its scale, in scales: float16 and bfloat16 weights were rounded
#: twice.
_OFF_GRID = 0.05


def each_scale(scales: torch.Tensor, in_features: int) -> torch.Tensor:
    """Expand scales [out_features, groups] to one for every weight, [out_features, in_features]."""
    return scales.repeat_interleave(GROUP, dim=1)[:, :in_features]


def keep_scales(layer: nn.Module, scales: torch.Tensor) -> None:
    """Attach scales to a layer, as a non-persistent buffer: they move and are copied with it.

    Args:
        layer: a linear layer or a `Conv1D`.
        scales: float32, shape [out_features, groups].
    """
    layer.register_buffer(INT4_SCALES, scales.detach(), persistent=False)


@torch.no_grad()
def kept_scales(layer: nn.Module) -> torch.Tensor | None:
    """Scales attached to a layer; None if there are none, or the weight no longer fits them.

    Returns:
        float32, shape [out_features, groups].
    """
    scales = layer._buffers.get(INT4_SCALES)
    if scales is None:
        return None
    weight: Any = layer.weight
    steps = (weight.T if is_conv1d(layer) else weight).float() / each_scale(scales, weight.numel() // scales.shape[0])
    return scales if bool(((steps - steps.round()).abs() <= _OFF_GRID).all()) else None
