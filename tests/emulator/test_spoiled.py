"""Each fault does on the wire what its description says, and stores what it says."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from ctbatch.api.wire import HPKE_MEDIA_TYPE
from ctbatch.errors import OpenError
from tests.emulator.speaking import Customer, emulated, profile

HEADERS = {"Content-Type": HPKE_MEDIA_TYPE, "Accept": HPKE_MEDIA_TYPE}


async def raw(customer: Customer) -> tuple[int, bytes, str]:
    """Upload one record; the reply as it came."""
    body = customer.sealing.seal(json.dumps({"d": [profile()]}).encode())
    status, answer, headers = await customer.send("POST", "/1/upload", body, HEADERS)
    return status, answer, headers["Content-Type"]


@pytest.mark.parametrize(
    "name", ["400", "401", "403", "404", "408", "413", "429", "500", "503-json"]
)
async def test_an_error_instead_of_acting(name: str) -> None:
    """The vendor's JSON form, nothing stored, and the next request is served."""
    async with emulated(faults=(f"{name}=first-1",)) as (emulator, customer):
        status, answer, _ = await raw(customer)
        assert status == int(name[:3])
        assert json.loads(answer)["code"] == status
        assert emulator.records() == []
        assert (await raw(customer))[0] == 200
        assert emulator.stats()["by_fault"] == {name: 1}


@pytest.mark.parametrize("name", ["502", "503", "504"])
async def test_a_gateway_answers_in_html(name: str) -> None:
    """A page nobody can parse, and nothing stored."""
    async with emulated(faults=(name,)) as (emulator, customer):
        status, answer, kind = await raw(customer)
        assert (status, kind) == (int(name), "text/html")
        assert answer.startswith(b"<html>")
        assert emulator.records() == []


async def test_retry_after_goes_on_throttling_replies() -> None:
    """In seconds here."""
    async with emulated(faults=("503-json",), retry_after="3") as (_, customer):
        assert (await customer.send("POST", "/1/upload", b"{}"))[2]["Retry-After"] == "3"


async def test_a_redirect_goes_elsewhere() -> None:
    """For clients that must not follow."""
    async with emulated(faults=("redirect",)) as (_, customer):
        status, _, headers = await customer.send("POST", "/1/upload", b"{}")
        assert (status, headers["Location"]) == (307, "/1/elsewhere")


@pytest.mark.parametrize(("name", "stored"), [("reset", 0), ("reset-stored", 1), ("reset-mid", 1)])
async def test_a_broken_connection(name: str, stored: int) -> None:
    """Before reading, after storing, or in the middle of the reply."""
    async with emulated(faults=(f"{name}=first-1",)) as (emulator, customer):
        with pytest.raises(aiohttp.ClientError):
            await raw(customer)
        assert len(emulator.records()) == stored
        assert (await raw(customer))[0] == 200


async def test_stored_and_never_answered() -> None:
    """A client's time-out has to end it; closing the emulator ends it too."""
    async with emulated(faults=("hang",)) as (emulator, customer), asyncio.TaskGroup() as tasks:
        call = tasks.create_task(raw(customer))
        while not emulator.records():  # noqa: ASYNC110  # nothing tells when it hangs
            await asyncio.sleep(0)
        call.cancel()
    assert call.cancelled()


async def test_a_hung_call_ends_with_the_emulator() -> None:
    """By a reset, never by an answer."""
    async with asyncio.TaskGroup() as tasks, emulated(faults=("hang",)) as (emulator, customer):
        call = tasks.create_task(_is_broken(customer))
        while not emulator.records():  # noqa: ASYNC110  # nothing tells when it hangs
            await asyncio.sleep(0)
        await emulator.__aexit__(None, None, None)
        assert await call


async def _is_broken(customer: Customer) -> bool:
    with pytest.raises(aiohttp.ClientError):
        await raw(customer)
    return True


