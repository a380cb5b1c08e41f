"""One batch until the service has answered, one request at a time while it is down, and an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ctbatch.errors import CtbatchError, ServiceRefused, ServiceUnavailable
from ctbatch.notices import Phase
from ctbatch.pipeline.breaker import Breaker, Turnstile


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Weather:
    """A breaker and its turnstile on a fake clock; the pause after failure *n* is *n* seconds."""

    def __init__(
        self, give_up_after_s: float = 900, *, sealed: bool = True, concurrency: int = 15
    ) -> None:
        self.clock = Clock()
        self.breaker = Breaker(self.clock, float, give_up_after_s=give_up_after_s, sealed=sealed)
        self.turnstile = Turnstile(self.breaker, self.clock, concurrency)

    def allowed(self, seq: int, *, safe: bool = True, records: int = 10) -> int:
        """How many records of batch ``seq`` may go out now."""
        return self.turnstile.allowed(seq, safe=safe, records=records)

    def enter(self, seq: int, *, safe: bool = True, records: int = 10) -> bool:
        """Whether batch ``seq`` gets through."""
        return self.turnstile.enter(seq, safe=safe, records=records)

    def begin(self) -> Weather:
        """The canary was believed."""
        assert self.enter(0)
        self.breaker.believed()
        self.turnstile.leave(0)
        return self

    def down(self) -> Weather:
        """The service went down in mid-run."""
        self.begin()
        for _ in range(3):
            assert self.breaker.failed("500") is None
        return self

    def wait_out(self) -> None:
        """Let the next probe become due."""
        self.clock.now = self.breaker.next_probe_at


# -- the canary -----------------------------------------------------------------------------------


def test_only_one_batch_goes_until_a_reply_is_believed() -> None:
    """Whoever enters first is the canary, through all its attempts; then the way is free."""
    weather = Weather()
    assert weather.allowed(0) == weather.allowed(5) == 10
    assert weather.enter(5)
    assert not weather.enter(0)
    assert weather.turnstile.is_canary(5)
    assert not weather.turnstile.is_canary(0)
    weather.turnstile.exit(5)
    assert (weather.allowed(0), weather.allowed(5)) == (0, 10)
    weather.breaker.believed()
    assert weather.allowed(0) == 10
    assert not weather.turnstile.is_canary(5)
    assert weather.breaker.phase is Phase.UPLOADING


def test_a_canary_that_ends_without_belief_is_followed_by_another() -> None:
    """All its records may be unknown; the next batch is as alone as it was."""
    weather = Weather()
    assert weather.enter(0)
    weather.turnstile.leave(0)
    assert weather.enter(1)
    assert weather.allowed(2) == 0


def test_a_reservation_holds_the_place_of_the_canary() -> None:
    """Nobody else prepares for a passage that only one can have."""
    weather = Weather()
    assert weather.turnstile.reserve(3, safe=True, records=10) == 10
    assert weather.turnstile.reserve(4, safe=True, records=10) == 0
    assert weather.turnstile.is_canary(3)


def test_a_resume_does_not_begin_with_a_batch_that_may_not_count_twice() -> None:
    """The outage that ended the run may go on, and each resume would cost another batch."""
    weather = Weather()
    weather.breaker.resumed = True
    assert (weather.allowed(0, safe=False), weather.allowed(0)) == (1, 10)
    assert weather.enter(0, safe=False, records=1)
    assert not weather.enter(1)
    weather.breaker.believed()
    weather.turnstile.exit(0)
    assert weather.allowed(0, safe=False) == 10


def test_an_outage_from_the_start_does_not_burn_the_file() -> None:
    """Canaries with unsafe records end unknown one after the other: from the third failure on they
    are cut to one record, spaced by back-off.
    """
    weather = Weather()
    for seq in range(3):
        assert weather.allowed(seq, safe=False) == 10
        assert weather.enter(seq, safe=False)
        assert weather.breaker.failed("500") is None
        weather.turnstile.leave(seq)
    assert weather.breaker.phase is Phase.CANARY
    assert weather.allowed(3, safe=False) == 0
    weather.wait_out()
    assert weather.allowed(3, safe=False) == 1
    assert weather.enter(3, safe=False, records=1)
    assert weather.turnstile.is_canary(3)
    weather.breaker.failed("500")
    weather.turnstile.exit(3)
    assert weather.allowed(3, safe=False) == 0


async def test_an_unsafe_canary_does_not_wait_for_those_that_wait_for_it() -> None:
    """In an outage safe batches go first, but not in the place of the canary."""
    weather = Weather()
    assert weather.enter(0, safe=False)
    async with _waiting(weather, 1):
        for _ in range(3):
            weather.breaker.failed("500")
        weather.turnstile.exit(0)
        weather.wait_out()
        assert weather.allowed(0, safe=False) == 1


# -- an outage ------------------------------------------------------------------------------------


def test_three_failures_with_nothing_believed_between_are_an_outage() -> None:
    """Two are a coincidence, and a believed reply starts the count anew."""
    weather = Weather().begin()
    for _ in range(4):
        weather.breaker.failed("500")
        weather.breaker.failed("reset")
        assert not weather.breaker.in_outage
        weather.breaker.believed()
    for _ in range(3):
        weather.breaker.failed("500")
    assert weather.breaker.in_outage
    assert weather.breaker.phase is Phase.OUTAGE


def test_in_an_outage_one_request_goes_at_a_time_spaced_by_back_off() -> None:
    """Nobody goes before it is due, and nobody beside it."""
    weather = Weather().down()
    assert weather.allowed(1) == 0
    weather.wait_out()
    assert weather.enter(1)
    assert (weather.allowed(1), weather.allowed(2)) == (10, 0)
    weather.breaker.failed("500")
    weather.turnstile.exit(1)
    assert weather.breaker.next_probe_at == weather.clock.now + 2
    assert weather.allowed(2) == 0
    weather.wait_out()
    assert weather.allowed(2) == 10


def test_a_batch_with_unsafe_records_is_cut_for_a_probe() -> None:
    """To one record, and only if it comes as one is it let in."""
    weather = Weather().down()
    weather.wait_out()
    assert weather.allowed(1, safe=False) == 1
    assert not weather.enter(1, safe=False)
    assert weather.enter(1, safe=False, records=1)


@pytest.mark.parametrize("concurrency", [1, 2, 5, 15])
def test_an_outage_costs_no_more_unsafe_batches_than_go_at_a_time(concurrency: int) -> None:
    """Whoever enters between the first failure and the third is counted too."""
    weather = Weather(concurrency=concurrency).begin()
    exposed: list[int] = []
    inside: list[int] = []
    for seq in range(1, 50):
        if len(inside) == concurrency or not weather.enter(seq, safe=False):
            if not inside:
                break
            lost = inside.pop(0)
            weather.breaker.failed("500")
            weather.turnstile.exit(lost)
            continue
        exposed.append(seq)
        inside.append(seq)
    assert len(exposed) == concurrency
    weather.wait_out()
    assert weather.allowed(99, safe=False) == 1
    assert weather.allowed(99) == 10


def test_after_a_failure_the_last_place_waits_for_those_on_the_wire() -> None:
    """One of them may be believed: then nothing has to be cut."""
    weather = Weather(concurrency=3).begin()
    for seq in (1, 2, 3):
        assert weather.enter(seq, safe=False)
    weather.breaker.failed("500")
    weather.turnstile.exit(1)
    weather.wait_out()
    assert weather.allowed(4, safe=False) == 0
    assert weather.allowed(4) == 10
    weather.breaker.believed()
    weather.turnstile.exit(2)
    assert weather.allowed(4, safe=False) == 10


def test_those_that_fail_together_cost_one_short_pause() -> None:
    """Fifteen were on the wire when a blip came: that is no longer outage than one."""
    weather = Weather().begin()
    for _ in range(15):
        weather.breaker.failed("500")
    assert weather.breaker.next_probe_at == weather.clock.now + 1
    weather.wait_out()
    assert weather.enter(1)
    weather.breaker.failed("500")
    weather.breaker.failed("a straggler from before")
    weather.turnstile.exit(1)
    assert weather.breaker.next_probe_at == weather.clock.now + 2


def test_stragglers_do_not_put_off_the_probe() -> None:
    """What went out before the outage and fails in it says nothing new."""
    weather = Weather().down()
    due = weather.breaker.next_probe_at
    weather.clock.now += 0.5
    weather.breaker.failed("a straggler from before")
    assert weather.breaker.next_probe_at == due


@pytest.mark.parametrize("answers", [1, 5])
def test_a_probe_that_neither_fails_nor_is_believed_spaces_the_next(answers: int) -> None:
    """A 429 without Retry-After must not become a busy loop."""
    weather = Weather().down()
    for _ in range(answers):
        weather.wait_out()
        assert weather.enter(1)
        weather.turnstile.exit(1)
        assert weather.breaker.next_probe_at > weather.clock.now
        assert weather.allowed(1) == 0


def test_the_first_believed_reply_ends_the_outage() -> None:
    """Everybody may go again, and nothing is held against the service."""
    weather = Weather().down()
    weather.wait_out()
    assert weather.enter(1)
    weather.breaker.believed()
    weather.turnstile.exit(1)
    assert weather.breaker.phase is Phase.UPLOADING
    assert weather.allowed(2, safe=False) == 10


async def test_whoever_is_refused_at_the_slot_gives_his_claim_back() -> None:
    """A safe batch came between reservation and slot: that one may probe."""
    weather = Weather().down()
    weather.wait_out()
    assert weather.turnstile.reserve(1, safe=False, records=10) == 1
    async with _waiting(weather, 2) as tasks:
        assert weather.allowed(2) == 0
        assert not weather.enter(1, safe=False, records=1)
        assert weather.allowed(2) == 10
        await asyncio.wait_for(tasks[0], 5)


def test_pauses_never_outlast_the_patience() -> None:
    """The last probe of a run comes at its end, not after it."""
    weather = Weather(give_up_after_s=5)
    weather.begin()
    weather.breaker.reached()
    for _ in range(3):
        weather.breaker.failed("500")
    for _ in range(9):
        weather.breaker.probed()
    assert weather.breaker.next_probe_at == weather.clock.now + 5


# -- waiting --------------------------------------------------------------------------------------


async def _turns_of_the_loop() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def _waiting(
    weather: Weather, *seqs: int, safe: bool = True
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Batches that wait at the turnstile."""

    def wait(seq: int) -> Coroutine[Any, Any, None]:
        return weather.turnstile.wait(seq, safe=safe, records=10)

    tasks = [asyncio.create_task(wait(seq)) for seq in seqs]
    await _turns_of_the_loop()
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_those_who_wait_go_when_the_canary_is_believed() -> None:
    """All at once, none forgotten."""
    weather = Weather()
    assert weather.enter(0)
    async with _waiting(weather, 1, 2, 3) as tasks:
        assert not any(task.done() for task in tasks)
        weather.breaker.believed()
        weather.turnstile.exit(0)
        await asyncio.gather(*tasks)
    await weather.turnstile.wait(4, safe=True, records=10)


