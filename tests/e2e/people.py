"""Invented people: lines for the end-to-end tests, by what becomes of them."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["counter", "event", "identities", "line", "mixture", "profile", "profiles"]


def line(record: dict[str, Any]) -> bytes:
    """A record as its line."""
    return json.dumps(record, ensure_ascii=False).encode()


def profile(identity: object, **data: Any) -> bytes:
    """A profile that only sets values: it may be sent twice."""
    return line({"type": "profile", "identity": identity, "profileData": data or {"Tier": "Gold"}})


def counter(identity: object) -> bytes:
    """A profile that counts: it must not be sent twice."""
    return profile(identity, Visits={"$incr": 1})


def event(identity: object, name: str = "Paid") -> bytes:
    """An event: neither must it."""
    return line({"type": "event", "identity": identity, "evtName": name, "evtData": {"Amount": 7}})


def identities(count: int, prefix: str = "u") -> list[str]:
    """The identities of :func:`profiles`."""
    return [f"{prefix}{number}" for number in range(1, count + 1)]


def profiles(count: int, prefix: str = "u") -> list[bytes]:
    """As many people, each once."""
    return [profile(name) for name in identities(count, prefix)]


def mixture(count: int, prefix: str = "u") -> list[bytes]:
    """People of whom every tenth is refused, every eleventh invalid, every thirteenth blank."""
    lines = []
    for number, name in enumerate(identities(count, prefix), 1):
        if number % 13 == 0:
            lines.append(b"")
        elif number % 11 == 0:
            lines.append(b'{"type":"profile","profileData":{"n":%d}}' % number)
        elif number % 10 == 0:
            lines.append(profile(name, Email="nobody at nowhere"))
        else:
            lines.append(profile(name, Number=number))
    return lines
