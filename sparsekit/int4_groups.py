"""Groups of int4 weights: the input features of a row that share a scale."""

from __future__ import annotations

#: Input features of a row with one scale: a group.
GROUP = 128


def groups_of(in_features: int) -> int:
    """Groups of a row.

    >>> groups_of(576)
    5
    """
    return -(-in_features // GROUP)
