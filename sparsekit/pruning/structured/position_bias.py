"""Tables of relative position biases, one column per head, shared by the attentions of a stack (T5, MPNet)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sparsekit.introspect.module_paths import full_name

_TABLE = "relative_attention_bias"


def _stack_of(model: nn.Module, owner: str) -> tuple[str, str]:
    """The outermost list that holds a module, and its path inside the transformer block; both "" if none does."""
    parts = owner.split(".")
    for length in range(1, len(parts)):
        name = ".".join(parts[:length])
        if isinstance(model.get_submodule(name), nn.ModuleList):
            return name, ".".join(parts[length + 1 :])
    return "", ""


def tables_of(model: nn.Module, owners: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The tables that each attention reads.

    A table inside an attention is shared with the attentions at the same path in the other transformer blocks of its
    stack; a table next to the transformer blocks is shared by all of them.

    Args:
        model: the model.
        owners: names of the attentions.

    Returns:
        Name of an attention -> names of the `nn.Embedding` modules with one column per head.
    """
    tables = {
        name.rpartition(".")[0]: name
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == _TABLE and isinstance(module, nn.Embedding)
    }
    if not tables:
        return {}
    own = {owner: tables[owner] for owner in owners if owner in tables}
    by_stack = {_stack_of(model, owner): table for owner, table in own.items()}
    found: dict[str, tuple[str, ...]] = {}
    for owner in owners:
        around = [
            table for place, table in tables.items() if place not in own and owner.startswith(full_name(place, ""))
        ]
        table = own.get(owner) or by_stack.get(_stack_of(model, owner)) or next(iter(around), None)
        if table is not None:
            found[owner] = (table,)
    return found