async def test_those_who_wait_look_again_when_the_canary_leaves() -> None:
    """Nothing was believed: one of them is the next canary."""
    weather = Weather()
    assert weather.enter(0)
    async with _waiting(weather, 1) as tasks:
        weather.turnstile.leave(0)
        await tasks[0]
        assert weather.enter(1)


async def test_a_replay_safe_batch_goes_first() -> None:
    """As long as one waits, no other is cut for the probe."""
    weather = Weather().down()
    async with _waiting(weather, 1) as tasks:
        weather.wait_out()
        assert weather.allowed(2, safe=False) == 0
        assert weather.allowed(3) == 10
        weather.turnstile.changed()
        await tasks[0]
        assert weather.allowed(2, safe=False) == 1


async def test_whoever_waited_behind_a_safe_batch_goes_though_that_does_not() -> None:
    """It may wait for a permit that they hold: nobody else would wake them."""
    weather = Weather().down()
    async with _waiting(weather, 1, safe=False) as tasks, _waiting(weather, 2) as safe:
        weather.wait_out()
        weather.turnstile.changed()
        await safe[0]
        await asyncio.wait_for(tasks[0], 5)


async def test_an_unsafe_batch_that_waits_holds_up_nobody() -> None:
    """They are all worth a record."""
    weather = Weather().down()
    async with _waiting(weather, 1, safe=False):
        weather.wait_out()
        assert weather.allowed(2, safe=False) == 1


