"""Services of which the best setting is known: what a setting is worth, by a formula."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ctbatch.tuning.tuner import Bounds, Seen, Try, Verdict, search

__all__ = ["Service", "found"]


@dataclass(kw_only=True)
class Service:
    """A call takes ``fixed_s``, more for each record (``record_s``, and ``square_s`` times their
    square) and for each other call under way (``load_s``, and ``crowd_s`` times the square of all).
    It takes ``cap`` calls at a time and ``most`` records a second; measured with ``noise``. Every
    ``fails``-th call fails.
    """

    fixed_s: float = 0.2
    record_s: float = 0.0
    square_s: float = 0.0
    load_s: float = 0.0
    crowd_s: float = 0.0
    cap: int = 1000
    most: float = float("inf")
    noise: float = 0.0
    fails: int = 10**9
    calls: int = 0
    lines: int = 10**9
    rng: random.Random = field(default_factory=lambda: random.Random(5))

    def rate(self, concurrency: int, batch_size: int) -> float:
        """Records a second of a setting that is not throttled."""
        call_s = (
            self.fixed_s
            + self.record_s * batch_size
            + self.square_s * batch_size**2
            + self.load_s * (concurrency - 1)
            + self.crowd_s * concurrency**2
        )
        return min(concurrency * batch_size / call_s, self.most)

    def best_rate(self, bounds: Bounds) -> float:
        """What the best of all settings within the bounds is worth."""
        return max(
            self.rate(concurrency, batch_size)
            for concurrency in range(1, min(bounds.concurrency, self.cap) + 1)
            for batch_size in range(1, bounds.batch_size + 1)
        )

    def see(self, wanted: Try) -> Seen:
        """What a try comes to; calls that are under way when one fails are made, too."""
        left = self.fails - self.calls % self.fails
        if left <= wanted.requests:
            made = min(wanted.requests, left + wanted.concurrency - 1)
            self.calls += made
            return Seen(0.0, made, failed=True)
        self.calls += wanted.requests
        if wanted.concurrency > self.cap:
            return Seen(0.0, wanted.concurrency, throttled=True)
        enough = wanted.requests * wanted.batch_size <= self.lines
        rate = self.rate(wanted.concurrency, wanted.batch_size)
        off = self.rng.uniform(-self.noise, self.noise)
        return Seen(rate * (1 + off), wanted.requests, certain=enough)


def found(service: Service, bounds: Bounds) -> tuple[Verdict, list[tuple[Try, Seen]]]:
    """The verdict of a search of this service, and what was seen on the way."""
    searching, seen = search(bounds), list[tuple[Try, Seen]]()
    try:
        wanted = next(searching)
        while True:
            seen.append((wanted, service.see(wanted)))
            wanted = searching.send(seen[-1][1])
    except StopIteration as end:
        return end.value, seen
