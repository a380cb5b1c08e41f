"""What is measured while a run goes on, summed over its interruptions.

Each process of a run keeps its own and hands it to the ledger at its end; the report is made of
their sum. Sums stay sums, the peak stays the highest, and latencies are merged as histograms, so
that percentiles are those of one uninterrupted run.

What does not live here: counts of lines (the ledger has those), and reading clocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Self

import orjson
from hdrh.histogram import HdrHistogram

__all__ = ["Attempts", "LatencyMs", "Measurements", "Throughput", "TimeS"]

_MAX_LATENCY_US = 4_000_000_000
"""An attempt lasts at most ``--timeout``, which is at most 3600 s; the rest is slack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """Requests sent. ``late_possible``: timed out, and the service may have applied them later."""

    total: int = 0
    retries: int = 0
    late_possible: int = 0
    by_result: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyMs:
    """How long attempts took, in milliseconds; ``None`` where nothing was sent."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """How fast it went."""

    lines_per_s: float = 0.0
    sealed_bytes: int = 0
    mean_in_flight: float = 0.0
    peak_in_flight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeS:
    """Where the time of all batches went, in seconds; batches overlap, so the sum exceeds the
    run's.
    """

    reading: float = 0.0
    sealing: float = 0.0
    waiting_for_slot: float = 0.0
    on_the_wire: float = 0.0
    backing_off: float = 0.0


_TIME_KINDS = frozenset(item.name for item in fields(TimeS))


class Measurements:
    """What one process of a run measured, to be summed over the run's interruptions.

    Latencies are kept in microseconds to three digits; the maximum is exact.
    """

    def __init__(self) -> None:
        self._latency = HdrHistogram(1, _MAX_LATENCY_US, 3)
        self._max_us = 0
        self._by_result: Counter[str] = Counter()
        self._time_s: Counter[str] = Counter()
        self._sums: Counter[str] = Counter()
        self._peak_in_flight = 0
        self._opened_with: set[int] = set()
        self._warnings: dict[str, tuple[int, int, int]] = {}
        self._elapsed_s = 0.0

    def attempt(self, result: str, elapsed_s: float) -> None:
        """One attempt ended with ``result`` (a status, or a word such as ``timeout``)."""
        took_us = min(max(round(elapsed_s * 1e6), 1), _MAX_LATENCY_US)
        self._latency.record_value(took_us)
        self._max_us = max(self._max_us, took_us)
        self._by_result[result] += 1

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
        """One batch was sealed into so many bytes."""
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
        if kind not in _TIME_KINDS:
            raise ValueError(f"{kind!r} is not a kind of time")
        self._time_s[kind] += seconds  # type: ignore[assignment]  # a Counter adds floats as well

    def ran(self, seconds: float) -> None:
        """The process worked on the run for so long."""
        self._elapsed_s += seconds

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
        """Percentiles over all attempts."""
        if not self._max_us:
            return LatencyMs()
        p50, p90, p99 = (
            min(self._latency.get_value_at_percentile(percent), self._max_us) / 1000
            for percent in (50, 90, 99)
        )
        return LatencyMs(p50=p50, p90=p90, p99=p99, max=self._max_us / 1000)

    def throughput(self, settled_lines: int) -> Throughput:
        """Rates over the time the run was worked on."""
        elapsed_s = self._elapsed_s
        return Throughput(
            lines_per_s=round(settled_lines / elapsed_s, 1) if elapsed_s else 0.0,
            sealed_bytes=self._sums["sealed_bytes"],
            mean_in_flight=round(self._time_s["on_the_wire"] / elapsed_s, 2) if elapsed_s else 0.0,
            peak_in_flight=self._peak_in_flight,
        )

    def time_s(self) -> TimeS:
        """Where the time went."""
        return TimeS(**{kind: round(self._time_s[kind], 3) for kind in _TIME_KINDS})

    def merge(self, other: Measurements) -> None:
        """Add what another process of the same run measured."""
        self._latency.add(other._latency)
        self._max_us = max(self._max_us, other._max_us)
        self._by_result += other._by_result
        self._time_s += other._time_s
        self._sums += other._sums
        self._peak_in_flight = max(self._peak_in_flight, other._peak_in_flight)
        self._opened_with |= other._opened_with
        for text, count, source, line in other.warnings:
            self.warned(text, source, line, count)
        self._elapsed_s += other._elapsed_s

    def encode(self) -> bytes:
        """The measurements as bytes for the ledger."""
        return orjson.dumps(
            {
                "latency": self._latency.encode().decode("ascii"),
                "max_us": self._max_us,
                "by_result": self._by_result,
                "time_s": self._time_s,
                "sums": self._sums,
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
        self._latency.decode_and_add(raw["latency"].encode("ascii"))
        self._max_us = raw["max_us"]
        self._by_result.update(raw["by_result"])
        self._time_s.update(raw["time_s"])
        self._sums.update(raw["sums"])
        self._peak_in_flight = raw["peak_in_flight"]
        self._opened_with.update(raw["opened_with"])
        self._warnings = {text: (n, source, line) for text, n, source, line in raw["warnings"]}
        self._elapsed_s = raw["elapsed_s"]
        return self
