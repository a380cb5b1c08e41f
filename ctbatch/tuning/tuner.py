"""The search of ``ctbatch tune``: which setting to try next, until the best is known. Pure.

A generator: it yields what to try, is sent what was seen, and returns its verdict. It climbs in
concurrency with the largest batches, where each request brings most, in steps small enough that the
last good one is near the best; then it looks whether smaller batches do better there, and if they
do, climbs on with those.

Invariants:

1. What was spent and what the next try may take are within the budget, as long as a try takes no
   more requests than it asks for.
2. The first sign of throttling ends the search, and so does the first request that fails; nothing
   at or above what was throttled is recommended.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum

from ctbatch.tuning.advice import AS_GOOD

__all__ = ["Bounds", "End", "Seen", "Try", "Verdict", "requests_for", "search"]

STEP = 1.25
"""Between two tries in concurrency, rounded up: the best is missed by a fifth at most."""

GAIN = 1.05
"""What brings less is noise, or not worth it."""

PATIENCE = 2
"""Steps in a row without gain before a climb ends: one may be bad luck."""

ROUNDS = 5
"""Requests for each slot in a try, once all of them are open: the last round empties the slots, and
three before it are what a rate is certain from."""

MIN_REQUESTS = 6


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far the search may go: requests at a time, records in each, requests in all."""

    concurrency: int
    batch_size: int
    requests: int


@dataclass(frozen=True, slots=True)
class Try:
    """Measure this setting with so many requests at most, repetitions included."""

    concurrency: int
    batch_size: int
    requests: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What a try came to; not ``certain``: the input ended before there was anything to measure.
    ``failed``: it ended at a request that failed in another way than being throttled.
    """

    lines_per_s: float
    requests: int
    throttled: bool = False
    failed: bool = False
    certain: bool = True


class End(StrEnum):
    """Why a search ended."""

    FOUND = "found"
    THROTTLED = "throttled"
    FAILED = "failed"
    BUDGET = "budget"
    INPUT = "input"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The best setting tried, ``None`` if nothing could be measured, and why the search ended."""

    best: Try | None
    end: End
    requests: int


def requests_for(concurrency: int) -> int:
    """Requests that measure a concurrency: the limiter doubles up to it, then a few rounds."""
    opening = (1 << (concurrency - 1).bit_length()) - 1
    return max(MIN_REQUESTS, opening + ROUNDS * concurrency)


def search(bounds: Bounds) -> Generator[Try, Seen, Verdict]:
    """Find the setting with the most lines per second."""
    found = _Search(bounds)
    yield from found.climb(1, bounds.batch_size)
    while found.end is None and (smaller := (yield from found.halve())):
        yield from found.climb(found.best_concurrency + 1, smaller)
    return found.verdict()


class _Search:
    """What was seen so far."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._seen: dict[Try, Seen] = {}
        self.end: End | None = None

    def climb(self, start: int, batch_size: int) -> Generator[Try, Seen, None]:
        """Take more requests at a time as long as that brings more."""
        best, idle, concurrency = self._most(batch_size), 0, start
        while concurrency <= self._bounds.concurrency and idle < PATIENCE:
            seen = yield from self._try(concurrency, batch_size)
            if seen is None:
                return
            idle = 0 if seen > GAIN * best else idle + 1
            best = max(best, seen)
            concurrency = _next(concurrency, self._bounds.concurrency)

    def halve(self) -> Generator[Try, Seen, int | None]:
        """Take smaller batches as long as that brings more; returns their size if it did."""
        best = self.best
        assert best is not None, "asked for after a climb"
        size, most, better = best.batch_size // 2, self._seen[best].lines_per_s, None
        while size >= 1:
            known = any(tried.batch_size == size for tried in self._seen)
            seen = None if known else (yield from self._try(best.concurrency, size))
            if seen is None or seen <= GAIN * most:
                break
            better, most, size = size, seen, size // 2
        return better

    def _try(self, concurrency: int, batch_size: int) -> Generator[Try, Seen, float | None]:
        """Lines per second of a setting; ``None``: the search is over."""
        wanted = Try(concurrency, batch_size, requests_for(concurrency))
        if self._spent + wanted.requests > self._bounds.requests:
            self.end = End.BUDGET
            return None
        seen = self._seen[wanted] = yield wanted
        if seen.throttled:
            self.end = End.THROTTLED
        elif seen.failed:
            self.end = End.FAILED
        elif not seen.certain:
            self.end = End.INPUT
        return None if self.end else seen.lines_per_s

    @property
    def _spent(self) -> int:
        return sum(seen.requests for seen in self._seen.values())

    def _good(self) -> dict[Try, float]:
        return {
            tried: seen.lines_per_s
            for tried, seen in self._seen.items()
            if seen.certain and not seen.throttled and not seen.failed
        }

    def _most(self, batch_size: int) -> float:
        rates = (rate for tried, rate in self._good().items() if tried.batch_size == batch_size)
        return max(rates, default=0.0)

    @property
    def best(self) -> Try | None:
        """The fewest requests at a time that are as good as the best, with the largest batches."""
        good = self._good()
        enough = AS_GOOD * max(good.values(), default=0.0)
        return min(
            (tried for tried, rate in good.items() if rate >= enough),
            key=lambda tried: (tried.concurrency, -tried.batch_size),
            default=None,
        )

    @property
    def best_concurrency(self) -> int:
        """Requests at a time of the best so far."""
        return 0 if self.best is None else self.best.concurrency

    def verdict(self) -> Verdict:
        """What came of the search."""
        return Verdict(self.best, self.end or End.FOUND, self._spent)


def _next(concurrency: int, cap: int) -> int:
    """The next step up; the cap itself is always one."""
    step = max(concurrency + 1, -int(-concurrency * STEP // 1))
    return cap if concurrency < cap < step else step
