"""A customer for the emulator's tests: seals, posts and opens with code of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from ctbatch.api.wire import ACCOUNT_HEADER, HPKE_MEDIA_TYPE, PASSCODE_HEADER
from ctbatch.crypto.hpke import OpeningKeys, SealingKey
from ctbatch.crypto.keyset import load_private, load_public
from ctbatch.emulator.server import Emulator, EmulatorProcess
from ctbatch.emulator.state import Config

__all__ = ["Customer", "customer_of", "emulated", "profile"]


def profile(identity: object = "u1", **data: Any) -> dict[str, Any]:
    """A profile record."""
    return {"type": "profile", "identity": identity, "profileData": data}


class Customer:
    """Speaks the documented protocol with one emulator."""

    def __init__(
        self, emulator: Emulator | EmulatorProcess, session: aiohttp.ClientSession
    ) -> None:
        self.emulator = emulator
        self.session = session
        self.credentials = {
            ACCOUNT_HEADER: emulator.account_id,
            PASSCODE_HEADER: emulator.passcode.reveal(),
        }

    async def load_keys(self) -> None:
        """Read the key files as they are now."""
        info = self.emulator.account_id.encode()
        server = await asyncio.to_thread(load_public, self.emulator.server_key)
        client = await asyncio.to_thread(load_private, self.emulator.client_key)
        self.sealing, self.opening = SealingKey(server, info), OpeningKeys(client, info)

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """One request as it stands; status, body and headers of the reply."""
        given = {"Content-Type": "application/json", **self.credentials, **(headers or {})}
        async with self.session.request(
            method,
            # The URL goes out as written: a cursor is already percent-encoded.
            URL(self.emulator.base_url + path, encoded=True),
            data=body,
            headers={name: value for name, value in given.items() if value},
            allow_redirects=False,
        ) as response:
            return response.status, await response.read(), response.headers

    async def sealed(
        self, path: str, value: object = None, method: str = "POST"
    ) -> tuple[int, Any]:
        """One sealed request; status and opened, parsed reply."""
        headers = {"Accept": HPKE_MEDIA_TYPE}
        body = None
        if value is not None:
            body = self.sealing.seal(json.dumps(value).encode())
            headers["Content-Type"] = HPKE_MEDIA_TYPE
        status, answer, given = await self.send(method, path, body, headers)
        if given["Content-Type"] == HPKE_MEDIA_TYPE:
            answer = self.opening.open(answer).plaintext
        return status, json.loads(answer)

    async def upload(self, *records: object, query: str = "") -> tuple[int, Any]:
        """One sealed upload."""
        return await self.sealed(f"/1/upload{query}", {"d": records})

    async def plain(self, *records: object) -> tuple[int, Any]:
        """One upload in the clear."""
        status, body, _ = await self.send("POST", "/1/upload", json.dumps({"d": records}).encode())
        return status, json.loads(body)


@asynccontextmanager
async def customer_of(emulator: Emulator | EmulatorProcess) -> AsyncIterator[Customer]:
    """A customer of a running emulator."""
    async with aiohttp.ClientSession() as session:
        customer = Customer(emulator, session)
        await customer.load_keys()
        yield customer


@asynccontextmanager
async def emulated(**options: Any) -> AsyncIterator[tuple[Emulator, Customer]]:
    """An emulator with these options on this loop, and its customer."""
    async with Emulator(Config(**options)) as emulator, customer_of(emulator) as customer:
        yield emulator, customer
