"""A lane in a process of its own.

A worker reads jobs from its standard input and writes results to its standard output, both a
socket of ours. Lines and ciphertext do not go through it but through a piece of shared memory of
the worker's own (where the system has it). End of input means that the parent is gone, however it
went, so no worker outlives it.

Invariants:

1. A worker that is gone is noticed by whoever waits for it, as ``EOFError`` or ``OSError``.
2. Shared memory holds a message until its result is there, also when nobody waits for that any
   more.

What a job is, is :mod:`ctbatch.pipeline.sealer.lanes`'s.
"""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

import orjson

from ctbatch.models import Batch, Checked, SealedBatch, Span
from ctbatch.pipeline.sealer.lanes import Sealed, SealerSpec, Sealing
from ctbatch.pipeline.threads import see_through, take

__all__ = ["DEPTH", "Arena", "Worker", "serve"]

_T = TypeVar("_T")


class Arena:
    """Shared memory that holds one message at a time; without any, messages go with the words.

    :meth:`put` gives what the other side has to be told to :meth:`take` the message.
    """

    def __init__(self, fd: int | None) -> None:
        self.fd = fd
        self._map: mmap.mmap | None = None

    @classmethod
    def make(cls) -> Arena:
        """A new one; the memory is anonymous and goes with the last process that has it."""
        # Elsewhere than on Linux there is none without a name or a file.
        return cls(os.memfd_create("ctbatch") if hasattr(os, "memfd_create") else None)

    def put(self, message: bytes) -> int | bytes:
        """Leave a message in place of the last one."""
        if self.fd is None or not message:
            return message
        size = len(message)
        if self._map is None or len(self._map) < size:
            if os.fstat(self.fd).st_size < size:
                os.ftruncate(self.fd, size + _SPARE_BYTES)
            self._map = mmap.mmap(self.fd, 0)
        self._map[:size] = message
        return size

    def take(self, told: int | bytes) -> bytes:
        """The message."""
        if isinstance(told, bytes):
            return told
        if self._map is None or len(self._map) < told:
            assert self.fd is not None
            self._map = mmap.mmap(self.fd, 0)
        return self._map[:told]

    def close(self) -> None:
        """Give the memory back."""
        if self._map is not None:
            self._map.close()
        if self.fd is not None:
            os.close(self.fd)


_SPARE_BYTES = 1 << 16
"""Ciphertext is a little longer than the lines: the memory need not grow again for it."""


_KEEP_MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.trim_threshold=33554432:glibc.malloc.mmap_threshold=33554432"
}
"""Has glibc keep what is freed for what comes next, up to 32 MB. Otherwise it gives the memory of
each batch back to the system and takes it anew, page by page: 300 page faults a batch, half of the
system time that a run with a worker takes. (Not so in the parent, which holds dozens of batches.)
"""

_Packed = tuple[tuple[Any, ...], bytes, tuple[Any, ...], int | bytes]
"""A result on its way: the facts without identities, those as one JSON text (a third of the time of
pickling them), the rest, and what the arena has to be told for the body. Plain tuples, since
pickling a frozen dataclass with slots takes ten times as long.
"""

_LENGTH = struct.Struct("!I")
"""What goes before a result: as far as it is known, it has arrived."""


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
        text, start = self._text, _LENGTH.size
        text += data
        while len(text) >= start and len(text) >= (end := start + _LENGTH.unpack_from(text)[0]):
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
        self._free = asyncio.Queue[Arena]()
        """The arenas that hold nothing that is still needed."""
        for arena in self._arenas:
            self._free.put_nowait(arena)
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
        arena = await self._free.get()
        told = arena.put(batch.data)
        job = batch.span.lines, batch.overlong
        words = "prepare", job, self._arenas.index(arena), told
        return await self._do(words, arena, _unpacked)

    async def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Have given records sealed."""
        arena = await self._free.get()
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
            result = unpack(result, arena)
        if arena is not None:
            self._free.put_nowait(arena)
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
        [sys.executable, "-c", "from ctbatch.pipeline.sealer.worker import serve; serve()"],
        stdin=theirs.fileno(),
        stdout=theirs.fileno(),
        pass_fds=[fd for fd in fds if fd is not None],
        # What it needs to know comes by pipe: the passcode is not for a child's environment.
        env=_KEEP_MEMORY | {k: v for k, v in os.environ.items() if not k.startswith("CLEVERTAP_")},
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


def _packed(sealed: Sealed, arena: Arena) -> _Packed:
    of, batch = sealed.checked, sealed.batch
    return (
        (of.positions, of.types, of.aliases, of.unsafe, of.refusals, of.blank, of.warnings),
        orjson.dumps(of.identities),
        (batch.records, batch.key_id, sealed.digest, sealed.seconds),
        arena.put(batch.body),
    )


def _unpacked(packed: _Packed, arena: Arena) -> Sealed:
    facts, names, (records, key_id, digest, seconds), body = packed
    positions, types, aliases, unsafe, refusals, blank, warnings = facts
    checked = Checked(
        positions=positions,
        types=types,
        identities=orjson.loads(names),
        aliases=aliases,
        unsafe=unsafe,
        refusals=refusals,
        blank=blank,
        warnings=warnings,
    )
    return Sealed(checked, SealedBatch(arena.take(body), records, key_id), digest, seconds)


def _with_body(packed: tuple[SealedBatch, int | bytes], arena: Arena) -> SealedBatch:
    sealed, body = packed
    return replace(sealed, body=arena.take(body))


def serve() -> None:
    """A worker's life: take the spec, say that it is ready, then do jobs until the end of input."""
    jobs, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints goes to stderr, never into the results
    with suppress(EOFError, BrokenPipeError), results:
        spec, fds = pickle.load(jobs)  # noqa: S301  # written by our own parent
        sealing, arenas = Sealing(spec), [Arena(fd) for fd in fds]
        result: object = None
        gc.freeze()  # as ctbatch.cli.loop does
        gc.set_threshold(20_000)
        while True:
            text = pickle.dumps(result, protocol=5)
            results.write(_LENGTH.pack(len(text)) + text)
            results.flush()
            verb, job, at, told = pickle.load(jobs)  # noqa: S301  # written by our own parent
            arena = arenas[at]
            try:
                if verb == "prepare":
                    (lines, overlong), data = job, arena.take(told)
                    batch = Batch(Span(0, 1, lines, 0, len(data)), data, overlong)
                    result = _packed(sealing.prepare(batch), arena)
                else:
                    sealed = sealing.seal(job)
                    result = replace(sealed, body=b""), arena.put(sealed.body)
            except Exception as error:  # told to the parent, which raises it
                result = RuntimeError(f"{type(error).__name__} in a sealing worker")
