"""Replace word embeddings by int8 ones: find them, check them and insert `Int8Embedding`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from sparsekit.conversion.places import places_in
from sparsekit.introspect.hooks import attached
from sparsekit.introspect.selection import shared_weights
from sparsekit.introspect.weight_users import weights_used
from sparsekit.nn import Int8Embedding
from sparsekit.nn.int8_embedding import why_not_int8

#: Types of word embeddings in `convert`.
EMBEDDINGS = ("float32", "int8")


@dataclass(frozen=True)
class EmbeddingReport:
    """Word embeddings that were converted to int8."""

    name: str
    shape: tuple[int, int]  # rows, features
    bytes_before: int  # in memory
    bytes_after: int


def _said_by_models(model: nn.Module) -> Iterator[nn.Module]:
    """Input embeddings according to the model, or to models inside it."""
    for module in model.modules():
        ask = getattr(module, "get_input_embeddings", None)
        try:
            found = ask() if callable(ask) else None
        except NotImplementedError:
            continue
        if isinstance(found, nn.Module):
            yield found


def word_embeddings(model: nn.Module) -> dict[str, nn.Embedding | Int8Embedding]:
    """Word embeddings of a model, by name.

    They are those of `get_input_embeddings` in transformers models, and else the `nn.Embedding` with the most weights.

    Raises:
        ValueError: there are none.
    """
    names = {module: name for name, module in model.named_modules()}
    said = {module for module in _said_by_models(model) if isinstance(module, nn.Embedding | Int8Embedding)}
    tables = [module for module in names if isinstance(module, nn.Embedding | Int8Embedding)]
    if not said and tables:
        said = {max(tables, key=lambda table: table.num_embeddings * table.embedding_dim)}
    found = {names[module]: module for module in said if names.get(module)}
    if not found:
        raise ValueError("the model has no word embeddings to store in int8; leave embeddings='float32'")
    return dict(sorted(found.items()))


def _why_not(name: str, table: nn.Embedding, shared: Mapping[str, list[str]], users: Mapping[str, str]) -> str:
    if name in shared:
        others = ", ".join(shared[name])
        return f"their weight is shared with {others}, as that of a tied head is, and would stay beside the codes"
    if name in users:
        return f"{users[name]} computes with their weight itself"
    found = attached(table)
    if found:
        return f"{found}, which new embeddings would not run"
    return why_not_int8(table) or _why_not_values(table.weight)


def _why_not_values(weight: torch.Tensor) -> str:
    if weight.is_meta:
        return "their weight is on meta and has no values"
    return "" if bool(weight.isfinite().all()) else "a value is not finite"


def check_word_embeddings(model: nn.Module) -> dict[str, nn.Embedding]:
    """Word embeddings that are not yet int8, by name.

    Raises:
        ValueError: there are none, or some cannot be stored in int8.
    """
    tables = {name: table for name, table in word_embeddings(model).items() if isinstance(table, nn.Embedding)}
    shared, users = shared_weights(model), weights_used(model) if tables else {}
    for name, table in tables.items():
        reason = _why_not(name, table, shared, users)
        if reason:
            raise ValueError(f"word embeddings {name!r} cannot be stored in int8: {reason}; leave embeddings='float32'")
    return tables


def swap_word_embeddings(model: nn.Module, tables: Mapping[str, nn.Embedding]) -> tuple[EmbeddingReport, ...]:
    """Replace the embeddings that `check_word_embeddings` found."""
    places = places_in(model)
    new = {name: Int8Embedding.from_embedding(table) for name, table in tables.items()}
    for name, table in tables.items():
        for parent, key in places[table]:
            parent._modules[key] = new[name]
    return tuple(
        EmbeddingReport(name, (one.num_embeddings, one.embedding_dim), _bytes(tables[name]), _bytes(one))
        for name, one in new.items()
    )


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
