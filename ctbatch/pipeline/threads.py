"""Work that is seen through to its end, also by who is cancelled meanwhile.

A thread cannot be cancelled. Whoever stopped waiting for one that takes hold of something (a lock,
a database), or lets go of it, would go on as if it had not, or already had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["see_through", "take"]

_T = TypeVar("_T")


async def see_through(work: Coroutine[Any, Any, _T] | asyncio.Task[_T]) -> _T:
    """Wait until the work is done; who was cancelled meanwhile is cancelled then."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # seen: being cancelled comes first
    raise cancelled


async def take(function: Callable[[], _T], *, undo: Callable[[_T], object]) -> _T:
    """Take hold of something on a thread; ``undo`` lets go of it if we are cancelled meanwhile."""
    taking = asyncio.create_task(asyncio.to_thread(function))
    try:
        return await see_through(taking)
    except asyncio.CancelledError:
        if not taking.cancelled() and taking.exception() is None:
            await see_through(asyncio.to_thread(undo, taking.result()))
        raise
