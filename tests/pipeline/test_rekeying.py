"""A sealer that is given another key goes on with it, inline or in processes of its own."""

from __future__ import annotations

import asyncio

import pytest

from ctbatch.crypto.hpke import OpeningKeys
from ctbatch.crypto.keyset import Keyset, generate, to_binary
from ctbatch.models import Batch, Span
from ctbatch.pipeline.checker.check import Rules
from ctbatch.pipeline.sealer.pool import Sealer, SealerSpec, Workers
from ctbatch.pipeline.sealer.sealing import frame

INFO = b"XXX-XXX-XXXX"
LINE = b'{"type":"profile","identity":"u1","profileData":{}}'


def _spec(keyset: Keyset) -> SealerSpec:
    return SealerSpec(to_binary(keyset.public()), INFO, Rules())


@pytest.mark.parametrize("workers", [0, 2])
async def test_what_is_begun_later_is_sealed_with_the_new_key(workers: int) -> None:
    """Batches and parts of them, on every lane, whether or not it has worked before."""
    old, new = generate(), generate()
    batch = Batch(Span(0, 1, 1, 0, len(LINE) + 1), LINE + b"\n")
    async with Sealer(_spec(old), Workers(workers, 0)) as sealer:
        before = await asyncio.gather(*(sealer.prepare(batch) for _ in range(3)))
        sealer.rekey(_spec(new))
        after = await asyncio.gather(*(sealer.prepare(batch) for _ in range(4)))
        part = await sealer.seal([LINE])
    assert {sealed.batch.key_id for sealed in before} == {old.primary_id}
    for keyset, bodies in (
        (old, [sealed.batch.body for sealed in before]),
        (new, [sealed.batch.body for sealed in after] + [part.body]),
    ):
        opening = OpeningKeys(keyset, INFO)
        assert {bytes(opening.open(bytes(body)).plaintext) for body in bodies} == {frame([LINE])}
