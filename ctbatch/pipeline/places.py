"""Places: the right to hold a batch in memory, bounded by count and by bytes.

Slots (:mod:`ctbatch.api.limiter`) bound what is on the wire; the two are never merged.
"""

from __future__ import annotations

import asyncio

__all__ = ["Places", "batches_held", "places_for"]

HELD_BYTES = 2_000_000
"""Input bytes in progress for each request at a time, and for two more, held plain and sealed: the
default ``--max-batch-bytes``. (With 48 MB for 15 nothing was faster, and 26 MB more were in use.)
"""


def batches_held(concurrency: int) -> int:
    """Half as many as are on the wire may wait, or back off: each is 0.8 MB of 300-byte lines."""
    return concurrency * 3 // 2 + 4


def places_for(concurrency: int) -> Places:
    """The places of a run with so many requests at a time."""
    return Places(batches_held(concurrency), (concurrency + 2) * HELD_BYTES)


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
