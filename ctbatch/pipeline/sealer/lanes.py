"""Lanes: where batches are checked, framed and sealed; and the one on the event loop.

Invariant: the bytes of a record are sent as they stand in the input. Framing joins, it never
rewrites.

The private key never comes here. The lanes in processes of their own are
:mod:`ctbatch.pipeline.sealer.worker`'s; who gets which job is :mod:`ctbatch.pipeline.sealer.pool`'s
to say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from ctbatch.crypto.hpke import SealingKey
from ctbatch.crypto.keyset import parse_public
from ctbatch.models import Batch, Checked, SealedBatch
from ctbatch.pipeline.batcher import digest_of
from ctbatch.pipeline.checker.check import Checker, Rules, record_bytes

__all__ = ["Inline", "Lane", "Sealed", "SealerSpec", "Sealing", "frame", "frame_batch"]


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
    """Does jobs; as many at a time as whoever made it knows that it can take."""

    async def prepare(self, batch: Batch) -> Sealed:
        """Check a batch and seal its records."""
        ...

    async def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Seal given records."""
        ...

    async def close(self) -> None:
        """End; nobody waits for a job."""
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


class Sealing:
    """The work itself: checks, frames and seals where it is called."""

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


class Inline:
    """A lane on the event loop: for as long as a job takes, nothing else is done.

    A job is 2 ms (1000 lines of 300 bytes), 10 to 20 where each line goes to the exact check. On a
    thread of its own it holds the interpreter's lock for as long, and costs more: the two wait for
    each other twenty times a batch (benchmarks/README.md).
    """

    def __init__(self, sealing: Sealing) -> None:
        self._sealing = sealing

    @classmethod
    async def start(cls, spec: SealerSpec) -> Self:
        """A lane that works by ``spec``."""
        return cls(Sealing(spec))

    async def prepare(self, batch: Batch) -> Sealed:
        """Check a batch and seal its records."""
        await asyncio.sleep(0)  # between two jobs, the loop looks after everything else
        return self._sealing.prepare(batch)

    async def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Seal given records."""
        await asyncio.sleep(0)
        return self._sealing.seal(records)

    async def close(self) -> None:
        """Nothing to end."""
