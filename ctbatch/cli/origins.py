"""Where each setting of account, endpoint and keys comes from: a flag, a variable, a default; and
whether the settings are complete.

Invariants:

1. What is shown here is what :class:`~ctbatch.cli.options.Connection` uses: the values are its
   own, only the origins are worked out here, and a test compares the two.
2. A secret is shown as being there, no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from ctbatch.api.findings import Finding, Status, Step, failure
from ctbatch.cli.options import Connection, Environment
from ctbatch.errors import SettingsError
from ctbatch.settings import Account, Endpoint, KeyFiles

__all__ = ["Settled", "origins", "settle"]

_T = TypeVar("_T")

_SET = "(set)"


@dataclass(frozen=True, slots=True)
class Origin:
    """One setting: what it is, and the flag or variable it comes from; ``""``: it is missing."""

    name: str
    value: str
    origin: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Settled:
    """The settings that are complete, and the findings about all of them."""

    account: Account | None
    endpoint: Endpoint | None
    keys: KeyFiles | None
    findings: tuple[Finding, ...]


def settle(connection: Connection, env: Environment) -> Settled:
    """Take from flags and variables what is complete, and say of each setting where it comes from.

    May block: secrets may be in files.
    """
    found = [_finding(origin) for origin in origins(connection, env)]
    # What is missing has been said; what is there and wrong is said by whoever reads it.
    missing = {finding.facts["setting"] for finding in found if finding.status is Status.LOCAL}

    def usable(needs: set[str], make: Callable[[Environment], _T | None]) -> _T | None:
        if needs & missing:
            return None
        try:
            return make(env)
        except SettingsError as error:
            found.append(failure(Step.SETTINGS, error))
            return None

    account = usable({"account id", "passcode"}, connection.account)
    endpoint = usable(set(), connection.endpoint)
    keys = usable({"server key", "client key"}, connection.keys)
    return Settled(account, endpoint, keys, tuple(found))


def origins(connection: Connection, env: Environment) -> Iterator[Origin]:
    """Each setting that is given, has a default, or is missing and needed."""
    yield _either(
        "account id",
        ("--account-id", connection.account_id),
        ("CLEVERTAP_ACCOUNT_ID", env.get("CLEVERTAP_ACCOUNT_ID")),
        remedy="set CLEVERTAP_ACCOUNT_ID or pass --account-id: the dashboard's settings show it",
    )
    yield _either(
        "passcode",
        ("--passcode-file", _shown(connection.passcode_file)),
        ("CLEVERTAP_PASSCODE", env.get("CLEVERTAP_PASSCODE") and _SET),
        remedy="set CLEVERTAP_PASSCODE or pass --passcode-file: the dashboard's settings show it",
    )
    yield _endpoint(connection, env)
    yield _either(
        "server key",
        ("--server-key", _shown(connection.server_key)),
        ("CTBATCH_SERVER_KEY", env.get("CTBATCH_SERVER_KEY")),
        remedy="fetch the service's public keyset from the dashboard and set CTBATCH_SERVER_KEY to "
        "its file",
    )
    yield _either(
        "client key",
        ("--client-key", _shown(connection.client_key)),
        ("CTBATCH_CLIENT_KEY", env.get("CTBATCH_CLIENT_KEY")),
        remedy="make yours with `ctbatch keys generate --out DIR` and set CTBATCH_CLIENT_KEY to "
        "DIR/client-private.json",
    )
    yield from _extras(connection)


def _extras(connection: Connection) -> Iterator[Origin]:
    if connection.hpke_info is not None:
        yield Origin("HPKE info", connection.hpke_info or "empty", "--hpke-info")
    else:
        yield Origin("HPKE info", "the account id", "default")
    for name, flag, value in (
        ("passphrase", "--passphrase-file", connection.passphrase_file),
        ("trusted certificates", "--ca-file", connection.ca_file),
        ("proxy", "--proxy", _without_login(connection.proxy)),
    ):
        if value is not None:
            yield Origin(name, str(value), flag)
    if connection.insecure_key_permissions:
        yield Origin("key permissions", "not looked at", "--insecure-key-permissions")


def _endpoint(connection: Connection, env: Environment) -> Origin:
    """Region or URL; a flag for either hides both variables."""
    choices = [
        ("--base-url", _without_login(connection.base_url)),
        ("--region", _region(connection.region)),
    ]
    if connection.region is None and connection.base_url is None:
        choices = [
            ("CLEVERTAP_BASE_URL", _without_login(env.get("CLEVERTAP_BASE_URL"))),
            ("CLEVERTAP_REGION", _region(env.get("CLEVERTAP_REGION"))),
        ]
    return _either("endpoint", *choices, ("default", "region eu1"))


def _either(name: str, *choices: tuple[str, str | None], remedy: str = "") -> Origin:
    """The first choice that is given."""
    given = ((value, origin) for origin, value in choices if value)
    value, origin = next(given, ("", ""))
    return Origin(name, value, origin, remedy)


def _finding(found: Origin) -> Finding:
    facts = {"setting": found.name, "value": found.value, "origin": found.origin}
    if not found.origin:
        return Finding(
            Step.SETTINGS, Status.LOCAL, f"{found.name} is missing", (found.remedy,), facts
        )
    origin = found.origin if found.origin == "default" else f"from {found.origin}"
    return Finding(Step.SETTINGS, Status.OK, f"{found.name}: {found.value}, {origin}", facts=facts)


def _shown(path: object) -> str | None:
    return None if path is None else str(path)


def _region(code: str | None) -> str | None:
    return code and f"region {code}"


def _without_login(url: str | None) -> str | None:
    """A URL with a login is refused, but it must not be shown before."""
    return "(not shown: it has a login)" if url and "@" in url else url
