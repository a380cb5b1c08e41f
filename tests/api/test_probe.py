"""A check against a service that runs: each step sees what is there, and nothing is changed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from ctbatch.api.findings import Status, Step
from ctbatch.api.probe import EVENT_NAME, skew_of
from ctbatch.crypto.keyset import generate
from ctbatch.emulator.server import Emulator
from ctbatch.emulator.state import Accepted, Config, Journal
from tests.api.checking import (
    PASSCODE,
    account_of,
    findings,
    findings_at,
    keys_of,
    step,
    written,
    wrong,
)
from tests.api.raw_server import RawServer, Talk


async def test_a_service_in_order_is_found_in_order_and_left_as_it_was() -> None:
    """Every step is well; three requests were made, all of which only read, and one was sealed."""
    async with Emulator() as emulator:
        told = await findings(emulator)
        assert emulator.records() == []
        asked = [(call["method"], call["path"], call["sealed"]) for call in emulator.requests()]
    assert wrong(told) == {}
    assert list(dict.fromkeys(finding.step for finding in told)) == list(Step)[1:]
    assert asked == [
        ("GET", "/1/profile.json", False),
        ("GET", "/1/profile.json", True),
        ("POST", "/1/events.json", True),
    ]


async def test_a_query_that_is_taken_is_a_round_trip_too(tmp_path: Path) -> None:
    """Where the event is known the answer is a cursor; a look-up of nobody may be a 404."""
    # No upload can bring this event: it is the SDKs'. So it is there from the start.
    journal = Journal(tmp_path / "state")
    await journal.load()
    record = {"type": "event", "identity": "u", "evtName": EVENT_NAME, "evtData": {}}
    await journal.add(Accepted(1, 0, orjson.dumps({"d": [record]})))
    await journal.aclose()
    config = Config(state_file=tmp_path / "state", missing_profile_status=404)
    async with Emulator(config) as emulator:
        told = await findings(emulator)
        assert len(emulator.records()) == 1
    assert wrong(told) == {}
    assert step(told, Step.ROUND_TRIP).text.endswith("came back and opened")


@pytest.mark.parametrize("seal_errors", [False, True])
@pytest.mark.parametrize("status", [400, 401, 403, 415, 500])
async def test_an_account_without_encryption_is_told_to_ask_for_it(
    status: int, seal_errors: bool
) -> None:
    """Whatever the unpublished status is, and in whatever form it comes."""
    config = Config(feature=False, encryption_status=status, seal_errors=seal_errors)
    async with Emulator(config) as emulator:
        told = await findings(emulator)
    assert wrong(told) == {Step.ENCRYPTION: Status.REMOTE, Step.ROUND_TRIP: Status.REMOTE}
    assert "Customer Success Manager" in step(told, Step.ENCRYPTION).remedies[0]
    assert step(told, Step.ENCRYPTION).facts["feature"] == "off"


async def test_enforcement_is_well_and_pointed_out() -> None:
    """Refused plaintext is no fault."""
    async with Emulator(Config(enforce=True)) as emulator:
        told = await findings(emulator)
    assert wrong(told) == {}
    assert "enforcement mode" in step(told, Step.ENCRYPTION).text


async def test_a_wrong_passcode_is_tried_twice_and_never_shown() -> None:
    """Two 401s are enough; nothing sealed is sent after them."""
    async with Emulator() as emulator:
        account = replace(account_of(emulator), passcode=PASSCODE)
        told = await findings(emulator, account=account)
        assert len(emulator.requests()) == 2
    found = step(told, Step.CREDENTIALS)
    assert found.status is Status.REMOTE
    assert "it names the passcode" in found.remedies[0]
    assert step(told, Step.ROUND_TRIP).status is Status.SKIPPED
    assert PASSCODE.reveal() not in repr(told)


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_an_old_server_key_is_told_from_encryption_switched_off(
    tmp_path: Path, status: int
) -> None:
    """The sealed look-up has worked, so it is the key of the other direction."""
    other = await asyncio.to_thread(written, tmp_path / "server.json", generate().public())
    async with Emulator(Config(encryption_status=status)) as emulator:
        told = await findings(emulator, keys=replace(keys_of(emulator), server=other))
    assert wrong(told) == {Step.ROUND_TRIP: Status.REMOTE}
    assert "--server-key" in step(told, Step.ROUND_TRIP).remedies[0]


async def test_a_private_key_that_is_not_the_accounts_is_named(tmp_path: Path) -> None:
    """The service took the query, and its answer is for somebody else."""
    other = await asyncio.to_thread(written, tmp_path / "private.json", generate())
    async with Emulator() as emulator:
        told = await findings(emulator, keys=replace(keys_of(emulator), client=other))
    assert wrong(told) == {Step.ROUND_TRIP: Status.REMOTE}
    found = step(told, Step.ROUND_TRIP)
    assert "which is not in the keyset" in found.text
    assert "--client-key" in found.remedies[0]


async def test_a_wrong_context_breaks_both_directions_and_comes_first() -> None:
    """One cause is likelier than two."""
    async with Emulator() as emulator:
        told = await findings(emulator, keys=replace(keys_of(emulator), info="another"))
    assert wrong(told) == {Step.ROUND_TRIP: Status.REMOTE}
    assert "HPKE context" in step(told, Step.ROUND_TRIP).remedies[0]


async def test_without_keys_the_state_of_encryption_can_be_told() -> None:
    """A sealed reply is a sign, whether or not it can be opened."""
    async with Emulator() as emulator:
        told = await findings(emulator, keys=None)
    assert set(wrong(told)) == {Step.KEYS, Step.PERMISSIONS, Step.ROUND_TRIP}
    assert step(told, Step.ENCRYPTION).status is Status.OK
    assert "it takes both keys" in step(told, Step.ROUND_TRIP).text


async def test_busy_is_not_refused() -> None:
    """What cannot be told is not guessed."""
    async with Emulator(Config(max_concurrent_others=0)) as emulator:
        told = await findings(emulator)
    for name in (Step.CREDENTIALS, Step.ENCRYPTION, Step.ROUND_TRIP):
        assert "try again" in step(told, name).remedies[0]


async def test_a_request_without_an_answer_is_for_the_service_to_mend() -> None:
    """It went out whole; what it would have said about account and keys is not guessed."""
    async with Emulator(Config(outage="reset")) as emulator:
        told = await findings(emulator)
    assert step(told, Step.CLOCK).status is Status.SKIPPED
    assert step(told, Step.CREDENTIALS).status is Status.REMOTE
    assert "try again" in step(told, Step.CREDENTIALS).remedies[0]
    assert step(told, Step.ROUND_TRIP).status is Status.SKIPPED


async def test_a_redirect_is_a_wrong_address() -> None:
    """A login page in the service's place."""
    async with Emulator(Config(faults=("redirect=after-1",))) as emulator:
        told = await findings(emulator)
    assert step(told, Step.CLOCK).status is Status.OK
    found = step(told, Step.CREDENTIALS)
    assert found.status is Status.LOCAL
    assert "region or the base URL is wrong" in found.remedies[0]


