"""Places: the right to hold a batch in memory, bounded by count and by bytes.

Slots (:mod:`ctbatch.api.limiter`) bound what is on the wire; the two are never merged.
"""

from __future__ import annotations

import asyncio

__all__ = ["Places"]


class Places:
    """At most ``batches`` batches; another is let in while those held are under ``size`` bytes, so
    the last one may exceed it.
    """

    def __init__(self, batches: int, size: int) -> None:
        self._batches = batches
        self._size = size
        self._held_size = 0
        self._changed = asyncio.Event()
        self.held = 0
        """Batches in progress."""

    async def free(self) -> None:
        """Wait until there is a place."""
        while self.held and (self.held >= self._batches or self._held_size >= self._size):
            self._changed.clear()
            await self._changed.wait()

    def take(self, size: int) -> None:
        """Take a place for a batch of ``size`` bytes."""
        self.held += 1
        self._held_size += size

    def give_back(self, size: int) -> None:
        """Give a place back."""
        self.held -= 1
        self._held_size -= size
        self._changed.set()

    async def all_free(self) -> None:
        """Wait until no batch is in progress."""
        while self.held:
            self._changed.clear()
            await self._changed.wait()
