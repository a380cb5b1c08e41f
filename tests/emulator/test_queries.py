"""Events and profiles are found over what was uploaded, page by page."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest

from ctbatch.emulator.server import Emulator
from ctbatch.emulator.state import Config
from tests.emulator.speaking import Customer, customer_of, emulated, profile

DAY = 86_400
NOW = 20_000 * DAY
ASK = {"event_name": "Bought", "from": 19700101, "to": 20241003}


def bought(identity: str, ts: int = NOW - DAY, **props: Any) -> dict[str, Any]:
    """An event record."""
    return {
        "type": "event",
        "identity": identity,
        "ts": ts,
        "evtName": "Bought",
        "evtData": props,
    }


async def pages(customer: Customer, path: str, query: str, ask: object) -> list[list[Any]]:
    """All pages of a query."""
    status, answer = await customer.sealed(f"{path}?{query}", ask)
    assert (status, answer["status"]) == (200, "success")
    cursor = answer["cursor"]
    found = []
    while cursor:
        status, answer = await customer.sealed(f"{path}?cursor={cursor}", method="GET")
        assert (status, answer["status"]) == (200, "success")
        found.append(answer.get("records", []))
        cursor = answer.get("next_cursor")
    return found


async def test_events_come_in_pages() -> None:
    """Every event once; the end is where there is no next cursor."""
    async with emulated() as (_, customer):
        await customer.upload(profile("a", Name="A"), *[bought("a", n=n) for n in range(5)])
        found = await pages(customer, "/1/events.json", "batch_size=2", ASK)
        assert [len(page) for page in found] == [2, 2, 1]
        first = found[0][0]
        assert first["event_props"] == {"n": 0}
        assert first["ts"] == 20241003000000
        assert first["profile"]["identity"] == "a"
        assert first["profile"]["profileData"] == {"Name": "A"}
        found = await pages(customer, "/1/events.json", "profile=false", ASK)
        assert "profileData" not in found[0][0]["profile"]


async def test_events_are_filtered() -> None:
    """By date, and by their properties."""
    async with emulated() as (_, customer):
        await customer.upload(bought("a", 10, what="pizza"), bought("b", 10, what="soup"))
        for need, count in (
            ({"name": "what", "operator": "contains", "value": "izz"}, 1),
            ({"name": "what", "value": ["pizza", "soup"]}, 2),
            ({"name": "what", "operator": "equals", "value": "soup"}, 1),
            ({"name": "what", "value": "cake"}, 0),
        ):
            ask = {**ASK, "event_properties": [need]}
            found = await pages(customer, "/1/events.json", "", ask)
            assert len(found[0]) == count
        assert await pages(customer, "/1/events.json", "", {**ASK, "from": 20200101}) == [[]]


async def test_profiles_come_in_pages() -> None:
    """Those who did it, with what is asked for."""
    async with emulated() as (_, customer):
        await customer.upload(profile("a", Name="A"), profile("b"), bought("a"), bought("c"))
        (found,) = await pages(customer, "/1/profiles.json", "events=false", ASK)
        assert [user["identity"] for user in found] == ["a", "c"]
        assert found[0]["profileData"] == {"Name": "A"}
        assert "events" not in found[0]


async def test_a_cursor_keeps_its_position_and_is_taken_as_it_came() -> None:
    """Read twice it gives the same; encoded once more, decoded or rewritten it is not known."""
    async with emulated(in_progress=2) as (_, customer):
        await customer.upload(*[bought("a", n=n) for n in range(3)])
        _, answer = await customer.sealed("/1/events.json?batch_size=2", ASK)
        cursor = answer["cursor"]
        assert "%" in cursor
        for _ in range(2):
            status, answer = await customer.sealed(f"/1/events.json?cursor={cursor}", method="GET")
            assert (status, answer["code"]) == (200, 2)
        _, one = await customer.sealed(f"/1/events.json?cursor={cursor}", method="GET")
        _, two = await customer.sealed(f"/1/events.json?cursor={cursor}", {})
        assert one == two
        for other in (cursor.replace("%", "%25"), unquote(cursor), cursor.replace("%2B", "%2b")):
            _, answer = await customer.sealed(f"/1/events.json?cursor={other}", method="GET")
            assert answer["error"] == "Incorrect Usage"


@pytest.mark.parametrize(("waits", "good"), [([3500, 3500], True), ([3700], False)])
async def test_a_cursor_expires(waits: list[int], good: bool) -> None:
    """After an hour without use."""
    now = [float(NOW)]
    async with Emulator(clock=lambda: now[0]) as emulator, customer_of(emulator) as customer:
        await customer.upload(bought("a"))
        _, answer = await customer.sealed("/1/events.json", ASK)
        cursor = answer["cursor"]
        for wait in waits:
            now[0] += wait
            _, answer = await customer.sealed(f"/1/events.json?cursor={cursor}", method="GET")
        assert (answer["status"] == "success") is good
        assert good or answer["code"] == 4004


@pytest.mark.parametrize(
    ("query", "ask", "status", "code"),
    [
        ("", {**ASK, "event_name": "bought"}, 200, 400),
        ("", {**ASK, "to": 29991231}, 200, 4002),
        ("", {"event_name": "Bought"}, 200, 4002),
        ("", {}, 400, 400),
        ("", [], 400, 400),
        ("?batch_size=5001", ASK, 400, 400),
        ("?batch_size=x", ASK, 400, 400),
    ],
)
async def test_a_query_that_cannot_be(query: str, ask: object, status: int, code: int) -> None:
    """With the codes that clients have logged."""
    async with emulated() as (_, customer):
        await customer.upload(bought("a"))
        got, answer = await customer.sealed(f"/1/events.json{query}", ask)
        assert (got, answer["code"]) == (status, code)
        assert (await customer.sealed("/1/events.json", method="GET"))[0] == 400


async def test_a_profile_is_looked_up() -> None:
    """By e-mail address, identity or objectId, with records merged in order."""
    async with emulated() as (emulator, customer):
        await customer.upload(profile("a", Email="a+b@c.de", Score=1), bought("a"))
        await customer.upload(profile("a", Score={"$incr": 2}))
        _, answer = await customer.sealed("/1/profile.json?email=a%2Bb%40c.de", method="GET")
        record = answer["record"]
        assert record["profileData"] == {"Email": "a+b@c.de", "Score": 3}
        assert record["events"]["Bought"]["count"] == 1
        object_id = record["platformInfo"][0]["objectId"]
        _, again = await customer.sealed(f"/1/profile.json?objectId={object_id}", method="GET")
        assert again == answer
        _, nobody = await customer.sealed("/1/profile.json?identity=z", method="GET")
        assert nobody == {"status": "success", "record": None}
        emulator.configure(missing_profile_status=404)
        assert (await customer.sealed("/1/profile.json?identity=z", method="GET"))[0] == 404
        assert (await customer.sealed("/1/profile.json", method="GET"))[0] == 400


async def test_a_plain_get_is_answered_plainly() -> None:
    """Without the Accept header, as always."""
    async with Emulator(Config(feature=False)) as emulator, customer_of(emulator) as customer:
        status, body, _ = await customer.send("GET", "/1/profile.json?identity=a")
        assert (status, body) == (200, b'{"status":"success","record":null}')
        assert (await customer.sealed("/1/profile.json?identity=a", method="GET"))[0] == 400