async def test_whoever_is_cancelled_waits_no_more() -> None:
    """A cancelled safe batch does not hold up the others for ever."""
    weather = Weather().down()
    async with _waiting(weather, 1):
        pass
    weather.wait_out()
    assert weather.allowed(2, safe=False) == 1


async def test_a_probe_goes_when_it_is_due_though_nothing_happens() -> None:
    """Nobody has to wake the waiter; a millisecond is left on the clock."""
    weather = Weather().down()
    weather.clock.now = weather.breaker.next_probe_at - 0.001
    async with _waiting(weather, 1) as tasks:
        weather.wait_out()
        await asyncio.wait_for(tasks[0], 5)


# -- the end --------------------------------------------------------------------------------------


def _trying(weather: Weather, seconds: float, fail: Callable[[], object]) -> object:
    """Fail once, and again after so many seconds."""
    weather.breaker.trying()
    assert fail() is None
    weather.clock.now += seconds
    return fail()


def test_an_address_where_nobody_answers_is_given_up_soon() -> None:
    """30 seconds, for a typo in it; --give-up-after if that is less."""
    weather = Weather()
    assert _trying(weather, 29.9, lambda: weather.breaker.failed("dns")) is None
    weather.clock.now += 0.2
    error = weather.breaker.failed("dns")
    assert isinstance(error, ServiceUnavailable)
    assert (round(error.waited_s), error.last) == (30, "dns")
    hasty = Weather(give_up_after_s=10)
    assert _trying(hasty, 10, lambda: hasty.breaker.failed("dns")) is not None


