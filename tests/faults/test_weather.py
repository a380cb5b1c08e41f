"""Bad weather between us and the service: everything arrives, nothing unsafe arrives twice."""

from __future__ import annotations

import json
import random
import sqlite3
import ssl
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from ctbatch.emulator.state import Config
from ctbatch.pipeline.report.document import RunState
from ctbatch.settings import OnAmbiguous
from tests.faults.world import (
    WEATHER,
    Record,
    World,
    check,
    counter,
    event,
    is_unsafe,
    number_of,
    profile,
    world,
)
from tests.proxy import FaultProxy, Kind, weather

FULL = [pytest.mark.slow, pytest.mark.timeout(300)]
"""The sizes of the issue; what runs by default is the same, smaller."""


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A server's context for the loopback, and its CA."""
    authority = trustme.CA()
    ca_file = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context, ca_file


def _all_kinds_played(proxy: FaultProxy) -> bool:
    return set(proxy.played) == set(Kind)


# -- everything arrives ---------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("count", [8_000, pytest.param(40_000, marks=FULL)])
async def test_all_profiles_arrive_in_any_weather(
    count: int, secure: bool, tmp_path: Path, tls: tuple[ssl.SSLContext, Path]
) -> None:
    """Every kind of fault, one request in five: all records are processed, none is unknown."""
    async with world(
        tmp_path,
        [profile(number) for number in range(count)],
        script=weather(7, 0.2),
        tls=tls if secure else None,
        timeout_s=0.3,
    ) as here:
        report = await here.run()
        check(here, report)
        assert report.state is RunState.COMPLETE
        assert report.lines.processed == count
        if count == 40_000:
            assert _all_kinds_played(here.proxy)


@pytest.mark.parametrize("kind", WEATHER)
async def test_all_profiles_arrive_in_weather_of_one_kind(kind: Kind, tmp_path: Path) -> None:
    """Each kind of fault by itself, one request in three."""
    async with world(
        tmp_path,
        [profile(number) for number in range(240)],
        script=weather(3, 0.33, kinds=[kind], seconds=0.01),
        batch_size=10,
        timeout_s=0.2,
    ) as here:
        report = await here.run()
        check(here, report)
        assert here.proxy.played[kind] > 0
        assert report.lines.processed == 240


# -- nothing twice --------------------------------------------------------------------------------


def _mixture(count: int) -> list[Record]:
    rng = random.Random(11)
    return [rng.choice((profile, counter, event))(number) for number in range(count)]


@pytest.mark.parametrize("count", [1_500, pytest.param(6_000, marks=FULL)])
@pytest.mark.parametrize(
    "faults",
    [("reset-stored=0.2",), ("500-stored=0.1", "reset=0.1", "555=0.05"), ("hang=0.1",)],
    ids=["reset", "500", "hang"],
)
async def test_nothing_unsafe_is_applied_twice(
    faults: tuple[str, ...], count: int, tmp_path: Path
) -> None:
    """The answer is lost after storing: profiles that set values go again, what counts does not
    and is listed unless it is certain.
    """
    async with world(
        tmp_path,
        _mixture(count),
        batch_size=25,
        timeout_s=0.3,
        emulator=Config(faults=faults, seed=1),
    ) as here:
        report = await here.run()
        check(here, report)
        unknown = set(here.listed("unknown"))
        assert unknown
        assert all(is_unsafe(here.records[number]) for number in unknown)


async def test_on_request_nothing_that_may_have_arrived_goes_again(tmp_path: Path) -> None:
    """``--on-ambiguous hold``: each record is stored at most once, and what is not certain is
    listed.
    """
    async with world(
        tmp_path,
        [profile(number) for number in range(600)],
        batch_size=25,
        on_ambiguous=OnAmbiguous.HOLD,
        emulator=Config(faults=("reset-stored=0.3",), seed=1),
    ) as here:
        report = await here.run()
        check(here, report)
        assert report.lines.unknown > 0
        assert max(here.stored().values()) == 1


async def test_on_request_everything_goes_again(tmp_path: Path) -> None:
    """``--on-ambiguous resend``: nothing is unknown, and every event is stored."""
    async with world(
        tmp_path,
        [event(number) for number in range(600)],
        batch_size=25,
        on_ambiguous=OnAmbiguous.RESEND,
        emulator=Config(faults=("reset-stored=0.3",), seed=1),
    ) as here:
        report = await here.run()
        assert report.lines.processed == len(here.stored()) == 600


