"""The emulator on a thread of its own, for commands that bring their own event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ctbatch.api.client import Client
from ctbatch.emulator.server import Emulator
from ctbatch.emulator.state import Config
from tests.api.reading import client_of, fill

__all__ = ["Service", "served"]

_T = TypeVar("_T")


class Service:
    """A running emulator, driven from another thread."""

    def __init__(self, emulator: Emulator, loop: asyncio.AbstractEventLoop) -> None:
        self.emulator = emulator
        self._loop = loop

    @property
    def env(self) -> dict[str, str]:
        """What points ctbatch at it."""
        emulator = self.emulator
        return {
            "CLEVERTAP_ACCOUNT_ID": emulator.account_id,
            "CLEVERTAP_PASSCODE": emulator.passcode.reveal(),
            "CLEVERTAP_BASE_URL": emulator.base_url,
            "CTBATCH_SERVER_KEY": str(emulator.server_key),
            "CTBATCH_CLIENT_KEY": str(emulator.client_key),
        }

    def configure(self, **options: Any) -> None:
        """As :meth:`Emulator.configure`."""

        async def change() -> None:
            self.emulator.configure(options)

        self._wait(change())

    def fill(self, events: int) -> None:
        """As :func:`tests.api.reading.fill`."""
        self.with_client(lambda client: fill(client, events))

    def with_client(self, work: Callable[[Client], Coroutine[Any, Any, _T]]) -> _T:
        """Do something with a client of it."""

        async def run() -> _T:
            async with client_of(self.emulator) as client:
                return await work(client)

        return self._wait(run())

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)


@contextmanager
def served(clock: Callable[[], float] | None = None, **options: Any) -> Iterator[Service]:
    """An emulator with these options."""
    ready: list[Service] = []
    is_up = threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
        emulator = Emulator(Config(**options), clock=clock or time.time)
        async with emulator:
            ready.append(Service(emulator, loop))
            is_up.set()
            await stopped.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert is_up.wait(30)
    try:
        yield ready[0]
    finally:
        stop[0]()
        thread.join(30)
