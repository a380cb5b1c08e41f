"""Send a few records from a program, sealed, and read the verdict on each.

Against the bundled emulator; for an account of yours, take the :class:`ctbatch.Account`,
:class:`ctbatch.Endpoint` and :class:`ctbatch.KeyFiles` from wherever your program has them.
"""

from __future__ import annotations

import asyncio

import ctbatch
from ctbatch.emulator.server import EmulatorProcess

RECORDS = [
    {"type": "profile", "identity": "1001", "profileData": {"Name": "Ann", "Tier": "Gold"}},
    {"type": "profile", "identity": "1002", "profileData": {"Email": "not an address"}},
    {"type": "event", "identity": "1001", "evtName": "Policy Renewed", "evtData": {"Years": 2}},
]


async def main() -> None:
    """Upload, and say what became of each record."""
    async with (
        EmulatorProcess() as emulator,
        ctbatch.Client(
            account=ctbatch.Account(id=emulator.account_id, passcode=emulator.passcode),
            endpoint=ctbatch.Endpoint(base_url=emulator.base_url),
            keys=ctbatch.KeyFiles(server=emulator.server_key, client=emulator.client_key),
        ) as client,
    ):
        result = await client.upload(RECORDS)
        for record, outcome in zip(RECORDS, result.outcomes, strict=True):
            print(record["identity"], outcome.state, outcome.code or "", outcome.error)
        # Nothing here is repeated by itself. What is `unknown` may have been stored: records that
        # only set values can be sent again, events and counters need a look first.
        print(f"{result.processed} of {len(RECORDS)} processed")


if __name__ == "__main__":
    asyncio.run(main())