def test_a_service_that_was_reached_has_the_whole_patience() -> None:
    """A first request that times out after a minute is not a typo."""
    weather = Weather()
    weather.breaker.reached()
    assert _trying(weather, 899, lambda: weather.breaker.failed("timeout")) is None
    weather.clock.now += 1
    assert isinstance(weather.breaker.waited("429"), ServiceUnavailable)


def test_the_patience_counts_from_the_last_belief() -> None:
    """And from the first request after it: idle time does not count."""
    weather = Weather()
    weather.breaker.reached()
    _trying(weather, 800, lambda: weather.breaker.failed("500"))
    weather.breaker.believed()
    weather.clock.now += 5000
    assert _trying(weather, 800, lambda: weather.breaker.waited("429")) is None
    weather.breaker.idle()
    weather.clock.now += 5000
    assert weather.breaker.waited("429") is None


def test_three_answers_that_do_not_open_mean_wrong_keys() -> None:
    """Other failures between them say nothing of the keys."""
    weather = Weather()
    assert weather.breaker.unopened("unopened") is None
    assert weather.breaker.unopened("unopened") is None
    assert weather.breaker.failed("500") is None
    error = weather.breaker.unopened("unopened")
    assert isinstance(error, ServiceRefused)
    assert "--client-key" in str(error)


def test_once_one_did_open_it_takes_six_in_a_row() -> None:
    """A believed one between them shows that ours is right."""
    weather = Weather().begin()
    for _ in range(2):
        weather.breaker.believed()
        assert [weather.breaker.unopened("unopened") for _ in range(5)] == [None] * 5
    error = weather.breaker.unopened("unopened")
    assert isinstance(error, ServiceRefused)
    assert str(error).startswith("6 answers in a row")


@pytest.mark.parametrize(("single", "bound"), [(False, 3), (True, 8)])
def test_refusals_in_a_row_speak_against_the_service(single: bool, bound: int) -> None:
    """Three batches or eight single records, with nothing accepted between."""
    weather = Weather()

    def refuse(times: int) -> list[CtbatchError | None]:
        return [weather.breaker.refused("no", single=single) for _ in range(times)]

    assert refuse(bound - 1) == [None] * (bound - 1)
    weather.breaker.believed()
    assert refuse(bound - 1) == [None] * (bound - 1)
    weather.breaker.refused("no", single=not single)
    [error] = refuse(1)
    assert isinstance(error, ServiceRefused)


def test_a_record_is_presumed_guilty_once_and_only_after_others_were_accepted() -> None:
    """For the last line of a file; a second one without an accepted request between is not."""
    weather = Weather()
    assert not weather.breaker.presume()
    weather.begin()
    for _ in range(8):
        weather.breaker.refused("no", single=True)
    assert weather.breaker.presume()
    assert weather.breaker.refused("no", single=True) is None
    assert not weather.breaker.presume()


@pytest.mark.parametrize(("lines", "budget"), [(0, 200), (10_000, 200), (10_001, 400)])
def test_isolation_has_a_budget(lines: int, budget: int) -> None:
    """200 requests for each 10,000 lines begun; ordinary requests cost nothing of it."""
    weather = Weather(sealed=False)
    for _ in range(budget):
        weather.breaker.trying(isolating=True)
        weather.breaker.trying()
    assert weather.breaker.overspent("no", lines=lines) is None
    weather.breaker.trying(isolating=True)
    error = weather.breaker.overspent("no", lines=lines)
    assert isinstance(error, ServiceRefused)
    assert "the same mistake" in error.causes[0]
    assert "enforcement" in error.causes[1]
