"""How a run is asked to end: by a signal, or by a failure in one of its parts.

First request: stop reading, finish what is on the wire, record, report. Second: cancel now. The one
other thing that may be asked of a run is to read its key files again. Nothing here installs signal
handlers; the command does and calls :meth:`Stop.request` and :meth:`Stop.read_keys`.
"""

from __future__ import annotations

import asyncio

from ctbatch.errors import CtbatchError, Interrupted

__all__ = ["Stop"]


class Stop:
    """The wish to end a run; belongs to one event loop."""

    def __init__(self) -> None:
        self._now = asyncio.Event()
        self._asked = asyncio.Event()
        self._keys = asyncio.Event()
        self.requests = 0
        """How often somebody asked to end."""
        self.draining = False
        """Whether the run has been asked to end."""
        self.reason: CtbatchError | None = None
        """Why the run ends early: the first reason given."""

    @property
    def at_once(self) -> bool:
        """Whether the run has been asked to end without draining."""
        return self._now.is_set()

    def request(self, signal_number: int) -> None:
        """Ask to end gracefully; the second time, to end now, also where a failure came first."""
        self.requests += 1
        if self.requests > 1:
            self._now.set()
        self.fail(Interrupted(signal_number))

    def fail(self, reason: CtbatchError) -> None:
        """End gracefully because a part of the run cannot go on."""
        if not self.draining:
            self.reason, self.draining = reason, True
            self._asked.set()

    async def wait_now(self) -> None:
        """Wait until the run is asked to end without draining."""
        await self._now.wait()

    async def wait(self) -> None:
        """Wait until the run is asked to end."""
        await self._asked.wait()

    def read_keys(self) -> None:
        """Ask for the key files to be read again, whatever they look like."""
        self._keys.set()

    async def wait_keys(self) -> None:
        """Wait until the key files are to be read again."""
        await self._keys.wait()
        self._keys.clear()
