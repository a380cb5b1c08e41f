"""A service that is scripted at the seam, the network's: it stands where the transport does.

It reads plaintext, so runs against it are in that mode. How such a run is made is in
:mod:`tests.pipeline.voyages`.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn, Self

from ctbatch.api.transport import Reply
from ctbatch.errors import NotSent, ReplyLost
from tests.pipeline.lines import event, profile

__all__ = ["Conduct", "Line", "ScriptedService", "Weather"]


class Conduct(StrEnum):
    """What the service always does with a record, whatever the weather."""

    TAKEN = "taken"
    BAD = "bad"  # refused with 515
    POISON = "poison"  # its whole batch is refused with 400
    BIG = "big"  # its whole batch is too large, by itself too


@dataclass(frozen=True)
class Line:
    """One line: ``kind`` set, count, event, blank or invalid."""

    kind: str
    name: str
    conduct: Conduct = Conduct.TAKEN

    @property
    def is_record(self) -> bool:
        """Whether there is something to send."""
        return self.kind in {"set", "count", "event"}

    @property
    def is_unsafe(self) -> bool:
        """Whether it must not be applied twice."""
        return self.kind in {"count", "event"}

    def text(self, number: int) -> bytes:
        """Its bytes, without the newline."""
        name = self.name or f"u{number}"
        data: dict[str, object] = {"n": number}
        if self.conduct is not Conduct.TAKEN:
            data["conduct"] = self.conduct.value
        match self.kind:
            case "set":
                return profile(data, identity=name)
            case "count":
                return profile(data | {"visits": {"$incr": 1}}, identity=name)
            case "event":
                return event(data, identity=name)
        return b"" if self.kind == "blank" else b'{"n":%d' % number


class Weather(StrEnum):
    """What can happen to a request."""

    CALM = "calm"
    TRANSIENT = "some records get code 555"
    THROTTLED = "429"
    BUSY = "503 in the vendor's form"
    NOT_SENT = "reset before the body was sent"
    RESET = "reset after it"
    TIMEOUT = "time-out"
    FAILED = "500"
    WRONG_COUNTS = "counts that do not add up"
    UNOPENED = "a body that does not open"


AMBIGUOUS = {Weather.RESET, Weather.TIMEOUT, Weather.FAILED, Weather.WRONG_COUNTS, Weather.UNOPENED}


@dataclass(eq=False)
class ScriptedService:
    """Decides by its seed and by what it is sent, so that whatever went wrong goes wrong again.

    ``script`` is what befalls the next requests, one after the other; ``weather`` befalls
    ``bad_share`` of those after them. ``largest`` is how many records it takes at a time; where it
    is not ``numbered``, half of its refusals do not tell which record they are of; ``lenient``, it
    takes every record.

    ``stored`` are the numbers of the records in the order of storing; ``exposed`` those that an
    answer left open; ``told`` those that an answer said were stored; ``ambiguous`` counts the
    ambiguous answers for each; ``transient`` are those that were refused with 555. ``fresh`` is for
    each request whether it wanted a fresh connection.
    """

    seed: int = 0
    weather: Sequence[Weather] = (Weather.CALM,)
    bad_share: float = 0.0
    numbered: bool = True
    largest: int = 1000
    lenient: bool = False
    concurrency: int = 15
    on_request: Callable[[int], None] | None = None
    script: list[Weather] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    exposed: set[int] = field(default_factory=set)
    told: set[int] = field(default_factory=set)
    ambiguous: Counter[int] = field(default_factory=Counter)
    transient: set[int] = field(default_factory=set)
    fresh: list[bool] = field(default_factory=list)
    requests: int = 0
    dead: bool = False

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self._times: Counter[tuple[int, ...]] = Counter()
        self._inside: list[set[str]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def request(self, *_: object, body: bytes, fresh: bool, **__: object) -> Reply:
        """One attempt of the product's, in the place of :class:`Transport`'s."""
        records = json.loads(body)["d"]
        assert fresh or not any(map(is_unsafe, records)), "on a connection that may be stale"
        self.fresh.append(fresh)
        names = {record["identity"] for record in records}
        assert all(names.isdisjoint(other) for other in self._inside), "two of one user at once"
        assert len(self._inside) < self.concurrency
        self._inside.append(names)
        try:
            return await self._answer(records)
        except asyncio.CancelledError:
            self.exposed.update(number_of(record) for record in records)
            raise
        finally:
            self._inside.remove(names)

    async def _answer(self, records: list[dict[str, Any]]) -> Reply:
        numbers = tuple(number_of(record) for record in records)
        rng = random.Random(f"{self.seed}:{numbers}:{self._times[numbers]}")
        self._times[numbers] += 1
        self.requests += 1
        if self.on_request is not None:
            self.on_request(self.requests)
        await asyncio.sleep(rng.choice([0, 0, 0.001]))
        with self.lock:
            if not self.dead:
                act = self._act(rng, records)
        if self.dead:
            await asyncio.Event().wait()
        await asyncio.sleep(rng.choice([0, 0, 0.001]))
        return act()

    def _act(self, rng: random.Random, records: list[dict[str, Any]]) -> Callable[[], Reply]:
        """Store what is to be stored; returns how the answer is given."""
        conducts = {Conduct.TAKEN if self.lenient else conduct_of(r) for r in records}
        if len(records) > self.largest or Conduct.BIG in conducts:
            return lambda: _reply(413)
        if Conduct.POISON in conducts:
            return lambda: _reply(400, error="Malformed request")
        what = rng.choice(self.weather) if rng.random() < self.bad_share else Weather.CALM
        if self.script:
            what = self.script.pop(0)
        if what in AMBIGUOUS:
            return self._leave_open(what, rng, records)
        if what in UNTOUCHED:
            return UNTOUCHED[what]
        return self._take(rng, records, transient=what is Weather.TRANSIENT)

    def _leave_open(
        self, what: Weather, rng: random.Random, records: list[dict[str, Any]]
    ) -> Callable[[], Reply]:
        """Store all, a part or nothing, and say nothing of it."""
        kept = records[: rng.choice([0, len(records), rng.randint(0, len(records))])]
        self.stored += [number_of(r) for r in kept if conduct_of(r) is not Conduct.BAD]
        numbers = [number_of(record) for record in records]
        self.exposed.update(numbers)
        self.ambiguous.update(numbers)
        match what:
            case Weather.RESET:
                return lambda: _raise(ReplyLost("reset", "reset"))
            case Weather.TIMEOUT:
                return lambda: _raise(ReplyLost("timeout", "no answer"))
            case Weather.FAILED:
                return lambda: _reply(500)
            case Weather.WRONG_COUNTS:
                return lambda: _reply(200, processed=len(records) + 1, unprocessed=[])
        return lambda: Reply(200, {}, b"<html>", 0.0, "text/html")

    def _take(
        self, rng: random.Random, records: list[dict[str, Any]], *, transient: bool
    ) -> Callable[[], Reply]:
        """Store what is good, and say of each other one that it was refused."""
        refused = []
        for place, record in enumerate(records, 1):
            number = number_of(record)
            if conduct_of(record) is Conduct.BAD and not self.lenient:
                refused.append((515, place, record))
            elif transient and rng.random() < 0.4:
                self.transient.add(number)
                refused.append((555, place, record))
            else:
                self.stored.append(number)
                self.told.add(number)
        spoiled = not self.numbered and rng.random() < 0.5
        entries = _spoiled(rng, refused) if spoiled else [_entry(*one) for one in refused]
        if spoiled and entries:
            self.exposed.update(number_of(record) for record in records)
        taken = len(records) - len(entries)
        return lambda: _reply(200, status="success", processed=taken, unprocessed=entries)

    def times(self) -> Counter[int]:
        """How often each record was stored."""
        return Counter(self.stored)


def number_of(record: dict[str, Any]) -> int:
    """The number that tells a record from all others."""
    return int((record.get("profileData") or record["evtData"])["n"])


def conduct_of(record: dict[str, Any]) -> Conduct:
    """What the service does with it."""
    data = record.get("profileData") or record["evtData"]
    return Conduct(data.get("conduct", Conduct.TAKEN))


def is_unsafe(record: dict[str, Any]) -> bool:
    """Whether it must not be applied twice."""
    return record["type"] == "event" or "visits" in record["profileData"]


def _entry(code: int, place: int, record: dict[str, Any]) -> dict[str, Any]:
    """What ``unprocessed`` holds of a record."""
    words = f"Refused. Skipped record number : {place}"
    return {"status": "fail", "code": code, "error": words, "record": record}


def _spoiled(
    rng: random.Random, refused: Sequence[tuple[int, int, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The same with numbers that are missing, out of range or repeated."""
    entries = [_entry(*one) for one in refused]
    words = rng.choice(["Refused.", "Skipped record number : 1001", "Skipped record number : 1"])
    if len(entries) > 1 or not words.endswith(" 1"):
        for entry in entries:
            entry["error"] = words
            entry["record"] = rng.choice([entry["record"], None, {"type": entry["record"]["type"]}])
    return entries


def _reply(http_status: int, /, **body: Any) -> Reply:
    text = json.dumps(body).encode() if body else b""
    return Reply(http_status, {}, text, 0.0, "application/json")


def _raise(error: Exception) -> NoReturn:
    raise error


UNTOUCHED: dict[Weather, Callable[[], Reply]] = {
    Weather.THROTTLED: lambda: _reply(429),
    Weather.BUSY: lambda: _reply(503, status="fail", error="Busy", code=503),
    Weather.NOT_SENT: lambda: _raise(NotSent("reset", "reset")),
}
"""Answers after which nothing is stored."""
