"""Lanes: where batches are checked, framed and sealed, in this process or in another.

A worker is a process of ours that reads jobs from its standard input and writes results to its
standard output. Lines and ciphertext do not go through the pipes but through a piece of shared
memory of the worker's own (where the system has it). End of input means that the parent is gone,
however it went, so no worker outlives it.

Invariants:

1. The bytes of a record are sent as they stand in the input: framing joins, it never rewrites.
2. A worker that is gone is noticed by whoever waits for it, as ``EOFError`` or ``OSError``.

The private key never comes here. Who gets which job is :mod:`ctbatch.pipeline.sealer.pool`'s to
say.
"""

from __future__ import annotations

import mmap
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, Any, Protocol

import orjson

from ctbatch.crypto.hpke import SealingKey
from ctbatch.crypto.keyset import parse_public
from ctbatch.models import Batch, Checked, SealedBatch
from ctbatch.pipeline.batcher import digest_of
from ctbatch.pipeline.checker.check import Checker, Rules, record_bytes

__all__ = [
    "Arena",
    "Inline",
    "Lane",
    "Sealed",
    "SealerSpec",
    "Worker",
    "frame",
    "frame_batch",
    "serve",
]


@dataclass(frozen=True, slots=True)
class SealerSpec:
    """What a lane needs: the service's public keyset (``None``: plaintext), HPKE info, rules."""

    keyset: bytes | None
    info: bytes
    rules: Rules


@dataclass(frozen=True, slots=True)
class Sealed:
    """A batch checked and, with all its records, sealed; ``digest`` is that of the input."""

    checked: Checked
    batch: SealedBatch
    digest: bytes
    seconds: float


class Lane(Protocol):
    """Does jobs, blocking."""

    def prepare(self, batch: Batch) -> Sealed:
        """Check a batch and seal its records."""
        ...

    def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Seal given records."""
        ...

    def close(self) -> None:
        """End; no job is under way."""
        ...


def frame(records: Sequence[bytes]) -> bytes:
    """The request body of records, their bytes untouched: ``{"d":[…]}``."""
    return _framed(b",".join(records))


def frame_batch(batch: Batch, checked: Checked) -> bytes:
    """The request body of a batch's accepted lines."""
    if isinstance(checked.positions, range) and b"\r" not in batch.data:  # all, as they stand
        return _framed(batch.data.removesuffix(b"\n").replace(b"\n", b","))
    lines = batch.lines()
    return frame([record_bytes(lines[index]) for index in checked.positions])


def _framed(joined: bytes) -> bytes:
    return b"".join((b'{"d":[', joined, b"]}"))


