"""How long things took, as a histogram that can be merged over the interruptions of a run.

HDR: microseconds to three digits from 1 us to over an hour in a fixed amount of memory, so that ten
million requests cost what ten do, and percentiles of a sum of runs are those of one long run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from hdrh.histogram import HdrHistogram

__all__ = ["Latencies", "LatencyMs"]

_MAX_US = 4_000_000_000
"""An attempt lasts at most ``--timeout``, which is at most 3600 s; the rest is slack. A batch may
take longer, by back-offs: it is counted as this."""

FRESH = 100
"""Durations that are put into the histogram together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyMs:
    """How long something took, in milliseconds; ``None`` where there was nothing."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None


class Latencies:
    """A histogram of durations; the maximum is exact."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, _MAX_US, 3)
        self._fresh: list[int] = []
        """Not in the histogram yet: many in a row cost a fraction of one now and then."""
        self._max_us = 0

    def record(self, seconds: float) -> None:
        """One more took so long."""
        took_us = min(max(round(seconds * 1e6), 1), _MAX_US)
        self._max_us = max(self._max_us, took_us)
        self._fresh.append(took_us)
        if len(self._fresh) >= FRESH:
            self._whole()

    def _whole(self) -> HdrHistogram:
        """The histogram with all that was recorded."""
        for took_us in self._fresh:
            self._histogram.record_value(took_us)
        self._fresh.clear()
        return self._histogram

    def ms(self) -> LatencyMs:
        """Percentiles over all."""
        if not self._max_us:
            return LatencyMs()
        p50, p90, p99 = (
            min(self._whole().get_value_at_percentile(percent), self._max_us) / 1000
            for percent in (50, 90, 99)
        )
        return LatencyMs(p50=p50, p90=p90, p99=p99, max=self._max_us / 1000)

    def merge(self, other: Latencies) -> None:
        """Add what another process measured."""
        self._histogram.add(other._whole())
        self._max_us = max(self._max_us, other._max_us)

    def encode(self) -> dict[str, Any]:
        """The histogram as a JSON value."""
        return {"histogram": self._whole().encode().decode("ascii"), "max_us": self._max_us}

    @classmethod
    def decode(cls, value: dict[str, Any]) -> Self:
        """The inverse of :meth:`encode`."""
        self = cls()
        self._histogram.decode_and_add(value["histogram"].encode("ascii"))
        self._max_us = value["max_us"]
        return self
