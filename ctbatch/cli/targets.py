"""Where a run goes, and the settings that a command's options come to.

Invariants:

1. With ``--emulator`` no setting of account, keys or endpoint is read, from wherever it comes, so
   that a trial can never reach a real account.
2. There is no silent downgrade: plaintext is asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ctbatch.cli.options import Connection, Environment, Kind, Tuning, as_flags
from ctbatch.errors import SettingsError
from ctbatch.models import Mode
from ctbatch.settings import Account, Batching, Delivery, Endpoint, KeyFiles, Settings

__all__ = ["Target", "connect", "run_settings"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a run goes: ``None`` where its mode needs none, or brings its own."""

    mode: Mode
    account: Account | None = None
    endpoint: Endpoint | None = None
    keys: KeyFiles | None = None


def run_settings(
    inputs: list[str], connection: Connection, tuning: Tuning, kind: Kind, env: Environment
) -> Settings:
    """The settings of ``ctbatch run``. Raises :class:`SettingsError`."""
    given = tuning.given()
    target = connect(connection, env, kind.mode, plaintext=kind.plaintext)
    return Settings(
        inputs=inputs,
        account=target.account,
        endpoint=target.endpoint,
        keys=target.keys,
        batching=Batching(**_pick(Batching, given)),
        delivery=Delivery(**_pick(Delivery, given)),
        plaintext=kind.plaintext,
        dry_run=kind.dry_run,
        server_dry_run=kind.server_dry_run,
        emulator=kind.emulator,
        strict=kind.strict,
        limit=kind.limit,
        run_dir=kind.run_dir,
        resume_flags=as_flags(connection),
    )


def connect(
    connection: Connection, env: Environment, mode: Mode, *, plaintext: bool = False
) -> Target:
    """What a run in this mode needs of account, endpoint and keys; nothing else is read."""
    if mode is Mode.EMULATOR:
        connection.refuse_all("has no meaning with --emulator, which brings its own")
    if mode is Mode.DRY_RUN:
        connection.endpoint({})  # a wrong flag is told now: the commands that go on repeat it
    if mode in {Mode.EMULATOR, Mode.DRY_RUN}:
        return Target(mode)
    if plaintext and (connection.server_key or connection.client_key):
        raise SettingsError(
            "--plaintext", "uses no keys", "leave out --server-key and --client-key, or --plaintext"
        )
    keys = None if plaintext else connection.keys(env)
    return Target(mode, connection.account(env), connection.endpoint(env), keys)


def _pick(kind: type[Batching | Delivery], given: Mapping[str, Any]) -> dict[str, Any]:
    return {item.name: given[item.name] for item in fields(kind) if item.name in given}