async def test_a_stale_connection_is_no_finding() -> None:
    """A server may close what it kept alive; a request that only reads is made once more."""
    keep = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

    async def closes_on_the_second(talk: Talk) -> None:
        await talk.request()
        await talk.send(keep)
        await talk.request()
        talk.reset()

    async with RawServer(closes_on_the_second) as server:
        told = await findings_at(server.url)
        assert len(server.requests) == 3
    assert step(told, Step.CREDENTIALS).status is Status.OK


@pytest.mark.parametrize(("ahead_s", "status"), [(0, Status.OK), (-600, Status.LOCAL)])
async def test_the_services_date_shows_a_wrong_clock(ahead_s: float, status: Status) -> None:
    """Every answer brings the time along."""
    async with Emulator() as emulator:
        told = await findings(emulator, clock=lambda: time.time() + ahead_s)
    found = step(told, Step.CLOCK)
    assert found.status is status
    assert found.facts["skew_s"] == pytest.approx(-ahead_s, abs=2)


@pytest.mark.parametrize(
    ("date", "skew_s"),
    [
        ("Thu, 01 Jan 1970 00:01:40 GMT", 0.5),
        ("Thu, 01 Jan 1970 00:02:40 -0000", 60.5),
        (None, None),
        ("yesterday", None),
        ("Thu, 01 Jan 99999999999 00:00:00 GMT", None),
    ],
)
def test_a_date_that_cannot_be_read_is_none(date: str | None, skew_s: float | None) -> None:
    """A header is the other side's to write."""
    assert skew_of(date, 100.0) == skew_s
