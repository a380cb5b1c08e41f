"""Waiting one's turn: :class:`OrderGuard` says which batches are clear, here they wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ctbatch.models import Names
from ctbatch.pipeline.ordering import OrderGuard

__all__ = ["Turns"]


class Turns:
    """Lets batches go in the order that their identities demand; belongs to one event loop."""

    def __init__(self, guard: OrderGuard) -> None:
        self._guard = guard
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._late: list[asyncio.TimerHandle] = []

    async def wait(self, seq: int, names: Names) -> None:
        """Wait until no earlier unfinished batch holds one of the identities ``names``."""
        future = self._waiting[seq] = asyncio.get_running_loop().create_future()
        self._clear(self._guard.announce(seq, names))
        try:
            await future
        finally:
            self._waiting.pop(seq, None)

    def release(self, seq: int, *, after_s: float = 0.0) -> None:
        """A batch is finished; its identities stay reserved for ``after_s`` more seconds."""
        if not after_s:
            self._clear(self._guard.release(seq))
            return
        loop = asyncio.get_running_loop()
        self._late.append(loop.call_later(after_s, self._release_late, seq))

    def _release_late(self, seq: int) -> None:
        self._clear(self._guard.release(seq))

    def close(self) -> None:
        """Forget late releases: nothing waits for them any more."""
        for handle in self._late:
            handle.cancel()
        self._late.clear()

    def _clear(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            future = self._waiting.get(seq)
            if future is not None and not future.done():
                future.set_result(None)
