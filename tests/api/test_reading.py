"""Events, profiles and any endpoint are read whole whatever the service does meanwhile."""

from __future__ import annotations

import logging

import orjson
import pytest

from ctbatch.api.asking import Patience
from ctbatch.api.client import Client
from ctbatch.api.queries import Lookup
from ctbatch.emulator.server import Emulator
from ctbatch.emulator.state import Config
from ctbatch.errors import (
    CursorExpired,
    CursorRefused,
    ReplyLost,
    ServiceRefused,
    ServiceUnavailable,
    SettingsError,
)
from tests.api.reading import ASK, Time, client_of, fill


async def numbers(client: Client, batch_size: int = 3) -> list[int]:
    """The events' numbers, in the order in which they come."""
    found = client.events(query=ASK, batch_size=batch_size)
    return [orjson.loads(event)["event_props"]["n"] async for event in found]


async def test_every_event_comes_once() -> None:
    """Page after page, with a cursor that goes back as it came."""
    async with Emulator() as emulator, client_of(emulator) as client:
        await fill(client, 10)
        assert await numbers(client) == list(range(10))
        found = client.events("Bought", from_date=19700101, to_date=20241003, batch_size=4)
        assert "not begun" in repr(found)
        assert [len(page.records) async for page in found.pages()] == [4, 4, 2]
        assert "at its end" in repr(found)
        assert [record async for record in found] == []


async def test_a_query_without_a_match_is_empty() -> None:
    """The service leaves out ``records`` then."""
    async with Emulator() as emulator, client_of(emulator) as client:
        await fill(client, 1)
        assert [e async for e in client.events(query={**ASK, "from": 20240101})] == []


@pytest.mark.parametrize(
    "fault",
    [
        "429=every-2",
        "503=every-2",
        "503-json=every-3",
        "500=every-2",
        "502=0.3",
        "408=every-2",
        "reset=every-2",
        "reset-mid=every-2",
        "truncated=every-2",
        "garbage=every-2",
        "plaintext=every-2",
        "foreign-key=every-2",
        "empty=every-2",
        "close=0.5",
    ],
)
async def test_what_breaks_is_asked_again_on_the_same_cursor(fault: str) -> None:
    """No event is lost and none comes twice."""
    time = Time()
    async with Emulator() as emulator, client_of(emulator, time) as client:
        await fill(client, 10)
        emulator.configure(faults=(fault,))
        assert await numbers(client) == list(range(10))
        assert bool(time.pauses) is not fault.startswith("close")


async def test_a_query_in_progress_is_waited_for() -> None:
    """Code 2 comes with HTTP 200; the waits are told, without the cursor."""
    time = Time()
    async with Emulator(Config(in_progress=5)) as emulator, client_of(emulator, time) as client:
        await fill(client, 4)
        assert await numbers(client) == list(range(4))
        assert len(time.pauses) == 5


async def test_waiting_has_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    """After that the download ends, and can go on from where it stands."""
    time = Time()
    async with (
        Emulator(Config(in_progress=10_000)) as emulator,
        client_of(emulator, time, patience=Patience(in_progress_s=60)) as client,
    ):
        await fill(client, 4)
        found = client.events(query=ASK)
        with caplog.at_level(logging.INFO), pytest.raises(ServiceUnavailable) as caught:
            await anext(aiter(found))
        assert 60 <= caught.value.waited_s < 130
        assert "still in progress" in str(caught.value)
        assert caught.value.exit_code == 4
        assert found.cursor is not None
        assert found.cursor not in caplog.text
        waits = [record for record in caplog.records if "working on the query" in record.message]
        assert [record.levelname for record in waits][:2] == ["WARNING", "INFO"]


@pytest.mark.parametrize("outage", ["500", "reset"])
async def test_an_outage_ends_it_after_a_while(outage: str) -> None:
    """Patience is the caller's to choose."""
    async with (
        Emulator() as emulator,
        client_of(emulator, patience=Patience(give_up_after_s=100)) as client,
    ):
        await fill(client, 4)
        emulator.configure(outage=outage)
        with pytest.raises(ServiceUnavailable):
            await numbers(client)


async def test_a_download_goes_on_from_its_cursor() -> None:
    """What was handed over before is not handed over again."""
    async with Emulator() as emulator, client_of(emulator) as client:
        await fill(client, 5)
        first = client.events(query=ASK, batch_size=2)
        pages = first.pages()
        page = await anext(pages)
        await pages.aclose()
        assert first.cursor == page.cursor
        again = client.events(cursor=page.next_cursor)
        rest = [orjson.loads(event)["event_props"]["n"] async for event in again]
        assert rest == [2, 3, 4]


