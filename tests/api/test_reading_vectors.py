"""Each request goes out as the vendor documents it, and what comes back is not rewritten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from ctbatch.api.client import Client
from ctbatch.api.wire import HPKE_MEDIA_TYPE
from ctbatch.crypto.hpke import OpeningKeys, SealingKey
from ctbatch.crypto.keyset import load_private, load_public
from ctbatch.emulator.server import Emulator
from tests.api.raw_server import RawServer, Talk
from tests.api.reading import client_of

VECTORS = orjson.loads((Path(__file__).parents[1] / "vectors/reading_requests.json").read_bytes())


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """For its keys only."""
    async with Emulator() as emulator:
        yield emulator


async def ask(client: Client, asked: dict[str, Any]) -> Any:
    """Do what a vector asks for; results as text."""
    ((what, arguments),) = asked.items()
    if what == "call":
        return (await client.call(**arguments)).body.decode()
    if what == "profile":
        record = await client.profile(**arguments)
        return None if record is None else record.decode()
    found = client.events(**arguments) if what == "events" else client.profiles(**arguments)
    if "cursor" in arguments:
        return [record.decode() async for record in found]
    return await found.open()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
async def test_a_request_is_as_documented(emulator: Emulator, vector: dict[str, Any]) -> None:
    """Method, target, headers and body, against golden vectors."""
    info = emulator.account_id.encode()
    keys = emulator.server_key.parent
    public = await asyncio.to_thread(load_public, keys / "client-public.json")
    private = await asyncio.to_thread(load_private, keys / "server-private.json")
    reply = SealingKey(public, info).seal(vector["reply"].encode())
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {HPKE_MEDIA_TYPE}\r\nContent-Length: {len(reply)}"

    async def script(talk: Talk) -> None:
        while await talk.request():
            await talk.send(f"{head}\r\n\r\n".encode() + reply)

    async with (
        RawServer(script) as server,
        client_of(emulator, base_url=server.url) as client,
    ):
        result = await ask(client, vector["ask"])
    (request,) = server.requests
    wire_head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = wire_head.decode().split("\r\n")
    expected = vector["request"]
    assert first == f"{expected['method']} {expected['target']} HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in lines)
    assert headers["X-CleverTap-Account-Id"] == emulator.account_id
    assert headers["X-CleverTap-Passcode"] == emulator.passcode.reveal()
    assert {name: headers[name] for name in expected["headers"]} == expected["headers"]
    if expected["body"] is None:
        assert "Content-Length" not in headers
        assert body == b""
    else:
        assert OpeningKeys(private, info).open(body).plaintext.decode() == expected["body"]
    if "result" in vector:
        assert result == vector["result"]
    else:
        assert result == orjson.loads(vector["reply"])["cursor"]
