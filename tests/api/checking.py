"""What the tests of a check share: running one, and reading what it told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctbatch.api.findings import Finding, Status, Step
from ctbatch.api.probe import check
from ctbatch.crypto.keyset import to_json
from ctbatch.emulator.server import Emulator
from ctbatch.settings import Account, Endpoint, KeyFiles, Secret

__all__ = [
    "ACCOUNT",
    "PASSCODE",
    "account_of",
    "findings",
    "findings_at",
    "keys_of",
    "step",
    "written",
    "wrong",
]

PASSCODE = Secret("hunter2-hunter2")
ACCOUNT = Account(id="TEST-1", passcode=PASSCODE)


def account_of(emulator: Emulator) -> Account:
    """The account that the emulator serves."""
    return Account(id=emulator.account_id, passcode=emulator.passcode)


def keys_of(emulator: Emulator) -> KeyFiles:
    """The customer's keys."""
    return KeyFiles(server=emulator.server_key, client=emulator.client_key)


async def findings(emulator: Emulator, **changed: Any) -> list[Finding]:
    """What a check of the emulator's account finds."""
    given = {"account": account_of(emulator), "keys": keys_of(emulator)} | changed
    return await findings_at(emulator.base_url, **given)


async def findings_at(endpoint: Endpoint | str, **changed: Any) -> list[Finding]:
    """What a check of a service finds; without keys unless they are given."""
    told: list[Finding] = []
    if isinstance(endpoint, str):
        endpoint = Endpoint(base_url=endpoint)
    given: dict[str, Any] = {"account": ACCOUNT, "timeout_s": 5.0, "keys": None}
    await check(endpoint=endpoint, tell=told.append, **(given | changed))
    return told


def wrong(told: Sequence[Finding]) -> dict[Step, Status]:
    """The steps that are not well."""
    return {finding.step: finding.status for finding in told if finding.status is not Status.OK}


def step(told: Sequence[Finding], wanted: Step) -> Finding:
    """The one finding of a step."""
    (found,) = [finding for finding in told if finding.step is wanted]
    return found


def written(path: Path, keyset: Any, mode: int = 0o600) -> Path:
    """A keyset as a file."""
    path.write_bytes(to_json(keyset))
    path.chmod(mode)
    return path
