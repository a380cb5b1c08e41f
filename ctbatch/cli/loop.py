"""The event loop of a command: uvloop where it exists, and signals that ask instead of killing.

To a run SIGHUP is two things. From ``kill -HUP`` it says to read the keys again; from a terminal
that was closed under the command it is the wish to end, as SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, TypeVar

from ctbatch import memory

__all__ = ["hangup_to", "run", "signals_to"]

_T = TypeVar("_T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run to the end on a loop of our own."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if sys.platform != "win32":
        import uvloop  # noqa: PLC0415  # not on Windows, and a command may need no loop

        factory = uvloop.new_event_loop
    memory.settle()
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


@contextmanager
def signals_to(request: Callable[[int], None], *, hangup: bool = False) -> Iterator[None]:
    """While this is open, SIGINT and SIGTERM call ``request`` with their number, on the running
    loop; with ``hangup`` SIGHUP does as well, as SIGTERM, unless it is ignored (``nohup``).
    """
    loop = asyncio.get_running_loop()
    if sys.platform == "win32":
        with _plain_signals(loop, request):
            yield
        return
    if hangup and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        end = partial(request, signal.SIGTERM)
        with hangup_to(end, request), signals_to(request):
            yield
        return
    for number in _SIGNALS:
        loop.add_signal_handler(number, request, number)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


@contextmanager
def hangup_to(reread: Callable[[], None], request: Callable[[int], None]) -> Iterator[None]:
    """While this is open, SIGHUP calls ``reread``, or ``request`` if the terminal has gone."""
    if sys.platform == "win32":
        yield
        return
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGHUP)
    terminal = _is_terminal()

    def hung_up() -> None:
        if terminal and not _is_terminal():
            request(signal.SIGTERM)
        else:
            reread()

    loop.add_signal_handler(signal.SIGHUP, hung_up)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, before)  # nohup ignores it, and so it stays


def _is_terminal() -> bool:
    return os.isatty(2)


@contextmanager
def _plain_signals(
    loop: asyncio.AbstractEventLoop, request: Callable[[int], None]
) -> Iterator[None]:
    """The same without the loop's help: Windows loops have no signal handlers."""

    def handle(number: int, _: FrameType | None) -> None:
        loop.call_soon_threadsafe(request, number)

    before = [(number, signal.signal(number, handle)) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
