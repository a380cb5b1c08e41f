"""A client whose time is the test's, and a service with something to read."""

from __future__ import annotations

import asyncio
from typing import Any

from ctbatch.api.asking import Patience
from ctbatch.api.client import Client
from ctbatch.emulator.server import Emulator
from ctbatch.settings import Account, Endpoint, KeyFiles

__all__ = ["ASK", "Time", "bought", "client_of", "fill"]

DAY = 86_400
ASK = {"event_name": "Bought", "from": 19700101, "to": 20241003}


class Time:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        """Monotonic seconds."""
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        """Pass them at once."""
        self.pauses.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


def client_of(
    emulator: Emulator,
    time: Time | None = None,
    *,
    sealed: bool = True,
    base_url: str = "",
    patience: Patience | None = None,
) -> Client:
    """A client of a running emulator, by another address if there is one."""
    time = time or Time()
    keys = KeyFiles(server=emulator.server_key, client=emulator.client_key)
    return Client(
        account=Account(id=emulator.account_id, passcode=emulator.passcode),
        endpoint=Endpoint(base_url=base_url or emulator.base_url),
        keys=keys if sealed else None,
        timeout_s=5.0,
        patience=patience,
        clock=time.clock,
        sleep=time.sleep,
    )


def bought(identity: str, n: int = 0) -> dict[str, Any]:
    """An event record, in the window of :data:`ASK`."""
    return {
        "type": "event",
        "identity": identity,
        "ts": 10 * DAY,
        "evtName": "Bought",
        "evtData": {"n": n},
    }


async def fill(client: Client, events: int) -> None:
    """Upload so many events, and two profiles."""
    result = await client.upload(
        [
            {
                "type": "profile",
                "identity": "a",
                "profileData": {"Name": "A", "Email": "a+b@c.de", "Score": 1.10},
            },
            {"type": "profile", "identity": "ü /&+", "profileData": {}},
            *[bought("a", n) for n in range(events)],
        ]
    )
    assert result.processed == events + 2
