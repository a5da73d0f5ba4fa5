"""Installation commands for extras: the only place that says where the package comes from."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """Command that installs an extra of pyproject.toml.

    >>> how_to_install("cli")
    "pip install '.[cli]' in a checkout of sparsekit"
    """
    return f"pip install '.[{extra}]' in a checkout of sparsekit"
