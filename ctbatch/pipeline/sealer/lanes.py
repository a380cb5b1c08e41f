"""Lanes: where a batch is sealed; and the one on the event loop.

The lanes in processes of their own are :mod:`ctbatch.pipeline.sealer.worker`'s, what a job is
:mod:`ctbatch.pipeline.sealer.sealing`'s; who gets which job is
:mod:`ctbatch.pipeline.sealer.pool`'s to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol, Self

from ctbatch.models import Batch, SealedBatch
from ctbatch.pipeline.sealer.sealing import Sealed, SealerSpec, Sealing

__all__ = ["Inline", "Lane"]


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
