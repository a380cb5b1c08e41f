"""A lane in a process of its own: the parent's side of it.

Jobs go to the process and results come back over a socket pair, lines and ciphertext in pieces of
shared memory, of which a worker has one for each job that it can have at a time.

Invariants:

1. A worker that is gone is noticed by whoever waits for it, as ``EOFError`` or ``OSError``.
2. Shared memory holds a message until its result is there, also when nobody waits for that any
   more.

What the process does is :mod:`ctbatch.pipeline.sealer.serving`'s.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

from ctbatch.models import Batch, SealedBatch
from ctbatch.pipeline.sealer.idle import Idle
from ctbatch.pipeline.sealer.sealing import Sealed, SealerSpec
from ctbatch.pipeline.sealer.serving import LENGTH, Arena, unpacked
from ctbatch.pipeline.threads import see_through, take

__all__ = ["DEPTH", "Worker"]

_T = TypeVar("_T")

DEPTH = 4
"""Jobs that a worker has at a time: it goes on with the next one while this process, which has
other things to do, takes the result of the last. With two it stood still for a sixth of the time.
"""


class _Job(NamedTuple):
    """Who waits for a result; the arena that is its own until then, and how it is taken out."""

    done: asyncio.Future[Any]
    arena: Arena | None
    unpack: Callable[[Any, Any], object]


class _Results(asyncio.Protocol):
    """Cuts what a worker writes into results; ``tell`` gets each, ``ended`` the end of them."""

    def __init__(self, tell: Callable[[object], None], ended: Callable[[], None]) -> None:
        self._tell = tell
        self._ended = ended
        self._text = bytearray()

    def data_received(self, data: bytes) -> None:
        text, start = self._text, LENGTH.size
        text += data
        while len(text) >= start and len(text) >= (end := start + LENGTH.unpack_from(text)[0]):
            with memoryview(text) as view:
                result = pickle.loads(view[start:end])  # noqa: S301  # written by our own child
            del text[:end]
            self._tell(result)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()


class Worker:
    """A lane in a process of its own, for ``DEPTH`` jobs at a time; made by :meth:`start`."""

    def __init__(self, *, shared: bool) -> None:
        """Begin without a process."""
        self._arenas = [Arena.make() if shared else Arena(None) for _ in range(DEPTH)]
        self._free = Idle[Arena]()
        """The arenas that hold nothing that is still needed."""
        for arena in self._arenas:
            self._free.give(arena)
        self._asked: deque[_Job] = deque()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: asyncio.Transport | None = None
        self._gone = False

    @classmethod
    async def start(cls, spec: SealerSpec, *, shared: bool = True) -> Self:
        """A worker that is ready.

        Raises:
            EOFError: the process ended before it was.
            OSError: it could not be started.
        """
        worker = cls(shared=shared)
        try:
            await worker._begin(spec)
        except BaseException:
            await see_through(worker.close())
            raise
        return worker

    @property
    def pid(self) -> int | None:
        """The process."""
        return None if self._process is None else self._process.pid

    async def _begin(self, spec: SealerSpec) -> None:
        fds = [arena.fd for arena in self._arenas]
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = await take(partial(_spawn, theirs, fds), undo=_kill)
            self._pipe, _ = await asyncio.get_running_loop().create_unix_connection(
                lambda: _Results(self._arrived, self._ended), sock=ours
            )
        except BaseException:
            ours.close()
            raise
        await self._do((spec, fds), None, _as_it_is)

    async def prepare(self, batch: Batch) -> Sealed:
        """Have a batch checked and sealed."""
        arena = await self._free.take()
        told = arena.put(batch.data)
        job = batch.span.lines, batch.overlong
        words = "prepare", job, self._arenas.index(arena), told
        return await self._do(words, arena, unpacked)

    async def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Have given records sealed."""
        arena = await self._free.take()
        return await self._do(("seal", records, self._arenas.index(arena), None), arena, _with_body)

    async def _do(self, words: object, arena: Arena | None, unpack: Callable[[Any, Any], _T]) -> _T:
        """Send a job and wait for its result; results come in the order of the jobs."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append(_Job(done, arena, unpack))
        if self._gone or self._pipe is None:
            self._ended()
        else:
            self._pipe.write(pickle.dumps(words, protocol=5))
        result: _T | BaseException = await done
        if isinstance(result, BaseException):
            raise result
        return result

    def _arrived(self, result: object) -> None:
        """Take a result out of its arena, which is free from then on, and give it to who waits."""
        done, arena, unpack = self._asked.popleft()
        if not isinstance(result, BaseException):
            try:
                result = unpack(result, arena)
            except Exception as error:  # without memory, say: who waits is told
                result = error
        if arena is not None:
            self._free.give(arena)
        if not done.done():
            done.set_result(result)

    def _ended(self) -> None:
        """The process is gone, and with it what it was asked for."""
        self._gone = True
        while self._asked:
            self._arrived(EOFError())

    async def close(self) -> None:
        """End the process and wait for it; it ends by itself at the end of its input."""
        if self._pipe is not None:
            self._pipe.abort()
        if self._process is not None:
            await asyncio.to_thread(_wait_for, self._process)
        for arena in self._arenas:
            arena.close()


def _spawn(theirs: socket.socket, fds: Sequence[int | None]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "from ctbatch.pipeline.sealer.serving import serve; serve()"],
        stdin=theirs.fileno(),
        stdout=theirs.fileno(),
        pass_fds=[fd for fd in fds if fd is not None],
        # What it needs to know comes by pipe: the passcode is not for a child's environment.
        env={k: v for k, v in os.environ.items() if not k.startswith("CLEVERTAP_")},
        # A group of its own, so that a terminal's Ctrl-C does not reach it.
        process_group=0 if os.name == "posix" else None,
    )


def _wait_for(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _as_it_is(result: object, _: object) -> object:
    return result


def _with_body(packed: tuple[SealedBatch, int | bytes], arena: Arena) -> SealedBatch:
    sealed, body = packed
    return replace(sealed, body=arena.take(body))
