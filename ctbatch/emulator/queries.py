"""Get Events, Get User Profiles and Get User Profile over what was uploaded.

Invariants:

1. A cursor stands for one position: read twice, it gives the same page and the same next cursor.
2. A cursor is handed out percent-encoded and has to come back exactly so, byte for byte; in any
   other writing it is not known (``Incorrect Usage``).
3. A list ends where there is no ``next_cursor``; with nothing at all ``records`` is missing too.

Texts and codes 2, 400, 4002 and 4004 are those that clients have logged.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from ctbatch.emulator.envelope import Refused
from ctbatch.emulator.profiles import Event, Profile, Profiles, stamp
from ctbatch.emulator.state import Config, Store
from ctbatch.emulator.verdicts import RESTRICTED_EVENTS

__all__ = ["Queries"]

Answer = dict[str, Any]
_MAX_PAGE: Final = 5000
_LOOKUPS: Final = ("email", "identity", "objectId")
_PROFILE_CURSOR_LIFE_S: Final = 4 * 86_400.0


@dataclass(slots=True)
class _Query:
    """The result of a query, cut into pages as cursors ask for them."""

    rows: list[Answer] = field(repr=False)
    size: int
    born: float
    used: float
    life_s: float
    idle_s: float
    in_progress: int
    cursors: dict[int, str] = field(default_factory=dict, repr=False)


class Queries:
    """Answers queries over a :class:`Store`, which is read further when one comes in."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._profiles = Profiles()
        self._applied = 0
        self._cursors: dict[str, tuple[_Query, int]] = {}

    def lookup(self, query: Mapping[str, str], config: Config) -> Answer:
        """``GET /1/profile.json``: one user, by the first parameter that is there."""
        kind = next((kind for kind in _LOOKUPS if query.get(kind)), None)
        if kind is None:
            raise Refused(400, "One of email, identity or objectId is mandatory")
        found = self._known().find(kind, query[kind])
        if found is None and config.missing_profile_status != 200:
            raise Refused(config.missing_profile_status, "Profile not found")
        return {"status": "success", "record": found.shown() if found else None}

    def open_events(self, query: Mapping[str, str], body: object, config: Config) -> Answer:
        """``POST /1/events.json``: a cursor."""
        wanted = _wanted(body, self._today())
        names = {event.name for profile in self._known() for event in profile.events}
        if wanted["event_name"] not in names | RESTRICTED_EVENTS:
            raise Refused(200, f'["Invalid event : {wanted["event_name"]}"]', 400)
        with_data = query.get("profile", "true") != "false"
        rows = [
            _event_row(profile, event, with_data=with_data)
            for profile in self._profiles
            for event in profile.events
            if _is_wanted(event, wanted)
        ]
        return self._open(rows, query, config, config.cursor_life_s, config.cursor_idle_s)

    def open_profiles(self, query: Mapping[str, str], body: object, config: Config) -> Answer:
        """``POST /1/profiles.json``: a cursor over the users who did what is asked for."""
        wanted = _wanted(body, self._today())
        rows = [
            profile.shown(
                with_data=query.get("profile", "true") != "false",
                with_events=query.get("events", "true") != "false",
            )
            for profile in self._known()
            if any(_is_wanted(event, wanted) for event in profile.events)
        ]
        return self._open(rows, query, config, _PROFILE_CURSOR_LIFE_S, _PROFILE_CURSOR_LIFE_S)

    def page(self, cursor: str) -> Answer:
        """``GET …?cursor=``: the page at the cursor, which is given as it came."""
        found = self._cursors.get(cursor)
        if found is None:
            raise Refused(200, "Incorrect Usage", 400)
        query, start = found
        now = self._clock()
        if now - query.born > query.life_s or now - query.used > query.idle_s:
            raise Refused(200, "CURSOR_INVALIDATED: invalid cursor", 4004)
        query.used = now
        if query.in_progress > 0:
            query.in_progress -= 1
            raise Refused(200, "Request still in progress, please retry later", 2)
        end = start + query.size
        answer: Answer = {"status": "success"}
        if end < len(query.rows):
            answer["next_cursor"] = self._cursor(query, end)
        if query.rows:
            answer["records"] = query.rows[start:end]
        return answer

    def _open(
        self,
        rows: list[Answer],
        query: Mapping[str, str],
        config: Config,
        life_s: float,
        idle_s: float,
    ) -> Answer:
        size = query.get("batch_size", str(_MAX_PAGE))
        if not size.isdecimal() or not 0 < int(size) <= _MAX_PAGE:
            raise Refused(400, f"batch_size must be from 1 to {_MAX_PAGE}")
        now = self._clock()
        opened = _Query(rows, int(size), now, now, life_s, idle_s, config.in_progress)
        return {"status": "success", "cursor": self._cursor(opened, 0)}

    def _cursor(self, query: _Query, start: int) -> str:
        if start not in query.cursors:
            # 61 bytes, so that "=" ends it; "+/" first, so that every cursor needs encoding.
            token = "+/" + base64.b64encode(secrets.token_bytes(61)).decode()
            query.cursors[start] = cursor = quote(token, safe="")
            self._cursors[cursor] = query, start
        return query.cursors[start]

    def _known(self) -> Profiles:
        uploads = self._store.uploads
        while self._applied < len(uploads):
            upload = uploads[self._applied]
            self._profiles.apply(upload.records(), upload.at)
            self._applied += 1
        return self._profiles

    def _today(self) -> int:
        return stamp(int(self._clock())) // 1_000_000


def _wanted(body: object, today: int) -> Answer:
    if not isinstance(body, dict) or not isinstance(body.get("event_name"), str):
        raise Refused(400, "event_name is mandatory")
    begin, end = body.get("from"), body.get("to")
    if not isinstance(begin, int) or not isinstance(end, int) or not begin <= end <= today:
        raise Refused(200, "Invalid date range", 4002)
    return body


def _is_wanted(event: Event, wanted: Answer) -> bool:
    if event.name != wanted["event_name"]:
        return False
    if not wanted["from"] <= stamp(event.ts) // 1_000_000 <= wanted["to"]:
        return False
    return all(_holds(event.props, need) for need in wanted.get("event_properties", ()))


def _holds(props: Answer, need: Answer) -> bool:
    value = props.get(need.get("name", ""))
    asked = need.get("value")
    if need.get("operator", "equals") == "contains":
        return str(asked) in str(value)
    return value in asked if isinstance(asked, list) else value == asked


def _event_row(profile: Profile, event: Event, *, with_data: bool) -> Answer:
    head = profile.headed()
    if not with_data:
        head.pop("profileData")
    return {"profile": head, "ts": stamp(event.ts), "event_props": event.props}
