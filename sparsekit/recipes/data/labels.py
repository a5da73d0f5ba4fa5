"""Map the labels of tables to class ids."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sparsekit.recipes.data.tables import Rows


def class_names(tables: Sequence[Rows], known: Sequence[str], *, new_head: bool) -> list[str]:
    """Class names in the order of their ids.

    The model's own classes are kept if the labels are a subset of their names or of their ids.

    Args:
        tables: tables with labels; None marks a missing label.
        known: the model's class names, in the order of their ids.
        new_head: whether a stage trains a head for other classes.

    Raises:
        ValueError: the labels are not the model's classes and no head is trained, or there is only one label.
    """
    labels = [label for table in tables for label in table.labels if label is not None]
    for label in labels:
        if not (isinstance(label, str | int) or (isinstance(label, float) and label.is_integer())):
            raise ValueError(f"a label is a word or a whole number, got {reprlib.repr(label)}")
    found = set(labels)
    if {str(label) for label in found} <= set(known) or found <= set(range(len(known))):
        return list(known)
    if not new_head:
        raise ValueError(
            f"the model's classes are {', '.join(known)}, and the data's labels are "
            f"{', '.join(sorted(map(str, found)))}; to learn others, begin with a finetune stage"
        )
    if len(found) < 2:
        raise ValueError(f"classification needs two labels at least in its data, got {sorted(map(str, found))}")
    numbers = all(isinstance(label, int) for label in found)
    return [str(label) for label in sorted(found, key=None if numbers else str)]


def numbered(table: Rows, names: Sequence[str]) -> Rows:
    """The table with class ids as labels, -100 for missing ones."""
    by_name: dict[Any, int] = {name: number for number, name in enumerate(names)}

    def number_of(label: Any) -> int:
        if label is None:
            return -100
        return by_name[str(label)] if str(label) in by_name else int(label)

    return replace(table, labels=[number_of(label) for label in table.labels])
