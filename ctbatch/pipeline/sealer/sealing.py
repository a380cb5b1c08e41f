"""Sealing: a batch is checked, framed and sealed where it is called.

Invariant: the bytes of a record are sent as they stand in the input. Framing joins, it never
rewrites.

The private key never comes here. Nor does asyncio: a worker process is ready the sooner for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ctbatch.crypto.hpke import SealingKey
from ctbatch.crypto.keyset import parse_public
from ctbatch.models import Batch, Checked, SealedBatch
from ctbatch.pipeline.batcher import digest_of
from ctbatch.pipeline.checker.check import Checker, Rules

__all__ = ["Sealed", "SealerSpec", "Sealing", "frame", "frame_batch"]


@dataclass(frozen=True, slots=True)
class SealerSpec:
    """What a lane needs: the service's public keyset (``None``: plaintext), HPKE info, rules."""

    keyset: bytes | None
    info: bytes
    rules: Rules


@dataclass(frozen=True, slots=True)
class Sealed:
    """A batch checked and, with all its records, sealed; ``digest`` is that of the input,
    ``seconds`` the CPU time it took.
    """

    checked: Checked
    batch: SealedBatch
    digest: bytes
    seconds: float


def frame(records: Sequence[bytes]) -> bytes:
    """The request body of records, their bytes untouched: ``{"d":[…]}``."""
    return _framed(b",".join(records))


def frame_batch(batch: Batch, checked: Checked) -> bytes:
    """The request body of a batch's accepted lines."""
    data, start = batch.data, 0
    if checked.left_out:
        whole, pieces = memoryview(data), []
        for begin, end in checked.left_out.values():
            pieces.append(whole[start:begin])
            start = end + 1
        data = b"".join((*pieces, whole[start:]))
    if b"\r" in data:
        data = data.replace(b"\r", b"")  # in what is left it is white space
    joined = memoryview(data.replace(b"\n", b","))  # one copy less than removesuffix()
    return _framed(joined[:-1] if data.endswith(b"\n") else joined)


def _framed(joined: bytes | memoryview) -> bytes:
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
        started = time.thread_time()
        checked = self._checker.check(batch)
        sealed = self._seal(frame_batch(batch, checked), len(checked.positions))
        return Sealed(checked, sealed, digest_of(batch), time.thread_time() - started)

    def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Seal given records."""
        return self._seal(frame(records), len(records))

    def _seal(self, body: bytes, records: int) -> SealedBatch:
        if self._key is None:
            return SealedBatch(body, records, None)
        return SealedBatch(self._key.seal(body), records, self._key.key_id)
