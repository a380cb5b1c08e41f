"""What is tried, and what came of it: plain values for everything else in this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ctbatch.pipeline.report.bottleneck import Cause
from ctbatch.pipeline.report.measurements import is_failure

__all__ = ["Figures", "Setting", "rank", "shown"]


@dataclass(frozen=True, slots=True)
class Setting:
    """Requests at a time, records in each, processes that seal (``None``: as a run finds out)."""

    concurrency: int
    batch_size: int
    workers: int | None = 0

    @property
    def options(self) -> str:
        """As options of ``ctbatch run``."""
        return (
            f"--concurrency {self.concurrency} --batch-size {self.batch_size}"
            f" --workers {shown(self.workers)}"
        )


def shown(workers: int | None) -> str:
    """A number of workers as the option has it."""
    return "auto" if workers is None else str(workers)


def rank(workers: int | None) -> tuple[bool, int]:
    """Numbers of workers in rising order, what a run finds out by itself after them."""
    return workers is None, workers or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one trial came to.

    ``lines_per_s``: settled while all slots were open (see :mod:`~ctbatch.tuning.steady`);
    ``certain``: over at least three rounds of them. Latencies are in milliseconds: ``p50_ms`` and
    ``p99_ms`` of attempts, ``batch_p99_ms`` of batches from admission to settlement. We send the
    next request when a slot comes free, so only the latter shows what a stall costs
    (:mod:`ctbatch.pipeline.report.measurements`). ``cpu``: the share of one core that all our
    processes took; ``in_flight``: slots in use on average, and ``cause``: what it was bound by,
    both over the same time as the rate. ``results``: requests by what came of them; ``failed``:
    one of them had no answer that could be used.
    """

    setting: Setting
    lines_per_s: float
    certain: bool
    lines: int
    requests: int
    throttled: int
    elapsed_s: float
    cpu: float
    in_flight: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    batch_p99_ms: float | None = None
    cause: Cause | None = None
    results: Mapping[str, int] = field(default_factory=dict)
    failed: bool = False

    @property
    def throttled_share(self) -> float:
        """The share of the requests that were answered 429."""
        return self.throttled / self.requests if self.requests else 0.0

    @property
    def failures(self) -> dict[str, int]:
        """The requests that had no answer that could be used, by what came of them."""
        return {result: n for result, n in self.results.items() if is_failure(result)}