async def test_an_expired_cursor_says_how_to_start_again() -> None:
    """It cannot be mended by waiting."""
    now = [20_000 * 86_400.0]
    async with Emulator(clock=lambda: now[0]) as emulator, client_of(emulator) as client:
        await fill(client, 5)
        found = client.events(query=ASK, batch_size=2)
        await found.open()
        now[0] += 3700
        with pytest.raises(CursorExpired, match=r"expired[\s\S]*[Ss]tart again") as caught:
            await anext(aiter(found))
        assert caught.value.exit_code == 4


async def test_a_foreign_cursor_is_refused_with_the_way_out() -> None:
    """It was altered, or is of another account."""
    async with Emulator() as emulator, client_of(emulator) as client:
        with pytest.raises(CursorRefused, match=r"Incorrect Usage[\s\S]*make the query again"):
            await anext(aiter(client.events(cursor="nonsense")))
    async with Emulator() as emulator, client_of(emulator, sealed=False) as client:
        await fill(client, 5)
        emulator.configure(faults=("400=after-2",))
        with pytest.raises(CursorRefused, match="the service's own") as caught:
            await numbers(client, 2)
        assert "another account" not in str(caught.value)


async def test_a_refused_query_says_what_the_service_said() -> None:
    """An event that nobody has, say; nobody retries it."""
    time = Time()
    async with Emulator() as emulator, client_of(emulator, time) as client:
        await fill(client, 1)
        with pytest.raises(ServiceRefused, match="Invalid event"):
            await anext(aiter(client.events("bought", from_date=20240101, to_date=20240102)))
        assert not time.pauses


async def test_profiles_are_read_like_events() -> None:
    """With the same cursor flow."""
    async with Emulator() as emulator, client_of(emulator) as client:
        await fill(client, 3)
        found = [orjson.loads(p) async for p in client.profiles(orjson.dumps(ASK), batch_size=1)]
        assert [profile["identity"] for profile in found] == ["a"]
        with pytest.raises(SettingsError, match="NAME"):
            client.profiles()


async def test_a_profile_is_found_by_each_of_its_names() -> None:
    """Plus signs, blanks and other alphabets arrive as they are."""
    async with Emulator() as emulator, client_of(emulator) as client:
        await fill(client, 1)
        by_email = await client.profile(email="a+b@c.de")
        assert by_email is not None
        assert b'"Score":1.1' in by_email
        object_id = orjson.loads(by_email)["platformInfo"][0]["objectId"]
        assert await client.profile(object_id=object_id) == by_email
        assert await client.profile(identity="ü /&+") is not None


@pytest.mark.parametrize("status", [200, 404])
async def test_nobody_is_none(status: int) -> None:
    """Said as null or as 404, in an answer that opens."""
    async with (
        Emulator(Config(missing_profile_status=status)) as emulator,
        client_of(emulator) as client,
    ):
        await fill(client, 1)
        assert await client.profile(identity="nobody") is None
        with pytest.raises(SettingsError, match="exactly one"):
            await client.profile()
        with pytest.raises(SettingsError, match="exactly one"):
            await client.profile(identity="a", email="b")


@pytest.mark.parametrize("fault", ["404", "plaintext"])
async def test_a_plain_answer_never_says_that_nobody_is_there(fault: str) -> None:
    """It may be a gateway's; it stops the look-up instead."""
    async with Emulator() as emulator, client_of(emulator) as client:
        await fill(client, 1)
        emulator.configure(faults=(fault,))
        with pytest.raises(ServiceRefused) as caught:
            await client.profile(identity="nobody")
        assert caught.value.exit_code == 5


async def test_many_look_ups_keep_their_order_and_the_services_limit() -> None:
    """Three at a time, one result each, through retries."""
    async with Emulator(Config(latency_s=0.001)) as emulator, client_of(emulator) as client:
        await fill(client, 1)
        emulator.configure(faults=("429=0.2", "reset=0.1"))
        wanted = [Lookup("identity", "a" if n % 3 else f"nobody-{n}") for n in range(130)]
        found = [result async for result in client.look_up(wanted)]
        assert [result.lookup for result in found] == wanted
        assert [result.record is not None for result in found] == [n % 3 > 0 for n in range(130)]
        assert not any(call["over_cap"] for call in emulator.requests())


async def test_what_was_found_before_an_error_is_handed_over() -> None:
    """The first look-ups stand, then the error is raised, bare."""
    async with Emulator() as emulator, client_of(emulator) as client:
        await fill(client, 1)
        emulator.configure(faults=("401=after-70",))
        found = []

        async def take_all() -> None:
            async for result in client.look_up([Lookup("identity", "a")] * 200):
                found.append(result)  # noqa: PERF401  # what came before the error counts

        with pytest.raises(ServiceRefused, match="401"):
            await take_all()
        assert 60 <= len(found) <= 70


