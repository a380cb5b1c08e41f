"""What is free to be used, and who waits for it: first come, first served.

``asyncio.Queue`` is not fair: whoever asks between an item's return and the turn of the one who was
woken for it takes it, and that one goes to the end of the line. A batch that is sealed so late
holds up all after it, which may not overtake it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Idle"]

_T = TypeVar("_T")


class Idle(Generic[_T]):
    """Things to be taken by one at a time; belongs to one event loop."""

    def __init__(self) -> None:
        self._idle: deque[_T] = deque()
        self._waiting: deque[asyncio.Future[_T]] = deque()

    async def take(self) -> _T:
        """Wait for one; to be given back."""
        if self._idle:  # so nobody waits
            return self._idle.popleft()
        turn: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given in the same turn of the loop
                self.give(turn.result())
            raise

    def give(self, thing: _T) -> None:
        """Give one back, or a new one: to whoever has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # done is who was cancelled
                turn.set_result(thing)
                return
        self._idle.append(thing)
