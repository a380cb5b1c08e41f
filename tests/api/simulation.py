"""A service and our side of it on a fake clock: what a scenario file describes, event by event.

Batches go out as slots allow, wait as :mod:`ctbatch.api.retry` says when they are refused, and are
followed by others; the service takes ``cap`` calls at a time, or is closed (``outage``).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ctbatch.api.limiter import Controller
from ctbatch.api.retry import RetryBudget, full_jitter_s

__all__ = ["Service", "Simulation"]

PLACES = 34
"""Batches in progress, as a run with 15 slots has them."""


@dataclass(kw_only=True)
class Service:
    """What the service does from ``at_s`` on; ``refusal_s`` "latency": as slow as a reply.

    ``neighbour``: calls of others, ``every_s`` seconds on and as many off. ``stray``: the share
    refused for no reason. ``load``: latency grows by so much with each call inside.
    """

    at_s: float = 0.0
    cap: int = 15
    outage: bool = False
    refusal_s: float | Literal["latency"] = 0.03
    neighbour: int = 0
    every_s: float = 7.0
    stray: float = 0.0
    load: float = 0.0


@dataclass
class Simulation:
    """Runs one scenario at one latency and keeps what a range can be asked about."""

    latency_s: float
    phases: list[Service]
    cap: int = 15
    now: float = 0.0
    limits: list[tuple[float, int]] = field(default_factory=list)
    replies: list[tuple[float, bool]] = field(default_factory=list)
    """When each reply came, and whether it was a 429."""
    sent: list[float] = field(default_factory=list)
    start: int = 1
    peak: int = 0

    def run(self, until_s: float) -> None:
        """Let the clock go on to ``until_s``."""
        self._rng = random.Random(f"{self.latency_s}")
        self._controller = Controller(self.cap, self.start)
        self._budget = RetryBudget()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ready = deque([0] * PLACES)
        self._in_flight = self._inside = 0
        self._note_limit()
        self._fill()
        while self._events and self._events[0][0] < until_s:
            self.now, _, event = heapq.heappop(self._events)
            event()
            self._fill()
            self._note_limit()
        self.limits.append((until_s, self._controller.limit))

    def _at(self, delay_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._order), event))

    def _service(self) -> Service:
        return max((p for p in self.phases if p.at_s <= self.now), key=lambda p: p.at_s)

    def _fill(self) -> None:
        while self._ready and self._in_flight < self._controller.limit:
            self._send(self._ready.popleft())

    def _send(self, tries: int) -> None:
        self._in_flight += 1
        self.peak = max(self.peak, self._in_flight)
        self.sent.append(self.now)
        ticket = self._controller.sent(self._in_flight)
        service = self._service()
        others = service.neighbour if int(self.now / service.every_s) % 2 else 0
        latency_s = self.latency_s * self._rng.uniform(0.8, 1.2)
        if service.outage:
            self._at(0.005, lambda: self._failed(tries + 1))
        elif self._inside + others >= service.cap or self._rng.random() < service.stray:
            wait_s = latency_s if service.refusal_s == "latency" else service.refusal_s
            self._at(wait_s, lambda: self._refused(tries + 1, ticket))
        else:
            self._inside += 1
            self._at(latency_s * (1 + service.load * self._inside), self._accepted)

    def _accepted(self) -> None:
        self._inside -= 1
        self._in_flight -= 1
        self.replies.append((self.now, False))
        self._budget.succeeded()
        self._controller.served(self.now)
        self._ready.append(0)

    def _refused(self, tries: int, ticket: int) -> None:
        self.replies.append((self.now, True))
        self._controller.throttled(self.now, ticket)
        self._failed(tries)

    def _failed(self, tries: int) -> None:
        self._in_flight -= 1
        pause_s = max(full_jitter_s(tries, self._rng), self._budget.spend(self.now))
        self._at(pause_s, lambda: self._ready.append(tries))

    def _note_limit(self) -> None:
        if not self.limits or self.limits[-1][1] != self._controller.limit:
            self.limits.append((self.now, self._controller.limit))

    def measure(self, what: str, start_s: float, end_s: float) -> float:
        """What a range is about, by name, between two times."""
        measures: dict[str, Callable[[float, float], float]] = {
            "refused_share": self.refused_share,
            "requests": self.requests,
            "lowest_limit": self.lowest_limit,
            "highest_limit": self.highest_limit,
            "mean_limit": self.mean_limit,
        }
        return measures[what](start_s, end_s)

    def refused_share(self, start_s: float, end_s: float) -> float:
        """The share of replies between two times that were 429s."""
        refused = [is_429 for at_s, is_429 in self.replies if start_s <= at_s < end_s]
        return sum(refused) / len(refused) if refused else 0.0

    def requests(self, start_s: float, end_s: float) -> int:
        """Requests sent between two times."""
        return sum(start_s <= at_s < end_s for at_s in self.sent)

    def lowest_limit(self, start_s: float, end_s: float) -> int:
        """The lowest limit between two times."""
        return min(limit for limit, _ in self._spells(start_s, end_s))

    def highest_limit(self, start_s: float, end_s: float) -> int:
        """The highest limit between two times."""
        return max(limit for limit, _ in self._spells(start_s, end_s))

    def mean_limit(self, start_s: float, end_s: float) -> float:
        """The limit on average between two times."""
        spells = self._spells(start_s, end_s)
        return sum(limit * spell_s for limit, spell_s in spells) / (end_s - start_s)

    def _spells(self, start_s: float, end_s: float) -> list[tuple[int, float]]:
        """Limits between two times, each with how long it stood."""
        spells = []
        for (at_s, limit), (next_s, _) in itertools.pairwise(self.limits):
            spell_s = min(end_s, next_s) - max(start_s, at_s)
            if spell_s > 0:
                spells.append((limit, spell_s))
        return spells
