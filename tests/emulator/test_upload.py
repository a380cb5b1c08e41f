"""Uploads are answered as documented: sealed or plain, in part or whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from ctbatch.api.wire import HPKE_MEDIA_TYPE
from ctbatch.emulator.server import Emulator
from ctbatch.emulator.state import Config
from tests.emulator.speaking import customer_of, emulated, profile

JSON = "application/json"


async def test_a_sealed_upload_is_stored_and_answered_sealed() -> None:
    """The documented example: success, one processed, nothing unprocessed."""
    async with emulated() as (emulator, customer):
        assert await customer.upload(profile(Name="Test Name")) == (
            200,
            {"status": "success", "processed": 1, "unprocessed": []},
        )
        assert emulator.records() == [
            {"n": 1, "request": 1, "stored": 1, "record": profile(Name="Test Name")}
        ]
        assert emulator.stats()["totals"]["processed"] == 1
        (call,) = emulator.requests()
        assert call["sealed"]
        assert call["records"] == 1


async def test_the_good_records_of_a_call_are_stored() -> None:
    """Partial and fail are answered 200, with the record's number and an altered echo."""
    async with emulated() as (emulator, customer):
        bad = profile("u2", Email="$$$$$")
        status, answer = await customer.upload(profile(), bad)
        assert status == 200
        assert answer == {
            "status": "partial",
            "processed": 1,
            "unprocessed": [
                {
                    "status": "fail",
                    "code": 515,
                    "error": "Profile data is incorrect. Email is not valid."
                    "Skipped record number : 2",
                    "record": bad,
                }
            ],
        }
        _, answer = await customer.upload(bad)
        assert (answer["status"], answer["processed"]) == ("fail", 0)
        assert [row["record"]["identity"] for row in emulator.records()] == ["u1"]


async def test_a_dry_run_stores_nothing() -> None:
    """``dryRun=1`` answers as usual; ``dryRun=0`` stores."""
    async with emulated() as (emulator, customer):
        _, answer = await customer.upload(profile(), query="?dryRun=1")
        assert answer["processed"] == 1
        assert emulator.records() == []
        await customer.upload(profile(), query="?dryRun=0")
        assert len(emulator.records()) == 1


async def test_a_record_stored_twice_says_so() -> None:
    """Tests count on it to prove what a retry did."""
    async with emulated() as (emulator, customer):
        await customer.upload(profile(), profile("u2"))
        await customer.upload(profile())
        assert [row["stored"] for row in emulator.records()] == [2, 1, 2]


async def test_forgetting_keeps_counts_only() -> None:
    """For benchmarks: nothing is kept, everything is counted."""
    async with emulated(forget=True) as (emulator, customer):
        await customer.upload(profile())
        assert emulator.records() == []
        assert emulator.stats()["totals"]["processed"] == 1


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_call_takes_one_to_a_thousand_records(count: int) -> None:
    """More, or none, is a 400 for the whole call."""
    async with emulated() as (emulator, customer):
        status, answer = await customer.upload(*[profile()] * count)
        assert (status, answer["code"]) == (400, 400)
        assert (await customer.upload(*[profile()] * 1000))[1]["processed"] == 1000
        assert emulator.stats()["totals"]["processed"] == 1000


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"d":{}}', b'{"d":[1] /* no */}'])
async def test_a_body_that_cannot_be_read_is_malformed(body: bytes) -> None:
    """In the words a client has logged."""
    async with emulated() as (_, customer):
        status, answer, _ = await customer.send("POST", "/1/upload", body)
        assert status == 400
        assert json.loads(answer)["error"] == "Malformed request"


@pytest.mark.parametrize(
    ("headers", "feature", "encrypted", "good"),
    [
        (True, True, True, True),
        (True, True, False, False),
        (True, False, True, False),
        (True, False, False, False),
        (False, True, True, False),
        (False, False, True, False),
        (False, True, False, True),
        (False, False, False, True),
    ],
)
async def test_the_vendors_table(headers: bool, feature: bool, encrypted: bool, good: bool) -> None:
    """Headers, feature and encryption have to agree; plain JSON works by default."""
    async with emulated(feature=feature) as (emulator, customer):
        body = json.dumps({"d": [profile()]}).encode()
        media = HPKE_MEDIA_TYPE if headers else JSON
        status, answer, given = await customer.send(
            "POST",
            "/1/upload",
            customer.sealing.seal(body) if encrypted else body,
            {"Content-Type": media, "Accept": media},
        )
        assert (status == 200) is good
        assert len(emulator.records()) == good
        assert (given["Content-Type"] == HPKE_MEDIA_TYPE) is (good and headers)
        assert good or json.loads(answer)["status"] == "fail"


