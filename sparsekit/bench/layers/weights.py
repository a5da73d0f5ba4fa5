"""Weights to benchmark: layers of a model pruned by magnitude."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from sparsekit.bench.layers.problem import Floats
from sparsekit.checkpoint.transformers.foreign import check_model_folder, from_folder
from sparsekit.pruning import finalize, prune

#: Makes a weight `[out_features, in_features]` from shape, sparsity and block size.
WeightSource: TypeAlias = Callable[[tuple[int, int], float, str], Floats]


def mask_structure(block: str) -> str:
    """Name of the mask structure in `prune`."""
    return "unstructured" if block == "1x1" else block


def open_encoder(folder: Path) -> Any:
    """Open the model in a transformers folder.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is damaged.
    """
    from transformers import AutoModel

    check_model_folder(folder)
    return from_folder(AutoModel.from_pretrained, folder)


def model_layers(folder: Path) -> dict[tuple[int, int], nn.Linear]:
    """The first linear layer of every shape in a transformers model folder.

    Raises:
        FileNotFoundError, ValueError: as `open_encoder`; also when the model has no linear layer.
    """
    layers: dict[tuple[int, int], nn.Linear] = {}
    for module in open_encoder(folder).modules():
        if isinstance(module, nn.Linear):
            layers.setdefault((module.out_features, module.in_features), module)
    if not layers:
        raise ValueError(f"the model in {folder} has no torch.nn.Linear to measure")
    return layers


def imposed_on(layers: dict[tuple[int, int], nn.Linear]) -> WeightSource:
    """Weights of these layers, pruned by magnitude, so that masks are realistic."""

    def weight(shape: tuple[int, int], sparsity: float, block: str = "1x1") -> Floats:
        layer = nn.Linear(shape[1], shape[0], bias=False)
        layer.weight.data.copy_(layers[shape].weight.data)
        if sparsity == 1.0:  # which pruning never produces
            return np.zeros(shape, dtype=np.float32)
        prune(nn.Sequential(layer), sparsity, mask_structure=mask_structure(block))
        finalize(layer)
        pruned: Floats = layer.weight.detach().to(torch.float32).numpy()
        return pruned

    return weight
