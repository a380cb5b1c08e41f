"""What the client makes of answers: uploads with a verdict per record, readings never half-read."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import orjson
import pytest

from ctbatch.api.asking import Asker
from ctbatch.api.client import Client
from ctbatch.api.cursors import Download
from ctbatch.api.queries import Heard, Sense
from ctbatch.api.wire import HPKE_MEDIA_TYPE
from ctbatch.crypto.hpke import SealingKey
from ctbatch.crypto.keyset import load_public
from ctbatch.emulator.server import Emulator
from ctbatch.emulator.state import Config
from ctbatch.errors import CursorRefused, ServiceRefused, ServiceUnavailable, SettingsError
from ctbatch.models import State
from tests.api.raw_server import RawServer, answer
from tests.api.reading import ASK, client_of
from tests.emulator.speaking import profile


@asynccontextmanager
async def answering(text: str) -> AsyncIterator[Client]:
    """A client of a service that seals this answer to everything."""
    async with Emulator() as emulator:
        keys = await asyncio.to_thread(
            load_public, emulator.client_key.parent / "client-public.json"
        )
        reply = SealingKey(keys, emulator.account_id.encode()).seal(text.encode())
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {HPKE_MEDIA_TYPE}\r\nContent-Length: {len(reply)}"
        async with (
            RawServer(answer(f"{head}\r\n\r\n".encode() + reply)) as server,
            client_of(emulator, base_url=server.url) as client,
        ):
            yield client


@pytest.mark.parametrize(
    "text",
    [
        '{"status":"success"}',
        '{"status":"success","cursor":null}',
        '{"status":"success","cursor":"a b"}',
        '{"status":"success","cursor":"c","next_cursor":"c"}',
        '{"status":"success","cursor":"c","records":[7]}',
    ],
)
async def test_a_page_that_is_none_ends_a_download_with_an_error(text: str) -> None:
    """It is never taken for the end."""
    async with answering(text) as client:
        with pytest.raises(ServiceRefused, match=r"/1/events\.json"):
            await anext(aiter(client.events(query=ASK)))


class Round:
    """Answers whose cursors come round again after the third page."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def ask(self, method: str, path: str, *, query: str, body: bytes | None = None) -> Heard:
        """The next page."""
        cursor = query.removeprefix("cursor=")
        self.asked.append(cursor)
        after = {"": "a", "a": "b", "b": "c", "c": "a"}[cursor]
        records = [b'{"n":"%b"}' % cursor.encode()]
        return Heard(
            Sense.ANSWER, "200", members={"cursor": after, "next_cursor": after, "records": records}
        )


async def test_cursors_that_go_round_end_a_download_with_an_error() -> None:
    """Each page is handed over once, however long the way round is."""
    service, found = Round(), list[bytes]()

    async def read() -> None:
        async for record in Download(cast("Asker", service), "/1/events.json"):
            found.append(record)

    with pytest.raises(CursorRefused, match="followed before"):
        await read()
    assert found == [b'{"n":"a"}', b'{"n":"b"}', b'{"n":"c"}']
    assert service.asked == ["", "a", "b", "c"]


async def test_an_answer_that_says_nothing_is_asked_for_again() -> None:
    """Until patience ends."""
    async with answering('{"records":[]}') as client:
        with pytest.raises(ServiceUnavailable):
            await anext(aiter(client.events(query=ASK)))


async def test_a_page_over_the_bound_says_what_to_do() -> None:
    """Asking again would bring the same page."""
    async with answering('{"status":"success","cursor":"' + "x" * (65 << 20)) as client:
        with pytest.raises(SettingsError, match="--batch-size"):
            await anext(aiter(client.events(cursor="c")))


async def test_a_record_that_is_none_is_not_nobody() -> None:
    """An empty text, say."""
    async with answering('{"status":"success","record":""}') as client:
        with pytest.raises(ServiceRefused, match="record"):
            await client.profile(identity="a")


async def test_an_empty_profile_is_somebody() -> None:
    """They are known, if nothing is known of them."""
    async with answering('{"status":"success","record":{}}') as client:
        assert await client.profile(identity="a") == b"{}"