class Inline:
    """A lane in this process."""

    def __init__(self, spec: SealerSpec) -> None:
        self._checker = Checker(spec.rules)
        self._key = (
            None if spec.keyset is None else SealingKey(parse_public(spec.keyset), spec.info)
        )

    def prepare(self, batch: Batch) -> Sealed:
        """Check a batch and seal its records."""
        started = time.perf_counter()
        checked = self._checker.check(batch)
        sealed = self._seal(frame_batch(batch, checked), len(checked.positions))
        return Sealed(checked, sealed, digest_of(batch), time.perf_counter() - started)

    def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Seal given records."""
        return self._seal(frame(records), len(records))

    def _seal(self, body: bytes, records: int) -> SealedBatch:
        if self._key is None:
            return SealedBatch(body, records, None)
        return SealedBatch(self._key.seal(body), records, self._key.key_id)

    def close(self) -> None:
        """Nothing to end."""


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
        if self.fd is None:
            return message
        if os.fstat(self.fd).st_size < len(message):
            os.ftruncate(self.fd, len(message) + _SPARE_BYTES)
        self._mapped(len(message))[: len(message)] = message
        return len(message)

    def take(self, told: int | bytes) -> bytes:
        """The message."""
        return told if isinstance(told, bytes) else self._mapped(told)[:told]

    def _mapped(self, size: int) -> mmap.mmap:
        if self._map is None or len(self._map) < size:
            assert self.fd is not None
            self._map = mmap.mmap(self.fd, 0)
        return self._map

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

_Packed = tuple[Sealed, bytes, int | bytes]
"""A result on its way: without identities, which are one JSON text (a third of the time of pickling
them), and without its body, which is in the arena."""


DEPTH = 2
"""Jobs that a worker has at a time: it goes on with the next one while this process, which has
other things to do, takes the result of the last. With one it stood still for half of the time.
"""


class Worker:
    """A lane in a process of its own; ``DEPTH`` threads may give it jobs at a time.

    Raises:
        EOFError: the process ended before it was ready.
        OSError: it could not be started.
    """

    def __init__(self, spec: SealerSpec, *, shared: bool = True) -> None:
        self._arenas = [Arena.make() if shared else Arena(None) for _ in range(DEPTH)]
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._last = threading.Event()
        self._last.set()
        fds = [arena.fd for arena in self._arenas]
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from ctbatch.pipeline.sealer.lanes import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[fd for fd in fds if fd is not None],
            # What it needs to know comes by pipe: the passcode is not for a child's environment.
            env=_KEEP_MEMORY
            | {k: v for k, v in os.environ.items() if not k.startswith("CLEVERTAP_")},
            # A group of its own, so that a terminal's Ctrl-C does not reach it.
            process_group=0 if os.name == "posix" else None,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs: IO[bytes] = self._process.stdin
        self._results: IO[bytes] = self._process.stdout
        try:
            self._ask(spec, fds)
        except BaseException:
            self.close()
            raise
        for at in range(DEPTH):
            self._free.put(at)

    def prepare(self, batch: Batch) -> Sealed:
        """Have a batch checked and sealed."""
        with self._arena() as (at, arena):
            told = arena.put(batch.data)
            result: _Packed = self._ask("prepare", replace(batch, data=b""), at, told)
            sealed, names, body = result
            return replace(
                sealed,
                checked=replace(sealed.checked, identities=orjson.loads(names)),
                batch=replace(sealed.batch, body=arena.take(body)),
            )

    def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Have given records sealed."""
        with self._arena() as (at, arena):
            result: tuple[SealedBatch, int | bytes] = self._ask("seal", records, at, None)
            sealed, body = result
            return replace(sealed, body=arena.take(body))

    @contextmanager
    def _arena(self) -> Iterator[tuple[int, Arena]]:
        """An arena to oneself, and its number."""
        at = self._free.get()
        try:
            yield at, self._arenas[at]
        finally:
            self._free.put(at)

    def _ask(self, *words: object) -> Any:
        """Send a job and wait for its result; results come in the order of the jobs."""
        with self._sending:
            pickle.dump(words, self._jobs, protocol=5)
            self._jobs.flush()
            before, self._last = self._last, threading.Event()
            mine = self._last
        before.wait()
        try:
            result = pickle.load(self._results)  # noqa: S301  # written by our own child
        finally:
            mine.set()
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        """End the process and wait for it; it ends by itself at the end of its input."""
        with suppress(OSError):  # it is gone already, with something unsent
            self._jobs.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._results.close()
        for arena in self._arenas:
            arena.close()


def serve() -> None:
    """A worker's life: take the spec, say that it is ready, then do jobs until the end of input."""
    jobs, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints goes to stderr, never into the results
    with suppress(EOFError, BrokenPipeError), results:
        spec, fds = pickle.load(jobs)  # noqa: S301  # written by our own parent
        lane, arenas = Inline(spec), [Arena(fd) for fd in fds]
        result: object = None
        while True:
            pickle.dump(result, results, protocol=5)
            results.flush()
            verb, job, at, told = pickle.load(jobs)  # noqa: S301  # written by our own parent
            arena = arenas[at]
            try:
                if verb == "prepare":
                    result = _packed(lane.prepare(replace(job, data=arena.take(told))), arena)
                else:
                    sealed = lane.seal(job)
                    result = replace(sealed, body=b""), arena.put(sealed.body)
            except Exception as error:  # told to the parent, which raises it
                result = RuntimeError(f"{type(error).__name__} in a sealing worker")


def _packed(sealed: Sealed, arena: Arena) -> _Packed:
    names = orjson.dumps(sealed.checked.identities)
    bare = replace(
        sealed,
        checked=replace(sealed.checked, identities=[]),
        batch=replace(sealed.batch, body=b""),
    )
    return bare, names, arena.put(sealed.batch.body)
