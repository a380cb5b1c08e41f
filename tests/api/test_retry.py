"""Pauses are jittered and bounded, Retry-After is obeyed within reason, and nothing surprises."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctbatch.api.limiter import Controller, Slots
from ctbatch.api.retry import (
    CAP_S,
    RetryBudget,
    backoff_s,
    full_jitter_s,
    parse_retry_after,
    retrying,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("tries", "longest_s"), [(0, 0.5), (1, 0.5), (2, 1), (4, 4), (8, 60), (5000, 60)]
)
def test_the_longest_pause_doubles_up_to_a_minute(tries: int, longest_s: float) -> None:
    """Full jitter: anything from nothing to a bound that doubles with each try."""
    rng = random.Random(1)
    pauses = [full_jitter_s(tries, rng) for _ in range(1000)]
    assert 0 <= min(pauses) < longest_s * 0.05
    assert longest_s * 0.95 < max(pauses) <= longest_s


def test_a_seeded_source_gives_the_same_pauses() -> None:
    """Randomness is injected, so that a run can be replayed."""
    assert [full_jitter_s(n, random.Random(7)) for n in range(9)] == [
        full_jitter_s(n, random.Random(7)) for n in range(9)
    ]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 12 ", 12),
        ("600", 600),
        ("86400", 600),
        ("9" * 5000, 600),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30),
        ("Sunday, 01-Mar-26 12:00:30 GMT", 30),
        ("Sun Mar  1 12:00:30 2026", 30),
        ("Sun, 01 Mar 2026 12:00:30 -0000", 30),
        ("Sun, 01 Mar 2026 13:00:30 +0100", 30),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Mon, 01 Mar 2027 12:00:00 GMT", 600),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("Sun, 99 Mar 2026 12:00:30 GMT", None),
        ("Sun, 01 Mar 2026 12:00:30 +" + "9" * 20, None),
        ("Sun, 01 Mar 2026 12:00:30 GMT" + " " * 99 + "x", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    """Both forms of the header, bounded to ten minutes; what is neither is ignored."""
    assert parse_retry_after(value, NOW) == seconds


@settings(max_examples=200)
@given(st.text(max_size=70) | st.from_regex(r"\A\w{3}, \d+ \w{3} \d+ [\d:]+ [\w+-]+\Z"))
@example("Sun, 01 Mar 0000 12:00:30 GMT")
def test_no_header_breaks_the_parser(value: str) -> None:
    """Whatever a gateway sends is a bounded wait or nothing."""
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= 600


def test_the_longer_of_jitter_and_retry_after_counts() -> None:
    """Retry-After lengthens a pause and never shortens it."""
    for tries in range(1, 12):
        jitter = full_jitter_s(tries, random.Random(tries))
        for value, asked in (("10", 10.0), ("nonsense", 0.0), (None, 0.0)):
            assert backoff_s(tries, value, random.Random(tries)) == max(jitter, asked)


def test_the_time_of_a_retry_date_is_taken_from_the_clock_given() -> None:
    """A date is compared with the injected time of day."""
    pause = backoff_s(1, "Sun, 01 Mar 2026 12:05:00 GMT", random.Random(1), now=lambda: NOW)
    assert pause == 300


def test_a_budget_lets_a_burst_through_and_then_one_a_second() -> None:
    """An outage is not hammered: after the savings are spent, retries come one by one."""
    budget = RetryBudget(per_success=0.2, floor_per_s=1.0, burst=3)
    assert [budget.spend(0.0) for _ in range(6)] == [0, 0, 0, 1, 2, 3]


def test_successes_pay_for_retries() -> None:
    """Five successes are worth a retry; savings are bounded."""
    budget = RetryBudget(per_success=0.2, floor_per_s=1.0, burst=3)
    for _ in range(1000):
        budget.succeeded()
    assert [budget.spend(0.0) for _ in range(4)] == [0, 0, 0, 1]
    for _ in range(10):
        budget.succeeded()
    assert budget.spend(0.0) == 0


def test_time_pays_for_retries() -> None:
    """One retry a second is free, and a clock that goes back earns nothing."""
    budget = RetryBudget(per_success=0.2, floor_per_s=1.0, burst=2)
    assert [budget.spend(10.0), budget.spend(10.0), budget.spend(10.0)] == [0, 0, 1]
    assert budget.spend(12.0) == 0
    assert budget.spend(5.0) == 1
    assert repr(budget) == "<RetryBudget: -1.0 of 2>"


def test_a_budget_never_asks_for_more_than_a_minute() -> None:
    """However many retries went before, one is made within the longest pause."""
    budget = RetryBudget()
    assert max(budget.spend(0.0) for _ in range(1000)) == CAP_S
    assert budget.spend(CAP_S + 2) == 0


@dataclass
class Answer:
    """What an attempt returned."""

    status: int
    retry_after: str | None = None


class Service:
    """Answers from a list, one attempt in a slot each; knows how long it was left alone."""

    def __init__(self, *script: Answer | BaseException) -> None:
        self.slots = Slots(Controller(1))
        self.pauses: list[float] = []
        self.held_while_asleep = 0
        self._script = list(script)

    async def attempt(self) -> Answer:
        async with self.slots.take():
            answer = self._script.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.held_while_asleep += self.slots.in_flight
        await asyncio.sleep(0)

    async def call(self, *, tries: int | None = None) -> Answer:
        repeated = retrying(
            lambda answer: answer.status != 200,
            pause=lambda tries, retry_after: tries + float(retry_after or 0) * 100,
            sleep=self.sleep,
            tries=tries,
        )
        answer: Answer = await repeated(self.attempt)
        return answer


async def test_an_attempt_is_repeated_until_its_result_is_good() -> None:
    """Pauses grow with the attempts made, and Retry-After of the last answer is handed on."""
    service = Service(Answer(429), Answer(503, "4"), Answer(429), Answer(200))
    assert await service.call() == Answer(200)
    assert service.pauses == [1, 402, 3]


async def test_no_pause_holds_a_slot() -> None:
    """Back-off happens outside of the attempt and so outside of its slot."""
    service = Service(*[Answer(429)] * 5, Answer(200))
    await service.call()
    assert service.held_while_asleep == 0
    assert len(service.pauses) == 5


async def test_the_last_result_is_returned_when_the_tries_are_used_up() -> None:
    """The bound on tries is no error of its own: the caller gets what came last."""
    service = Service(Answer(429), Answer(503), Answer(200))
    assert await service.call(tries=2) == Answer(503)
    assert service.pauses == [1]


@pytest.mark.parametrize("error", [ValueError("x"), asyncio.CancelledError()])
async def test_an_exception_ends_it_as_it_was_raised(error: BaseException) -> None:
    """Only results are repeated; nothing is wrapped."""
    service = Service(Answer(429), error)
    with pytest.raises(type(error)) as caught:
        await service.call()
    assert caught.value is error


async def test_cancelling_a_pause_ends_it() -> None:
    """Cancellation is not swallowed, wherever it strikes."""
    asleep = asyncio.Event()

    async def sleep(_: float) -> None:
        asleep.set()
        await asyncio.get_running_loop().create_future()

    service = Service(Answer(429))
    repeated = retrying(lambda _: True, pause=lambda *_: 1.0, sleep=sleep)
    task: asyncio.Future[Answer] = asyncio.ensure_future(repeated(service.attempt))
    await asleep.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
