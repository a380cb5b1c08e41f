"""How long to pause before another attempt, and how to repeat one: tenacity with our numbers.

Invariants:

1. A pause is the longer of full jitter and what the service asked for (Retry-After), in [0, 600] s.
2. Nothing is given up here: a spent :class:`RetryBudget` makes retries later, never fewer, since
   no batch may be dropped. When to stop is the caller's decision.
3. Nothing here reads a clock or a random source of its own, except for the default of ``now``.

What deserves a retry is not decided here (:mod:`ctbatch.api.wire`), and no slot is known here: the
attempt that is repeated takes its own and gives it back before it returns, so no pause holds one.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt, stop_never

__all__ = [
    "BASE_S",
    "CAP_S",
    "MAX_RETRY_AFTER_S",
    "Attempted",
    "RetryBudget",
    "backoff_s",
    "full_jitter_s",
    "parse_retry_after",
    "retrying",
]

BASE_S = 0.5
"""The upper end of the first pause: a call may take one or more seconds (vendor's FAQ), so a slot
of the shared account comes free about this often."""

CAP_S = 60.0
"""The upper end of any jittered pause; after 8 tries. The vendor's uploader pauses 5 s for ever."""

MAX_RETRY_AFTER_S = 600.0
"""The vendor's former advice after a 429 was 10 minutes; a longer one is a mistake of a clock."""

_MAX_HEADER = 64
"""An HTTP date has 29 characters, in its obsolete forms up to 33 (RFC 9110, section 5.6.7)."""

RETRIES_PER_SUCCESS = 0.2
"""Finagle's RetryBudget and Envoy's retry_budget both default to a fifth."""

RETRY_FLOOR_PER_S = 1.0
"""Retries that are always allowed, so that the end of an outage is noticed."""

RETRY_BURST = 30.0
"""Retries that may be saved up: two for each of the 15 slots of an account."""


def full_jitter_s(tries: int, rng: random.Random) -> float:
    """A pause after ``tries`` attempts (1…): uniform from 0 to 0.5 s, 1 s, 2 s, … 60 s.

    Full jitter spreads retries best of the usual forms (AWS Architecture Blog, "Exponential
    Backoff And Jitter", 2015).
    """
    # The exponent is bounded before 2**n is: 1100 tries would not fit in a float.
    return rng.uniform(0.0, min(CAP_S, BASE_S * 2.0 ** min(max(tries, 1) - 1, 16)))


def parse_retry_after(value: str, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header, in [0, 600]; ``None`` if it cannot be understood.

    ``value`` is a number of seconds or an HTTP date (RFC 9110, section 10.2.3); ``now`` is aware.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        # Not int(): it refuses more than 4300 digits.
        return min(float(value), MAX_RETRY_AFTER_S)
    if len(value) > _MAX_HEADER:
        return None
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:  # "-0000": UTC without saying so (RFC 5322, section 3.3)
        date = date.replace(tzinfo=UTC)
    return min(max((date - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def backoff_s(
    tries: int,
    retry_after: str | None,
    rng: random.Random,
    *,
    now: Callable[[], datetime] = _utc_now,
) -> float:
    """The pause after ``tries`` attempts (1…): the longer of full jitter and ``retry_after``."""
    jitter = full_jitter_s(tries, rng)
    asked = None if retry_after is None else parse_retry_after(retry_after, now())
    return jitter if asked is None else max(jitter, asked)


class RetryBudget:
    """Keeps retries in proportion to successes: a token bucket, in seconds of the caller's clock.

    Each success pays in a fifth of a retry, and one a second is free. A retry that finds the bucket
    empty is told when its token will be there; successes meanwhile make later ones wait less.
    """

    def __init__(
        self,
        *,
        per_success: float = RETRIES_PER_SUCCESS,
        floor_per_s: float = RETRY_FLOOR_PER_S,
        burst: float = RETRY_BURST,
    ) -> None:
        self._per_success = per_success
        self._floor_per_s = floor_per_s
        self._burst = burst
        self._tokens = burst
        self._since: float | None = None

    def succeeded(self) -> None:
        """An attempt succeeded."""
        self._tokens = min(self._burst, self._tokens + self._per_success)

    def spend(self, now: float) -> float:
        """Spend one retry; returns the seconds, at most 60, after which it may be made."""
        if self._since is not None:
            earned = max(0.0, now - self._since) * self._floor_per_s
            self._tokens = min(self._burst, self._tokens + earned)
        self._since = now
        # The debt is bounded with the pause, so that no retry pays for those long ago.
        self._tokens = max(self._tokens - 1.0, -CAP_S * self._floor_per_s)
        return max(0.0, -self._tokens / self._floor_per_s)

    def __repr__(self) -> str:
        return f"<RetryBudget: {self._tokens:.1f} of {self._burst:g}>"


class Attempted(Protocol):
    """What an attempt that may be repeated returns."""

    @property
    def retry_after(self) -> str | None:
        """The value of the Retry-After header, if there was one."""
        ...


def retrying(
    again: Callable[[Any], bool],
    *,
    pause: Callable[[int, str | None], float],
    sleep: Callable[[float], Awaitable[None]],
    tries: int | None = None,
) -> AsyncRetrying:
    """Repeat an async function while ``again`` says so of its result (an :class:`Attempted`).

    ``pause`` maps the attempts made and a Retry-After to seconds, as :func:`backoff_s` does. After
    ``tries`` attempts (``None``: no bound) the last result is returned, whatever it is. An
    exception, cancellation included, ends it at once and arrives as it was raised. Make one for
    each call: tenacity keeps the state of a call in it.
    """

    def wait(state: RetryCallState) -> float:
        result: Attempted = _last_result(state)
        return pause(state.attempt_number, result.retry_after)

    return AsyncRetrying(
        sleep=sleep,
        retry=retry_if_result(again),
        wait=wait,
        stop=stop_never if tries is None else stop_after_attempt(tries),
        retry_error_callback=_last_result,
    )


def _last_result(state: RetryCallState) -> Any:
    """What the last attempt returned; only asked of attempts that did not raise."""
    assert state.outcome is not None
    return state.outcome.result()
