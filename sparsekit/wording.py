"""Format counts and sizes."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A count with its noun, in the plural unless it is one.

    >>> counted(1, "token"), counted(128, "token")
    ('1 token', '128 tokens')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size_text(count: float) -> str:
    """Bytes with three digits and a unit.

    >>> size_text(144), size_text(2_362_368)
    ('144 B', '2.36 MB')
    """
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB" if count < 999.5 else f"{count:,.0f} GB"


def figure_text(value: float) -> str:
    """Format a number with three significant digits, without an exponent.

    >>> figure_text(0.01234), figure_text(12345.6)
    ('0.0123', '12,346')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
