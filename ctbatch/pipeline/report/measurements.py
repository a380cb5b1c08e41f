"""What is measured while a run goes on, summed over its interruptions.

Each process of a run keeps its own and hands it to the ledger at its end; the report is made of
their sum. Sums stay sums, the peak stays the highest, and latencies are merged as histograms, so
that percentiles are those of one uninterrupted run.

Every second of a batch, from the moment it was read to the moment it is settled, is attributed to
exactly one kind of :class:`TimeS`, by its :class:`Stopwatch`. (Of a batch that was cancelled, what
it waited for just then is missing.)

Two latencies, because of *coordinated omission*: we send the next request when a slot comes free,
so a service that stalls for a second is asked less often during that second, and latencies per
attempt (on the wire only) show the stall once for each slot, not once for each batch that was held
up by it. They say how the service answers. Latencies per batch, from admission to settlement,
include the wait for a slot, back-offs and repetitions: they say what a batch had to go through.

What does not live here: counts of lines (the ledger has those), and reading clocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Self

import orjson

from ctbatch.pipeline.report.latencies import Latencies, LatencyMs

__all__ = [
    "Attempts",
    "LatencyMs",
    "Measurements",
    "Stopwatch",
    "Throughput",
    "TimeS",
    "is_failure",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """Requests sent. ``late_possible``: timed out, and the service may have applied them later."""

    total: int = 0
    retries: int = 0
    late_possible: int = 0
    by_result: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """How fast it went. ``slots_full``: the share, 0 to 1, of the slots open that was made use of,
    over the whole time; ``mean_limit``: how many were open on average; ``loop_cpu``: the share of
    a core that sending, apart from sealing, took.
    """

    lines_per_s: float = 0.0
    sealed_bytes: int = 0
    mean_in_flight: float = 0.0
    peak_in_flight: int = 0
    slots_full: float = 0.0
    mean_limit: float = 0.0
    loop_cpu: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeS:
    """Where the time of all batches went, in seconds; batches overlap, so the sum exceeds the
    run's.

    ``reading``: nothing was there to be taken, though there was a place for it.
    ``waiting_for_turn``: an earlier batch held one of its identities. ``waiting_for_weather``: the
    canary or an outage. ``ledger``: waits for a commit.
    """

    reading: float = 0.0
    waiting_for_sealer: float = 0.0
    sealing: float = 0.0
    waiting_for_turn: float = 0.0
    waiting_for_weather: float = 0.0
    waiting_for_slot: float = 0.0
    on_the_wire: float = 0.0
    opening: float = 0.0
    backing_off: float = 0.0
    ledger: float = 0.0


def is_failure(result: str) -> bool:
    """Whether an attempt ended in anything but an answer that something was accepted (2xx) or that
    there were too many requests (429).
    """
    return not (result.isdecimal() and result.startswith("2")) and not result.endswith("429")


class Measurements:
    """What one process of a run measured, to be summed over the run's interruptions."""

    def __init__(self) -> None:
        self._attempts = Latencies()
        self._batches = Latencies()
        self._by_result: Counter[str] = Counter()
        self.spent_s: dict[str, float] = {item.name: 0.0 for item in fields(TimeS)}
        """Seconds by kind, so far; the keys never change."""
        self._sums: Counter[str] = Counter()
        self._slots_s = self._taken_s = self._open_s = self._wanted_s = 0.0
        self._cpu_s = self._core_s = self._starved_s = 0.0
        self._peak_in_flight = 0
        self._opened_with: set[int] = set()
        self._warnings: dict[str, tuple[int, int, int]] = {}
        self._elapsed_s = 0.0

    def attempt(self, result: str, elapsed_s: float) -> None:
        """One attempt ended with ``result`` (a status, or a word such as ``timeout``)."""
        self._attempts.record(elapsed_s)
        self._by_result[result] += 1

    def batch(self, elapsed_s: float) -> None:
        """One batch was settled so long after it was first admitted."""
        self._batches.record(elapsed_s)

    def retry(self) -> None:
        """One attempt repeats an earlier one."""
        self._sums["retries"] += 1

    def late(self) -> None:
        """One attempt was given up that the service may still apply."""
        self._sums["late_possible"] += 1

    def isolated(self) -> None:
        """One batch had to be taken apart to find its culprits."""
        self._sums["isolated"] += 1

    def sealed(self, body_bytes: int) -> None:
        """One attempt sends so many sealed bytes; sent twice, they count twice."""
        self._sums["sealed_bytes"] += body_bytes

    def opened(self, key_id: int | None) -> None:
        """One reply was opened; ``None`` is a key without an id."""
        if key_id is not None:
            self._opened_with.add(key_id)

    def warned(self, text: str, source: int, line: int, lines: int = 1) -> bool:
        """A line was accepted with a warning; returns whether it is the first with this one."""
        known = self._warnings.get(text)
        count, *first = known or (0, source, line)
        place = min((first[0], first[1]), (source, line))
        self._warnings[text] = (count + lines, *place)
        return known is None

    def in_flight(self, now: int) -> None:
        """So many requests are on the wire now; the peak is kept."""
        self._peak_in_flight = max(self._peak_in_flight, now)

    def add_time(self, kind: str, seconds: float) -> None:
        """Time that one batch spent, by kind: a field of :class:`TimeS`."""
        if kind not in self.spent_s:
            raise ValueError(f"{kind!r} is not a kind of time")
        self.spent_s[kind] += seconds

    def used(
        self,
        slots_s: tuple[float, float, float],
        cpu_s: tuple[float, float, float],
        *,
        concurrency: float,
    ) -> None:
        """What the slots came to (:attr:`ctbatch.api.limiter.Slots.usage`), of which
        ``concurrency`` were asked for, and the event loop's CPU: without and with what it sealed,
        and what it had to wait for.
        """
        counted_s, taken_s, open_s = slots_s
        self._wanted_s += counted_s * concurrency
        self._slots_s += counted_s
        self._taken_s += taken_s
        self._open_s += open_s
        sending_s, used_s, waited_s = cpu_s
        self._cpu_s += sending_s
        self._core_s += used_s
        self._starved_s += waited_s

    def ran(self, seconds: float, lines: int) -> None:
        """The process worked on the run for so long, and settled so many lines."""
        self._elapsed_s += seconds
        self._sums["settled"] += lines

    @property
    def core(self) -> float:
        """The share of its core that the event loop used, sealing included."""
        return _ratio(self._core_s, self._elapsed_s, 3)

    @property
    def starved(self) -> float:
        """The share of the time for which it was ready to run and was not let."""
        return _ratio(self._starved_s, self._elapsed_s, 3)

    @property
    def concurrency(self) -> float:
        """How many slots were asked for, on average: a resume may ask for others."""
        return _ratio(self._wanted_s, self._slots_s, 2)

    @property
    def elapsed_s(self) -> float:
        """How long the run was worked on, without the pauses between interruption and resume."""
        return self._elapsed_s

    @property
    def isolated_batches(self) -> int:
        """How many batches had to be taken apart."""
        return self._sums["isolated"]

    @property
    def opened_with(self) -> tuple[int, ...]:
        """Ids of the keys that opened replies."""
        return tuple(sorted(self._opened_with))

    @property
    def warnings(self) -> list[tuple[str, int, int, int]]:
        """Warnings about lines: text, how many lines, source and number of the first; the most
        frequent first.
        """
        return sorted(
            ((text, *found) for text, found in self._warnings.items()),
            key=lambda row: (-row[1], row[0]),
        )

    def attempts(self) -> Attempts:
        """Attempts by result, the most frequent first."""
        return Attempts(
            total=self._by_result.total(),
            retries=self._sums["retries"],
            late_possible=self._sums["late_possible"],
            by_result=dict(self._by_result.most_common()),
        )

    def latency_ms(self) -> LatencyMs:
        """Percentiles over all attempts: on the wire only."""
        return self._attempts.ms()

    def batch_latency_ms(self) -> LatencyMs:
        """Percentiles over all settled batches, from admission to settlement."""
        return self._batches.ms()

    def throughput(self) -> Throughput:
        """Rates over the time the run was worked on; what a killed process did is in neither."""
        return Throughput(
            lines_per_s=_ratio(self._sums["settled"], self._elapsed_s, 1),
            sealed_bytes=self._sums["sealed_bytes"],
            mean_in_flight=_ratio(self.spent_s["on_the_wire"], self._elapsed_s, 2),
            peak_in_flight=self._peak_in_flight,
            slots_full=_ratio(self._taken_s, self._open_s, 4),
            mean_limit=_ratio(self._open_s, self._slots_s, 2),
            loop_cpu=_ratio(self._cpu_s, self._elapsed_s, 3),
        )

    def time_s(self) -> TimeS:
        """Where the time went."""
        return TimeS(**{kind: round(seconds, 3) for kind, seconds in self.spent_s.items()})

    def merge(self, other: Measurements) -> None:
        """Add what another process of the same run measured."""
        self._attempts.merge(other._attempts)
        self._batches.merge(other._batches)
        self._by_result += other._by_result
        for kind, seconds in other.spent_s.items():
            self.spent_s[kind] += seconds
        self._sums += other._sums
        slots_s = other._slots_s, other._taken_s, other._open_s
        cpu_s = other._cpu_s, other._core_s, other._starved_s
        self.used(slots_s, cpu_s, concurrency=other.concurrency)
        self._peak_in_flight = max(self._peak_in_flight, other._peak_in_flight)
        self._opened_with |= other._opened_with
        for text, count, source, line in other.warnings:
            self.warned(text, source, line, count)
        self._elapsed_s += other._elapsed_s

    def encode(self) -> bytes:
        """The measurements as bytes for the ledger."""
        return orjson.dumps(
            {
                "attempts": self._attempts.encode(),
                "batches": self._batches.encode(),
                "by_result": self._by_result,
                "spent_s": self.spent_s,
                "sums": self._sums,
                "slots_s": [self._slots_s, self._taken_s, self._open_s, self._wanted_s],
                "cpu_s": [self._cpu_s, self._core_s, self._starved_s],
                "peak_in_flight": self._peak_in_flight,
                "opened_with": sorted(self._opened_with),
                "warnings": self.warnings,
                "elapsed_s": self._elapsed_s,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of :meth:`encode`."""
        raw = orjson.loads(data)
        self = cls()
        self._attempts = Latencies.decode(raw["attempts"])
        self._batches = Latencies.decode(raw["batches"])
        self._by_result.update(raw["by_result"])
        self.spent_s.update(raw["spent_s"])
        self._sums.update(raw["sums"])
        self._slots_s, self._taken_s, self._open_s, self._wanted_s = raw["slots_s"]
        self._cpu_s, self._core_s, self._starved_s = raw["cpu_s"]
        self._peak_in_flight = raw["peak_in_flight"]
        self._opened_with.update(raw["opened_with"])
        self._warnings = {text: (n, source, line) for text, n, source, line in raw["warnings"]}
        self._elapsed_s = raw["elapsed_s"]
        return self


class Stopwatch:
    """One batch's time: each :meth:`lap` attributes what passed since the one before."""

    def __init__(self, measured: Measurements, clock: Callable[[], float]) -> None:
        self._measured = measured
        self._clock = clock
        self._since = clock()
        self._admitted: float | None = None

    def lap(self, kind: str) -> float:
        """The time since the last lap was spent on ``kind``; returns it, in seconds."""
        now = self._clock()
        passed_s, self._since = now - self._since, now
        self._measured.spent_s[kind] += passed_s
        return passed_s

    def sealed(self, work_s: float) -> None:
        """The batch was sealed, which took so long; before that, it waited for its turn there."""
        passed_s = self.lap("waiting_for_sealer")
        work_s = min(work_s, passed_s)
        self._measured.add_time("waiting_for_sealer", -work_s)
        self._measured.add_time("sealing", work_s)

    def admitted(self) -> None:
        """The batch may go on the wire; the first time counts."""
        if self._admitted is None:
            self._admitted = self._clock()

    def settled(self) -> None:
        """The batch is settled; one that was never admitted has no latency."""
        if self._admitted is not None:
            self._measured.batch(self._clock() - self._admitted)


def _ratio(part: float, whole: float, digits: int) -> float:
    return round(part / whole, digits) if whole else 0.0
