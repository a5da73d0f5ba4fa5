"""The life of a server: whether it takes requests, and how many it is answering."""

from __future__ import annotations

import asyncio


class Lifecycle:
    """Counts requests, and waits for their end once the server drains."""

    def __init__(self) -> None:
        self.is_draining = False
        self.running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        self.running += 1
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self.running -= 1
        if not self.running:
            self._idle.set()

    async def drained(self, seconds: float) -> bool:
        """Wait until every request is answered, at most so long; return whether they are."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