async def test_a_refused_look_up_is_a_result() -> None:
    """One that the service does not like does not end the others."""
    async with Emulator() as emulator, client_of(emulator) as client:
        await fill(client, 1)
        emulator.configure(faults=("400=only-1",))
        found = [f async for f in client.look_up([Lookup("identity", "a")] * 2)]
        assert sum(f.refusal is not None for f in found) == 1
        emulator.configure(faults=("400=1",))
        with pytest.raises(ServiceRefused, match="400"):
            await client.profile(identity="a")


async def test_any_endpoint_is_asked_sealed_and_its_answer_kept() -> None:
    """Body sealed, reply opened, query encoded; the echo shows what arrived."""
    async with Emulator() as emulator, client_of(emulator) as client:
        answer = await client.call("post", "/1/x.json", body={"a": 1}, query={"k": "a+b c"})
        assert answer.ok
        assert orjson.loads(answer.body)["echo"] == {
            "method": "POST",
            "path": "/1/x.json",
            "query": {"k": "a+b c"},
            "body": {"a": 1},
        }
        assert emulator.requests()[-1]["sealed"]
        raw = await client.call("GET", "/1/y.json", query="c=%2B%2f")
        assert orjson.loads(raw.body)["echo"]["query"] == {"c": "+/"}
        missing = await client.call("GET", "/2/y.json")
        assert (missing.status, missing.ok) == (404, False)
        assert b"Resource not found" in missing.body
        failed = await client.call("POST", "/1/events.json", body={})
        assert (failed.status, failed.ok) == (400, False)
        with pytest.raises(SettingsError, match="METHOD"):
            await client.call("G T", "/1/x.json")
        with pytest.raises(SettingsError, match=r"METHOD: HEAD .*use GET"):
            await client.call("head", "/1/x.json")


async def test_a_call_that_may_have_acted_is_not_repeated() -> None:
    """What was not acted on is; a lost answer to a POST is said."""
    async with Emulator() as emulator, client_of(emulator) as client:
        emulator.configure(faults=("429=first-2",))
        assert (await client.call("POST", "/1/x.json", body={})).ok
        before = len(emulator.requests())
        emulator.configure(faults=("reset-mid=1",))
        with pytest.raises(ReplyLost, match=r"ended early.*may have been acted on"):
            await client.call("POST", "/1/x.json", body={})
        emulator.configure(faults=("500=1",))
        with pytest.raises(ServiceUnavailable):
            await client.call("POST", "/1/x.json", body={})
        emulator.configure(faults=("garbage=1",))
        with pytest.raises(ServiceRefused, match=r"said in it .* may have been acted on"):
            await client.call("POST", "/1/x.json", body={})
        with pytest.raises(ServiceRefused, match="3 answers in a row did not open") as caught:
            await client.call("GET", "/1/x.json")
        assert "acted on" not in str(caught.value)
        emulator.configure(faults=("400=1",))
        with pytest.raises(ServiceRefused, match=r"400[\s\S]*encryption is not enabled"):
            await client.call("POST", "/1/x.json", body={})
        emulator.configure(faults=("500=1",), seal_errors=True)
        assert len(emulator.requests()) == before + 7


async def test_answers_that_do_not_open_stop_it_after_three() -> None:
    """They are never believed, and keys do not mend themselves."""
    async with Emulator() as emulator, client_of(emulator) as client:
        await fill(client, 1)
        emulator.configure(faults=("plaintext=1",))
        with pytest.raises(ServiceRefused, match="3 answers in a row did not open"):
            await numbers(client)
        assert len(emulator.requests()) == 1 + 3


async def test_wrong_credentials_are_explained() -> None:
    """At once, with the likely causes."""
    time = Time()
    async with Emulator() as emulator, client_of(emulator, time) as client:
        emulator.configure(faults=("401=1",))
        with pytest.raises(ServiceRefused, match=r"401[\s\S]*passcode is wrong"):
            await numbers(client)
        assert not time.pauses


async def test_without_keys_it_speaks_plain_json() -> None:
    """The documented form; a page of HTML is not believed."""
    async with Emulator() as emulator, client_of(emulator, sealed=False) as client:
        await fill(client, 3)
        assert await numbers(client, 2) == [0, 1, 2]
        assert await client.profile(identity="nobody") is None


@pytest.mark.parametrize("value", [-1, float("nan"), 10**6])
def test_patience_has_bounds(value: float) -> None:
    """NaN is out of every range."""
    with pytest.raises(SettingsError, match="--give-up-after"):
        Patience(give_up_after_s=value)