async def test_an_upload_has_an_outcome_per_record() -> None:
    """In the order of its records, with code and cleaned words."""
    async with Emulator() as emulator, client_of(emulator) as client:
        result = await client.upload([profile("a"), profile("b", Email="no"), profile("c")])
        assert [outcome.state for outcome in result.outcomes] == [
            State.PROCESSED,
            State.UNPROCESSED,
            State.PROCESSED,
        ]
        assert (result.processed, result.outcomes[1].code) == (2, 515)
        assert "open" in repr(client)
        await client.upload([profile("d")], dry_run=True)
        assert len(emulator.records()) == 2
        for records in ([], [profile("a")] * 1001):
            with pytest.raises(SettingsError, match="1 to 1000"):
                await client.upload(records)
    assert "closed" in repr(client)


async def test_a_client_that_is_not_open_says_how_to_open_it() -> None:
    """Before and after, whatever it is asked: an error of ours, whom to catch is documented."""
    async with Emulator() as emulator:
        client = client_of(emulator)
        for _ in range(2):
            for asked in (
                client.upload([profile("a")]),
                client.profile(identity="a"),
                client.call("GET", "/1/x.json"),
                client.events(query=ASK).open(),
            ):
                with pytest.raises(SettingsError, match="async with Client"):
                    await asked
            async with client:
                assert (await client.upload([profile("a")])).processed == 1


@dataclass(frozen=True)
class Pair:
    """Something that orjson writes as an object."""

    left: float


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        [1.0, {"a": (None, -math.inf)}],
        Pair(math.inf),
        1 << 64,
        object(),
        {1: 2},
        "\ud800-secret",
        {"secret"},
    ],
)
async def test_what_json_cannot_say_is_never_sent(value: object) -> None:
    """The number of the record is said, or whose body it was, and nothing that stood in it."""
    bad = {"identity": "secret", "x": value}
    async with Emulator() as emulator, client_of(emulator) as client:
        with pytest.raises(SettingsError, match="record 2: holds") as caught:
            await client.upload([profile("a"), bad])
        with pytest.raises(SettingsError, match="query: holds"):
            client.events(query=bad)
        with pytest.raises(SettingsError, match="query: holds"):
            client.profiles(bad)
        with pytest.raises(SettingsError, match="body: holds"):
            await client.call("POST", "/1/x.json", body=bad)
        assert not emulator.requests()
    shown = "".join(traceback.format_exception(caught.value))
    assert "secret" not in shown
    assert "JSONEncodeError" not in shown


async def test_null_is_sent_as_it_is() -> None:
    """Where it was meant."""
    async with Emulator() as emulator, client_of(emulator) as client:
        body = {"a": None, "b": [1.5, (None, Pair(2.5))]}
        answer = await client.call("POST", "/1/x.json", body=body)
        echo = {"a": None, "b": [1.5, [None, {"left": 2.5}]]}
        assert orjson.loads(answer.body)["echo"]["body"] == echo


@pytest.mark.parametrize(
    ("fault", "state", "retry"),
    [
        ("429", State.UNSENT, True),
        ("503-json", State.UNSENT, True),
        ("400", State.UNPROCESSED, False),
        ("413", State.UNPROCESSED, False),
        ("500", State.UNKNOWN, False),
        ("reset-stored", State.UNKNOWN, False),
        ("garbage", State.UNKNOWN, False),
        ("plaintext", State.UNKNOWN, False),
        ("counts", State.UNKNOWN, False),
        ("number-range", State.UNKNOWN, False),
    ],
)
async def test_an_upload_that_is_not_certain_says_so(fault: str, state: State, retry: bool) -> None:
    """Nothing is retried: whoever called knows what may be."""
    async with Emulator(Config(faults=(fault,))) as emulator, client_of(emulator) as client:
        twins = [{**profile("a"), "profileData": {"Gender": "X"}}, profile("a")]
        result = await client.upload(twins)
        assert {outcome.state for outcome in result.outcomes} == {state}
        assert result.retry is retry
        assert len(emulator.requests()) == 1


async def test_an_upload_that_is_refused_as_a_whole_is_an_error() -> None:
    """Credentials, say."""
    async with Emulator(Config(faults=("401",))) as emulator, client_of(emulator) as client:
        with pytest.raises(ServiceRefused, match="401"):
            await client.upload([profile("a")])


async def test_an_upload_in_plaintext_is_judged_the_same() -> None:
    """A gateway's page is no answer."""
    async with Emulator() as emulator, client_of(emulator, sealed=False) as client:
        assert (await client.upload([profile("a")])).processed == 1
        emulator.configure(faults=("garbage",))
        (outcome,) = (await client.upload([profile("a")])).outcomes
        assert outcome.state is State.UNKNOWN
