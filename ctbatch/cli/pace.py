"""How fast a run is and how long it will take, from samples of its tally. Pure.

The rate is smoothed with a time constant, not a number of samples, so that it reads the same
whether it is sampled eight times a second or every five seconds.
"""

from __future__ import annotations

import math
from collections import deque

from ctbatch.cli.wording import count, duration, shares
from ctbatch.notices import Live, Phase
from ctbatch.pipeline.report.bottleneck import SHORT_S, Mark, bound_by

__all__ = ["PHASES", "Pace", "describe", "expected_lines", "share_done"]

TIME_CONSTANT_S = 10.0
"""How long the past counts: long enough to hide single batches, short enough to show a change."""

PHASES = {
    Phase.CANARY: "trying one batch",
    Phase.UPLOADING: "uploading",
    Phase.OUTAGE: "waiting for the service",
    Phase.DRAINING: "stopping",
    Phase.DONE: "done",
}


class Pace:
    """Smoothed rates of settled lines and of bytes read, the time left, and where the time of the
    last seconds went.
    """

    def __init__(self) -> None:
        self.lines_per_s = 0.0
        self._bytes_per_s = 0.0
        self._began: tuple[float, int, int] | None = None
        self._last: tuple[float, int, int] | None = None
        self._marks: deque[Mark] = deque()

    def sample(self, now_s: float, live: Live) -> None:
        """Take note of where the run stands."""
        self._marks.append(Mark.of(now_s, live))
        while self._marks[0].now_s < now_s - TIME_CONSTANT_S and len(self._marks) > 2:
            self._marks.popleft()
        point = (now_s, live.settled, live.bytes_read)
        last, self._last = self._last, point
        if last is None:
            self._began = point
            return
        assert self._began is not None
        step_s = now_s - last[0]
        if step_s <= 0:
            return
        # At the start the average so far: a filter that starts from zero would read too low.
        weight = max(1 - math.exp(-step_s / TIME_CONSTANT_S), step_s / (now_s - self._began[0]))
        self.lines_per_s += weight * ((point[1] - last[1]) / step_s - self.lines_per_s)
        self._bytes_per_s += weight * ((point[2] - last[2]) / step_s - self._bytes_per_s)

    def account(self, live: Live) -> list[str]:
        """Where the time of batches went in the last seconds, and what the run is bound by."""
        if len(self._marks) < 2:
            return []
        usage = self._marks[-1].since(self._marks[0])
        bottleneck = bound_by(usage) if usage.elapsed_s >= SHORT_S else None
        if bottleneck is None:
            return []
        return [bottleneck.text, *shares(usage.spent_s)]

    def left_s(self, live: Live) -> float | None:
        """Seconds to the end: what is to be read, then what is read and not settled; ``None``
        where nobody can know.
        """
        if live.bytes_total is None or live.phase in {Phase.OUTAGE, Phase.DRAINING}:
            return None
        seen = _lines_seen(live)
        unread, unsettled = float(live.bytes_total - live.bytes_read), seen - live.settled
        if (whole := _lines_in_all(live)) and live.most_lines is not None:
            unread *= max(0.0, min(whole, live.most_lines) - seen) / max(whole - seen, 1.0)
        if self.lines_per_s < 0.01 or (unread > 0 and self._bytes_per_s < 0.01):
            return None
        reading_s = unread / self._bytes_per_s if unread > 0 else 0.0
        return reading_s + unsettled / self.lines_per_s


def share_done(live: Live) -> float | None:
    """The share of the input that is settled, 0 to 1, where the size of the input is known."""
    whole = _lines_in_all(live)
    if not whole:
        return None
    if live.most_lines is not None:
        whole = min(whole, live.most_lines)
    return min(1.0, live.settled / whole)


def expected_lines(live: Live) -> str | None:
    """How many lines there will be: counted once all is read, estimated from bytes before."""
    if live.bytes_total is None or not live.bytes_read:
        return None
    if live.bytes_read >= live.bytes_total:
        return count(_lines_seen(live))
    whole = _lines_in_all(live)
    if whole is not None and live.most_lines is not None and whole >= live.most_lines:
        return count(live.most_lines)
    return f"about {_two_digits(whole or 0.0)}"


def describe(live: Live, pace: Pace) -> list[str]:
    """The facts worth a glance, the most wanted first."""
    total = expected_lines(live)
    done = f"{count(live.settled)} of {total} lines" if total else f"{count(live.settled)} lines"
    share = share_done(live)
    if share is not None:
        done += f" ({math.floor(100 * share)} %)"
    facts = [PHASES[live.phase], done, f"{count(pace.lines_per_s)} lines/s"]
    facts.append(f"{live.in_flight} in flight")
    facts.append(f"{count(live.unprocessed + live.invalid)} refused")
    if live.unknown:
        facts.append(f"{count(live.unknown)} unknown")
    if live.retries:
        facts.append(f"{count(live.retries)} retries")
    left_s = pace.left_s(live)
    if left_s is not None and live.phase is not Phase.DONE:
        facts.append(f"{duration(left_s)} left")
    return facts


def _lines_in_all(live: Live) -> float | None:
    """How many lines the inputs seem to have, whatever ``most_lines`` is."""
    if live.bytes_total is None:
        return None
    lines = _lines_seen(live)
    return lines * live.bytes_total / live.bytes_read if live.bytes_read else float(lines)


def _lines_seen(live: Live) -> int:
    """Lines read, or settled by an earlier process of the run."""
    return max(live.lines_read, live.settled)


def _two_digits(number: float) -> str:
    """An estimate does not pretend to know more than two digits."""
    if number < 100:
        return count(number)
    step = 10 ** (int(math.log10(number)) - 1)
    return count(round(number / step) * step)