@pytest.mark.parametrize(("kind", "accept"), [(HPKE_MEDIA_TYPE, JSON), (JSON, HPKE_MEDIA_TYPE)])
async def test_one_header_is_not_encryption(kind: str, accept: str) -> None:
    """A sealed body with one of the two headers is not opened."""
    async with emulated() as (_, customer):
        body = customer.sealing.seal(b'{"d":[]}')
        headers = {"Content-Type": kind, "Accept": accept}
        assert (await customer.send("POST", "/1/upload", body, headers))[0] == 400


async def test_plaintext_can_be_refused() -> None:
    """Enforcement mode takes sealed requests only; it can be switched while running."""
    async with emulated(enforce=True) as (emulator, customer):
        assert (await customer.plain(profile()))[0] == 400
        emulator.configure(encryption_status=403)
        assert (await customer.plain(profile()))[0] == 403
        assert (await customer.upload(profile()))[0] == 200
        emulator.configure(enforce=False)
        assert (await customer.plain(profile()))[0] == 200
        assert (await customer.send("POST", "/1/upload", b"x", {"Content-Type": "text/csv"}))[
            0
        ] == 415


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("X-CleverTap-Account-Id", "", "12 digit account ID mandatory"),
        ("X-CleverTap-Account-Id", "AAA-BBB-CCCC", "Account ID is not valid"),
        ("X-CleverTap-Passcode", "", "Passcode Invalid"),
    ],
)
async def test_credentials_are_checked(name: str, value: str, text: str) -> None:
    """401 in recorded words, in the clear, and nothing is stored."""
    async with emulated() as (emulator, customer):
        customer.credentials[name] = value
        status, answer = await customer.upload(profile())
        assert (status, answer) == (401, {"status": "fail", "error": text, "code": 401})
        assert emulator.records() == []


async def test_errors_can_be_sealed() -> None:
    """Whether the service seals its errors is not known, so both can be had."""
    async with emulated(seal_errors=True, max_concurrent=0) as (_, customer):
        body = customer.sealing.seal(b"{}")
        headers = {"Content-Type": HPKE_MEDIA_TYPE, "Accept": HPKE_MEDIA_TYPE}
        status, answer, given = await customer.send("POST", "/1/upload", body, headers)
        assert (status, given["Content-Type"]) == (429, HPKE_MEDIA_TYPE)
        assert b"Too many" in customer.opening.open(answer).plaintext


async def test_uploads_beyond_the_cap_are_turned_away() -> None:
    """The 16th call at a time gets a 429; the cap can change while running."""
    gate, arrivals = asyncio.Event(), asyncio.Semaphore(0)

    async def wait(_: float) -> object:
        arrivals.release()
        return await gate.wait()

    async with (
        Emulator(Config(latency_s=1), sleep=wait) as emulator,
        customer_of(emulator) as customer,
        asyncio.TaskGroup() as tasks,
    ):
        calls = [tasks.create_task(customer.upload(profile())) for _ in range(15)]
        for _ in calls:
            await arrivals.acquire()
        status, answer = await customer.upload(profile())
        assert (status, answer["error"]) == (429, "Too many concurrent requests")
        gate.set()
        assert [(await call)[0] for call in calls] == [200] * 15
        assert emulator.stats()["by_status"] == {"429": 1, "200": 15}
        assert emulator.stats()["uploads"] == {"inside": 0, "peak": 15, "turned_away": 1}
        emulator.configure(max_concurrent=0, retry_after="date+5")
        headers = (await customer.send("POST", "/1/upload", b"{}"))[2]
        assert headers["Retry-After"].endswith("GMT")


async def test_a_body_over_the_limit_is_413() -> None:
    """With a length given and without one."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 20

    async with emulated(max_body_bytes=10) as (emulator, customer):
        assert (await customer.send("POST", "/1/upload", b"x" * 11))[0] == 413
        async with customer.session.post(
            f"{emulator.base_url}/1/upload", data=chunks(), headers=customer.credentials
        ) as response:
            assert response.status == 413


async def test_other_paths_and_methods() -> None:
    """405 for a wrong method, 404 outside the API, an echo for any other endpoint."""
    async with emulated() as (_, customer):
        assert (await customer.sealed("/1/upload", method="GET"))[0] == 405
        assert (await customer.sealed("/2/upload", {}))[0] == 404
        status, answer = await customer.sealed("/1/counts/events.json?a=b", {"x": 1})
        assert status == 200
        assert answer["echo"] == {
            "method": "POST",
            "path": "/1/counts/events.json",
            "query": {"a": "b"},
            "body": {"x": 1},
        }


async def test_latency_grows_as_told() -> None:
    """Latency, jitter and load add up; the clock is the test's."""
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    config = Config(latency_s=1, jitter_s=0.5, load_latency_s=9)
    async with Emulator(config, sleep=wait) as emulator, customer_of(emulator) as customer:
        await customer.upload(profile())
    assert 1 <= waited[0] <= 1.5
