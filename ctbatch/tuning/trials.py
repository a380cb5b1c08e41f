"""One trial: a real run at one setting, bounded by lines and by time, and measured.

Invariants:

1. Its run directory is private, in the directory for temporary files (``TMPDIR``), and goes when it
   is over, however it ends short of a ``kill -9``: no copy of a refused line stays.
2. Against an account every request is a dry run; nothing is stored.
3. A run that fails for a reason of its own ends everything with that reason.
4. A trial that may make so many requests makes no more, whatever they are made for, and none after
   one that failed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

from ctbatch.errors import CtbatchError, Interrupted
from ctbatch.notices import Live, Notice, Phase
from ctbatch.pipeline import runs
from ctbatch.pipeline.report.bottleneck import Mark, Usage, bound_by
from ctbatch.pipeline.report.document import Report
from ctbatch.pipeline.report.measurements import is_failure
from ctbatch.pipeline.stopping import Stop
from ctbatch.settings import Settings
from ctbatch.tuning.figures import Figures, Setting
from ctbatch.tuning.steady import slope

__all__ = ["Trials"]

PERIOD_S = 0.01
"""Between two samples: a twentieth of the shortest round trip that matters."""

WHOLE = 5
"""A trial lasts at most so many times the seconds that are to be measured: slots are opened one
round trip after the other, which takes long where calls do."""

AGAIN_S = 0.2
"""Before a record goes out again that the service took no fault in (code 555)."""

ROUNDS = 3
"""Answers for each slot from which a rate is certain."""


class Trials:
    """Runs one trial after the other with ``base``, which each setting changes for itself."""

    def __init__(self, base: Settings) -> None:
        if not (base.emulator or base.server_dry_run):
            raise ValueError("a trial stores nothing")
        self.base = base
        self._stop: Stop | None = None
        self._interrupted: Interrupted | None = None

    def request(self, signal_number: int) -> None:
        """End the trial under way, and everything with it."""
        self._interrupted = Interrupted(signal_number)
        if self._stop is not None:
            self._stop.request(signal_number)

    async def measure(
        self, setting: Setting, *, lines: int, seconds: float, requests: int | None = None
    ) -> Figures:
        """Upload at most ``lines`` of the input, for so many seconds once all slots are open (and
        until a rate is certain, but no longer than ``WHOLE`` times as long in all); with so many
        ``requests`` at most, if that is given, and then no further than the first that fails.

        Raises:
            CtbatchError: the run could not begin or failed, or the user ended it.
        """
        self._go_on()
        stop = self._stop = Stop() if requests is None else _Allowance(requests)
        probe = _Probe(stop, setting, lines, seconds)
        backoff = None if requests is None else probe.failed_once
        directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="ctbatch-trial-"))
        cpu_s = _cpu_s()
        try:
            settings = _with(self.base, setting, lines, directory / "run")
            report = await runs.run(settings, watcher=probe, stop=stop, backoff=backoff)
        finally:
            probe.close()
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        self._go_on()
        if probe.failure is not None:
            raise probe.failure
        return _figures(setting, report, probe, _cpu_s() - cpu_s)

    def _go_on(self) -> None:
        """Unless the user asked to end."""
        if self._interrupted is not None:
            raise self._interrupted


class _Allowance(Stop):
    """The wish to end a trial, which is there by itself once so many requests went out.

    Repetitions cannot be counted in advance, nor batches that their bytes cut; but a delivery looks
    at ``draining`` right before each request.
    """

    def __init__(self, requests: int) -> None:
        self.live = Live()
        self._allowed = requests
        self._ends = self._ending = False
        super().__init__()

    @property
    def is_used_up(self) -> bool:
        """Whether no further request may be made."""
        return self.live.attempts >= self._allowed

    @property
    def draining(self) -> bool:
        """Whether the run has been asked to end, or may make no further request."""
        return self._ends or (self.is_used_up and not self._ending)

    @draining.setter
    def draining(self, value: bool) -> None:
        self._ends = value

    def fail(self, reason: CtbatchError) -> None:
        """As in any run, and also where the requests are used up."""
        self._ending = True
        super().fail(reason)


class _Probe:
    """Watches a trial from its own event loop, and asks it to end when it has seen enough."""

    def __init__(self, stop: Stop, setting: Setting, lines: int, seconds: float) -> None:
        self._stop = stop
        self._setting = setting
        self._lines = lines
        self._seconds = seconds
        self._live = Live()
        self._asked = self._open = False
        self._timer: asyncio.TimerHandle | None = None
        self._first: Mark | None = None
        self._last: Mark | None = None
        self._answers: list[int] = []
        self.failed = False
        """Whether the trial ended because an attempt failed."""
        self.samples: list[tuple[float, float]] = []
        """Seconds and lines settled, while it was at its best."""

    def watch(self, live: Live) -> None:
        """Begin."""
        self._live = live
        if isinstance(self._stop, _Allowance):
            self._stop.live = live
        self._enough_s = self._until_s = asyncio.get_running_loop().time() + WHOLE * self._seconds
        self._tick()

    def tell(self, notice: Notice) -> None:
        """Notices of a trial are nobody's business; what ends it is in its stop."""

    def failed_once(self, tries: int, retry_after: str | None) -> float:
        """The run asks how long to pause before another attempt: there is none where one failed.
        (Otherwise the answer was that a record is to be sent again.)
        """
        if not (self._live.failed or self._live.throttled):
            return AGAIN_S
        self.failed = True
        self._end()
        return 0.0

    def close(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def requests(self) -> int:
        """Requests that went out so far, answered or not."""
        return self._live.attempts

    @property
    def throttled(self) -> int:
        """429s so far."""
        return self._live.throttled

    @property
    def failure(self) -> CtbatchError | None:
        """Why the run ended, if not because it was asked to here."""
        return None if self._asked else self._stop.reason

    @property
    def certain(self) -> bool:
        """Whether enough was seen of all slots at work."""
        if not self._answers:
            return False
        return self._answers[-1] - self._answers[0] >= ROUNDS * self._setting.concurrency

    @property
    def usage(self) -> Usage | None:
        """What was used while it was at its best."""
        if self._first is None or self._last is None:
            return None
        return self._last.since(self._first)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._sample(now)
        if now >= self._until_s or (now >= self._enough_s and self.certain):
            self._end()
        if self._stop.reason is None:
            self._timer = loop.call_later(PERIOD_S, self._tick)

    def _end(self) -> None:
        if self._stop.reason is None:
            self._asked = True
            self._stop.request(signal.SIGINT)

    @property
    def _all_sent(self) -> bool:
        """Whether nothing is left to be sent for the first time."""
        live = self._live
        if isinstance(self._stop, _Allowance) and self._stop.is_used_up:
            return True
        return live.lines_read >= self._lines or live.bytes_read == live.bytes_total

    def _sample(self, now: float) -> None:
        """Take note of the counter while all slots are open (or as many as the service takes) and
        there is work for them.
        """
        live = self._live
        if live.phase is not Phase.UPLOADING:
            return
        if not self._open and (live.limit >= self._setting.concurrency or live.throttled):
            self._open = True
            self._enough_s = now + self._seconds
        emptying = self._all_sent and live.in_progress < self._setting.concurrency
        if self._open and not emptying:
            self.samples.append((now, live.settled))
            self._answers.append(live.attempts - live.in_flight - live.retries)
            self._last = Mark.of(now, live)
            self._first = self._first or self._last


def _with(base: Settings, setting: Setting, lines: int, run_dir: Path) -> Settings:
    return replace(
        base,
        batching=replace(base.batching, batch_size=setting.batch_size),
        delivery=replace(base.delivery, concurrency=setting.concurrency, workers=setting.workers),
        limit=lines,
        run_dir=run_dir,
    )


def _figures(setting: Setting, report: Report, probe: _Probe, cpu_s: float) -> Figures:
    settled = report.lines.total - report.lines.unsent
    elapsed_s = report.elapsed_s
    rate = slope(probe.samples) if probe.certain else None
    if rate is None:
        rate = report.throughput.lines_per_s if probe.requests else 0.0
    latency, batches = report.latency_ms, report.batch_latency_ms
    in_flight, bottleneck = report.throughput.mean_in_flight, None
    if (usage := probe.usage) is not None:
        bottleneck = bound_by(usage, short_s=0.0)
        in_flight = usage.slots_full * usage.mean_limit or in_flight
    return Figures(
        setting=setting,
        lines_per_s=rate,
        certain=probe.certain,
        lines=settled,
        requests=probe.requests,
        throttled=probe.throttled,
        elapsed_s=elapsed_s,
        cpu=cpu_s / elapsed_s if elapsed_s else 0.0,
        in_flight=in_flight,
        p50_ms=latency.p50,
        p99_ms=latency.p99,
        batch_p99_ms=batches.p99,
        cause=None if bottleneck is None else bottleneck.cause,
        results=report.attempts.by_result,
        failed=probe.failed or any(map(is_failure, report.attempts.by_result)),
    )


def _cpu_s() -> float:
    """CPU seconds of this process and of the sealing workers that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