# -- what is refused for one record ---------------------------------------------------------------


def _poisoned(number: int) -> Record:
    record = profile(number)
    record["profileData"]["poison"] = 1
    return record


@pytest.mark.parametrize("place", [0, 57, 120])
async def test_a_poisoned_record_is_found_wherever_it_stands(place: int, tmp_path: Path) -> None:
    """In the first batch, in the middle, and alone in the last one, when nothing else is left that
    could be accepted.
    """
    records = [profile(number) for number in range(121)]
    records[place] = _poisoned(place)
    poison = Config(faults=("poison",))
    async with world(tmp_path, records, batch_size=20, concurrency=2, emulator=poison) as here:
        report = await here.run()
        check(here, report)
        assert report.state is RunState.COMPLETE
        assert here.listed("rejected") == [place]


async def test_a_service_that_refuses_all_the_rest_blames_none_of_it(tmp_path: Path) -> None:
    """Encryption switched off before the last batches, of one record each. (One of them may have
    been refused before the good one was accepted: for that one there is evidence.)
    """
    records = [profile(0), *(_poisoned(number) for number in range(1, 6))]
    poison = Config(faults=("poison",))
    async with world(tmp_path, records, batch_size=1, concurrency=1, emulator=poison) as here:
        report = await here.run()
        assert report.state is RunState.REFUSED
        assert report.lines.processed == 1
        assert report.lines.unprocessed <= 1
        assert report.lines.unsent == 5 - report.lines.unprocessed


# -- the order of one user's updates --------------------------------------------------------------


def _updates(count: int, users: int) -> list[Record]:
    rng = random.Random(13)
    return [profile(number, rng.randrange(users)) for number in range(count)]


def _assert_last_is_right(here: World) -> None:
    """Whatever was repeated, the last update of each user is the one that stands."""
    assert here.last() == {record["identity"]: number_of(record) for record in here.records}


@pytest.mark.parametrize(
    ("count", "users"), [(1_500, 400), pytest.param(30_000, 4_000, marks=FULL)]
)
@pytest.mark.parametrize(
    "faults",
    [
        ("500-stored=0.1", "reset-stored=0.1", "reset=0.05"),
        ("400=0.02", "truncated=0.05", "number-missing=0.5", "555=0.02"),
    ],
    ids=["lost", "partial"],
)
async def test_the_last_update_of_each_user_stands(
    faults: tuple[str, ...], count: int, users: int, tmp_path: Path
) -> None:
    """Batches take random times and are repeated, in part or in halves: no update overtakes."""
    async with world(
        tmp_path,
        _updates(count, users),
        batch_size=30,
        emulator=Config(jitter_s=0.01, faults=faults, transient_times=2),
    ) as here:
        report = await here.run()
        check(here, report)
        assert report.lines.processed == count
        _assert_last_is_right(here)


async def test_what_is_applied_late_does_not_overtake(tmp_path: Path) -> None:
    """Answers that come, and updates that are applied, after the time-out: later batches of the
    same users wait for another time-out before they go.
    """
    slow = Config(jitter_s=0.18)
    async with world(
        tmp_path, _updates(300, 40), batch_size=30, timeout_s=0.15, emulator=slow
    ) as here:
        report = await here.run()
        check(here, report)
        assert report.attempts.late_possible > 0
        _assert_last_is_right(here)


# -- for long -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_million_lines_in_bad_weather(tmp_path: Path) -> None:
    """Nothing is lost, nothing is unknown, and our memory does not grow with the file."""
    count = 1_000_000
    kept = tmp_path / "kept.sqlite"
    async with world(
        tmp_path,
        [profile(number) for number in range(count)],
        script=weather(5, 0.1),
        batch_size=1000,
        timeout_s=2,
        # It keeps what it accepted in a file, so that a million records need not fit in memory.
        emulator=Config(state_file=kept, forget=True),
    ) as here:
        report = await here.run()
        report.check_balance()
        assert report.state is RunState.COMPLETE
        assert report.lines.processed == count
    arrived = bytearray(count)
    with closing(sqlite3.connect(kept)) as database:
        for (body,) in database.execute("SELECT body FROM accepted"):
            for record in json.loads(body)["d"]:
                arrived[number_of(record)] = 1
    assert sum(arrived) == count
