"""Load state dicts of converted models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from sparsekit.conversion.places import places_in, put_in_place
from sparsekit.fusion.activations import fuse_activations
from sparsekit.introspect.dense_classes import is_dense_linear
from sparsekit.nn import Int8Embedding, SparseLinear
from sparsekit.pruning.split_model import on_split_modules
from sparsekit.splitting import pad_encoders


@on_split_modules
def _sparsify(model: nn.Module, names: Iterable[str]) -> None:
    """Insert empty sparse layers where a state dict has sparse weights."""
    modules, places = dict(model.named_modules()), places_in(model)
    layers = {name: modules.get(name) for name in names}
    for name, layer in layers.items():
        if layer is None or not (isinstance(layer, SparseLinear) or is_dense_linear(layer)):
            found = "nothing" if layer is None else f"a {type(layer).__name__}"
            raise ValueError(f"the state dict has a sparse weight for {name!r}, where the model has {found}")
    for layer in layers.values():
        if layer is not None and not isinstance(layer, SparseLinear):
            put_in_place(places, layer, SparseLinear.like(layer))


def _quantize(model: nn.Module, names: Iterable[str]) -> None:
    """Insert empty int8 embeddings where a state dict has them."""
    modules, places = dict(model.named_modules()), places_in(model)
    for name in names:
        table = modules.get(name)
        if not isinstance(table, nn.Embedding | Int8Embedding):
            found = "nothing" if table is None else f"a {type(table).__name__}"
            raise ValueError(f"the state dict has embeddings in int8 for {name!r}, where the model has {found}")
        if isinstance(table, nn.Embedding):
            for parent, key in places[table]:
                parent._modules[key] = Int8Embedding.like(table)


def load_state_dict(model: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> nn.Module:
    """Load the state dict of a converted model into a freshly built dense model, in place. Returns the model.

    Layers stored as CSR are replaced by `SparseLinear` first, and int8 embeddings by `Int8Embedding`; all others stay
    dense. Activation functions are fused as in `convert`.

    Raises:
        ValueError: the state dict has CSR arrays for a module other than a linear layer, or codes for one other than an
            embedding.
        RuntimeError: keys or shapes do not fit, or CSR arrays are malformed.

    >>> dense = nn.Sequential(nn.Linear(8, 4))
    >>> _ = dense[0].weight.data[:, 2:].zero_()
    >>> converted = nn.Sequential(SparseLinear.from_linear(dense[0]))
    >>> load_state_dict(nn.Sequential(nn.Linear(8, 4)), converted.state_dict())
    Sequential(
      (0): SparseLinear(in_features=8, out_features=4, bias=True, nnz=8, sparsity=0.750, block='4x1')
    )
    """
    _sparsify(model, [key.removesuffix(".crow_indices") for key in state_dict if key.endswith(".crow_indices")])
    _quantize(model, [key.removesuffix(".codes") for key in state_dict if key.endswith(".codes")])
    pad_encoders(model, SparseLinear)
    model.load_state_dict(state_dict)
    fuse_activations(model)
    return model
