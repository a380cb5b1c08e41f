"""A worker process's own side: what it does, and how lines and results get to it and back.

A worker reads jobs from its standard input and writes results to its standard output, both a
socket of its parent's. Lines and ciphertext do not go through it but through shared memory (where
the system has it). End of input means that the parent is gone, however it went, so no worker
outlives it.

The parent's side is :mod:`ctbatch.pipeline.sealer.worker`.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ctbatch import memory
from ctbatch.models import Batch, Checked, Names, SealedBatch, Span
from ctbatch.pipeline.sealer.sealing import Sealed, Sealing

__all__ = ["LENGTH", "Arena", "Packed", "serve", "unpacked"]


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


Packed = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...], int | bytes]
"""A result on its way: the facts without identities, those, the rest, and what the arena has to be
told for the body. Plain tuples, since pickling a frozen dataclass with slots takes ten times as
long.
"""

LENGTH = struct.Struct("!I")
"""What goes before a result: as far as it is known, it has arrived."""


def serve() -> None:
    """A worker's life: take the spec, say that it is ready, then do jobs until the end of input."""
    jobs, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints goes to stderr, never into the results
    # A parent that was killed is an end of input, or a reset where it had yet to read something.
    with suppress(EOFError, ConnectionError), results:
        spec, fds = pickle.load(jobs)  # noqa: S301  # written by our own parent
        sealing, arenas = Sealing(spec), [Arena(fd) for fd in fds]
        result: object = None
        memory.settle()
        while True:
            text = pickle.dumps(result, protocol=5)
            results.write(LENGTH.pack(len(text)) + text)
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
            except MemoryError:  # as if it had been killed: on a new worker there may be room
                raise SystemExit(1) from None
            except Exception as error:  # told to the parent, which raises it
                result = RuntimeError(f"{type(error).__name__} in a sealing worker")


def _packed(sealed: Sealed, arena: Arena) -> Packed:
    of, batch = sealed.checked, sealed.batch
    left = of.refusals, of.blank, of.left_out, of.warnings
    return (
        (of.positions, of.types, of.aliases, of.unsafe, *left),
        of.identities.pack(),
        (batch.records, batch.key_id, sealed.digest, sealed.seconds),
        arena.put(batch.body),
    )


def unpacked(packed: Packed, arena: Arena) -> Sealed:
    """The result that a worker packed, its body taken out of the arena."""
    facts, names, (records, key_id, digest, seconds), body = packed
    positions, types, aliases, unsafe, refusals, blank, left_out, warnings = facts
    checked = Checked(
        positions=positions,
        types=types,
        identities=Names.unpack(*names),
        aliases=aliases,
        unsafe=unsafe,
        refusals=refusals,
        blank=blank,
        left_out=left_out,
        warnings=warnings,
    )
    return Sealed(checked, SealedBatch(arena.take(body), records, key_id), digest, seconds)
