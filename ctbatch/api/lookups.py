"""Look-ups: one user, or many of them a few at a time and in order.

Invariants:

1. Results come in the order of the look-ups, one each, whatever happened to it.
2. What is held is bounded: the results of one round.
3. "Nobody" is said by an answer that opened and has no record, or by a 404 that opened; by nothing
   else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from itertools import islice

from ctbatch.api.asking import Asker, refusal_of
from ctbatch.api.queries import MAX_CONCURRENT_READS, PROFILE_PATH, Lookup, Sense, record_of
from ctbatch.errors import CtbatchError, ServiceRefused

__all__ = ["Found", "look_up", "look_up_all"]

ROUND = 20 * MAX_CONCURRENT_READS
"""Look-ups that are begun together: at the end of a round slots stand idle, for a twentieth of the
time on average."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up came to: the bytes of the record as they came, ``None`` for nobody, or why the
    service refused to look (``refusal``).
    """

    lookup: Lookup
    record: bytes | None = field(default=None, repr=False)
    refusal: ServiceRefused | None = None


async def look_up(asker: Asker, lookup: Lookup) -> Found:
    """Look one user up. Raises as :meth:`Asker.ask`."""
    heard = await asker.ask("GET", PROFILE_PATH, query=lookup.query)
    if heard.sense is Sense.MISSING:
        return Found(lookup)
    if heard.sense is Sense.ANSWER:
        record = record_of(heard)
        if record is None or isinstance(record, bytes):
            return Found(lookup, record)
        why = "the service answered the look-up with a record that is none"
        return Found(lookup, refusal=ServiceRefused(why))
    return Found(lookup, refusal=refusal_of(heard, "look-up", sealed=asker.sealed))


async def look_up_all(asker: Asker, lookups: Iterable[Lookup]) -> AsyncGenerator[Found, None]:
    """Look users up, three at a time; what was found before an error is handed over first."""
    rest = iter(lookups)
    while lot := list(islice(rest, ROUND)):
        tasks: list[asyncio.Task[Found]] = []
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                tasks += [group.create_task(look_up(asker, lookup)) for lookup in lot]
        except* CtbatchError as errors:
            failure = errors.exceptions[0]
        for task in tasks:
            if task.cancelled() or task.exception() is not None:
                break
            yield task.result()
        if failure is not None:
            raise failure
