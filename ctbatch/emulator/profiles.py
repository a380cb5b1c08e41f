"""Users as the service would know them: accepted records merged in order of acceptance.

Invariants:

1. Sans I/O, and pure: the same uploads make the same users, ids and times included.
2. ``$add`` keeps values unique and drops the oldest beyond 100; ``$add`` on a scalar makes it a
   multi-value; ``$remove`` down to nothing removes the property (vendor's platform page).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["Event", "Profile", "Profiles", "merge", "stamp"]

_MAX_VALUES: Final = 100
_KINDS: Final = ("identity", "objectId", "FBID", "GPID")


@dataclass(frozen=True, slots=True)
class Event:
    """Something a user did, at ``ts`` epoch seconds."""

    name: str
    ts: int
    props: dict[str, Any] = field(repr=False)


@dataclass(slots=True)
class Profile:
    """One user."""

    object_id: str
    identity: str | None = None
    data: dict[str, Any] = field(default_factory=dict, repr=False)
    events: list[Event] = field(default_factory=list, repr=False)

    def shown(self, *, with_data: bool = True, with_events: bool = True) -> dict[str, Any]:
        """As ``/1/profile.json`` shows it."""
        names = {
            "name": self.data.get("Name"),
            "email": self.data.get("Email"),
            "identity": self.identity,
        }
        record: dict[str, Any] = {k: value for k, value in names.items() if value is not None}
        if with_data:
            record["profileData"] = self.data
        if with_events:
            record["events"] = self._summaries()
        record["platformInfo"] = [{"platform": "Web", "objectId": self.object_id}]
        return record

    def headed(self) -> dict[str, Any]:
        """As an event's ``profile`` shows it."""
        head: dict[str, Any] = {"objectId": self.object_id, "platform": "Web"}
        head |= {k: v for k, v in self.shown(with_events=False).items() if k != "platformInfo"}
        return head

    def _summaries(self) -> dict[str, dict[str, int]]:
        times: dict[str, list[int]] = {}
        for event in self.events:
            times.setdefault(event.name, []).append(event.ts)
        return {
            name: {"count": len(ts), "first_seen": min(ts), "last_seen": max(ts)}
            for name, ts in times.items()
        }


class Profiles:
    """All users, found by any of their identities or by e-mail address."""

    def __init__(self) -> None:
        self._by_identity: dict[tuple[str, str], Profile] = {}
        self._all: list[Profile] = []

    def __iter__(self) -> Iterator[Profile]:
        return iter(self._all)

    def find(self, kind: str, value: str) -> Profile | None:
        """The user with this ``identity``, ``objectId``, ``FBID``, ``GPID`` or ``email``."""
        if kind == "email":
            return next((p for p in self._all if p.data.get("Email") == value), None)
        return self._by_identity.get((kind, value))

    def apply(self, records: Iterable[dict[str, Any]], at: int) -> None:
        """Take in records that were accepted at that time, in epoch seconds."""
        for record in records:
            profile = self._of(record)
            if record["type"] == "profile":
                merge(profile.data, record["profileData"])
            elif record["type"] == "event":
                ts, props = int(record.get("ts") or at), record.get("evtData") or {}
                profile.events.append(Event(record["evtName"], ts, props))

    def _of(self, record: dict[str, Any]) -> Profile:
        known = [(kind, str(record[kind])) for kind in _KINDS if record.get(kind) is not None]
        profile = next((p for key in known if (p := self._by_identity.get(key))), None)
        if profile is None:
            made_up = uuid.uuid5(uuid.NAMESPACE_OID, ":".join(known[0]))
            profile = Profile(str(record.get("objectId") or made_up))
            self._all.append(profile)
            self._by_identity["objectId", profile.object_id] = profile
        for key in known:
            self._by_identity.setdefault(key, profile)
        if profile.identity is None and record.get("identity") is not None:
            profile.identity = str(record["identity"])
        return profile


def merge(data: dict[str, Any], changes: dict[str, Any]) -> None:
    """Apply one ``profileData`` to another: plain values set, operators do what they say."""
    for name, value in changes.items():
        if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _OPERATORS:
            ((operator, operand),) = value.items()
            merged = _OPERATORS[operator](data.get(name), operand)
        else:
            merged = value
        if merged is None:
            data.pop(name, None)
        else:
            data[name] = merged


def _values(value: Any) -> list[str]:
    if value is None:
        return []
    return list(map(str, value)) if isinstance(value, list) else [str(value)]


def _add(old: Any, new: Any) -> Any:
    return list(dict.fromkeys(_values(old) + _values(new)))[-_MAX_VALUES:]


def _remove(old: Any, gone: Any) -> Any:
    return [value for value in _values(old) if value not in _values(gone)] or None


def _incr(old: Any, by: Any) -> Any:
    return sum(value for value in (old, by) if isinstance(value, int | float))


_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "$set": lambda _, new: new,
    "$add": _add,
    "$remove": _remove,
    "$incr": _incr,
    "$decr": lambda old, by: _incr(old, -by if isinstance(by, int | float) else 0),
    "$delete": lambda *_: None,
}


def stamp(ts: int) -> int:
    """An event's time as the service shows it: ``yyyyMMddHHmmss`` as a number (in UTC here)."""
    return int(datetime.fromtimestamp(ts, UTC).strftime("%Y%m%d%H%M%S"))
