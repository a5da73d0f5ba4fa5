"""The minutes that a search may take."""

from __future__ import annotations

import time


class Clock:
    """Time since a search began, and what is left of its minutes.

    Args:
        minutes: that it may take.

    Raises:
        ValueError: they are not above 0.
    """

    def __init__(self, minutes: float) -> None:
        if not minutes > 0:
            raise ValueError(f"minutes must be above 0, got {minutes}")
        self._start = time.monotonic()
        self._end = self._start + 60.0 * minutes

    @property
    def spent(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self._start

    @property
    def left(self) -> float:
        """Seconds that are left, below 0 if it takes longer."""
        return self._end - time.monotonic()

    def deadline(self, part: float) -> float:
        """The `time.monotonic()` at which this part of what is left is over."""
        return time.monotonic() + max(0.0, part * self.left)