async def test_server_error_after_storing() -> None:
    """Ambiguous on purpose."""
    async with emulated(faults=("500-stored",)) as (emulator, customer):
        assert (await raw(customer))[0] == 500
        assert len(emulator.records()) == 1


@pytest.mark.parametrize("name", ["truncated", "garbage", "foreign-key", "empty", "plaintext"])
async def test_a_reply_that_does_not_open(name: str) -> None:
    """200, stored, and nothing that a client could believe."""
    async with emulated(faults=(name,)) as (emulator, customer):
        status, answer, kind = await raw(customer)
        assert status == 200
        assert len(emulator.records()) == 1
        assert (kind != HPKE_MEDIA_TYPE) is (name == "plaintext")
        with pytest.raises(OpenError):
            customer.opening.open(answer)


@pytest.mark.parametrize(
    ("name", "processed", "numbers"),
    [
        ("counts", 2, ["2", "3"]),
        ("number-missing", 1, [None, None]),
        ("number-repeated", 1, ["2", "2"]),
        ("number-range", 1, ["5", "6"]),
    ],
)
async def test_a_verdict_that_does_not_add_up(
    name: str, processed: int, numbers: list[str | None]
) -> None:
    """Counts and record numbers are wrong as asked."""
    async with emulated(faults=(name,)) as (_, customer):
        _, answer = await customer.upload(profile(), profile(Email="x"), profile(Age="x"))
        assert answer["processed"] == processed
        found = [entry["error"].partition("number : ")[2] for entry in answer["unprocessed"]]
        assert [number or None for number in found] == numbers


async def test_repeated_numbers_need_refusals() -> None:
    """With nothing refused there is no number to repeat."""
    async with emulated(faults=("number-repeated",)) as (_, customer):
        assert (await customer.upload(profile()))[1]["status"] == "success"


async def test_a_transient_record_passes_later() -> None:
    """555 for one record, the rest of the call stored."""
    async with emulated(faults=("555=only-2",)) as (emulator, customer):
        _, answer = await customer.upload(profile("a"), profile("b"))
        assert [entry["code"] for entry in answer["unprocessed"]] == [555]
        _, answer = await customer.upload(profile("b"))
        assert answer["status"] == "success"
        assert [row["record"]["identity"] for row in emulator.records()] == ["a", "b"]


@pytest.mark.parametrize(("name", "status"), [("poison", 400), ("poison-500", 500)])
async def test_a_poisoned_batch_is_refused_whole(name: str, status: int) -> None:
    """One marked record costs the whole call; without it the others pass."""
    async with emulated(faults=(name,)) as (emulator, customer):
        assert (await customer.upload(profile("a"), profile("b", poison=1)))[0] == status
        assert (await customer.upload(profile("a", x="poison"), profile("c")))[0] == 200
        assert len(emulator.records()) == 2


async def test_connections_can_be_closed_after_each_reply() -> None:
    """As the service did in 2018."""
    async with emulated(faults=("close",)) as (_, customer):
        headers = (await customer.send("POST", "/1/upload", b"{}"))[2]
        assert headers["Connection"] == "close"


async def test_an_outage_comes_and_goes() -> None:
    """Every request fails, by 500 or by reset, until it is switched off."""
    async with emulated(outage="500") as (emulator, customer):
        assert (await raw(customer))[0] == 500
        emulator.configure(outage="reset")
        with pytest.raises(aiohttp.ClientError):
            await raw(customer)
        emulator.configure({"outage": ""})
        assert (await raw(customer))[0] == 200
        assert len(emulator.records()) == 1


async def test_calls_are_told_of_in_order() -> None:
    """Requests are told of in order, with their faults, without query strings."""
    async with emulated(faults=("500=only-1",)) as (emulator, customer):
        await customer.upload(profile(), query="?dryRun=1")
        await customer.upload(profile())
        calls = emulator.requests()
        assert [(call["n"], call["status"], call["path"]) for call in calls] == [
            (1, 500, "/1/upload"),
            (2, 200, "/1/upload"),
        ]
        assert calls[0]["faults"] == ("500",)
