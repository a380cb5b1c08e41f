"""What is asked of the reading endpoints, and what each of their answers means; pure.

Invariants:

1. A record leaves as the very bytes that came: it is cut out of the answer, never written anew, so
   that a number of any length and any spelling keeps its digits (:mod:`~ctbatch.api.records`).
2. The end of a list is a missing ``next_cursor`` in a page that says ``success``; nothing else is:
   not a short page, not an empty one, not an answer that is cut short.
3. An answer that does not open where a sealed one was asked for is never an :attr:`Sense.ANSWER`,
   and never says that somebody is not there.
4. Nothing here raises on any bytes of an answer.

What an HTTP status or a failure's code means is decided in :mod:`ctbatch.api.wire`; here are only
the meanings that reading adds. Sources: the vendor's "Get Events", "Get User Profiles", "Get User
Profile" and "API Encryption" pages; code 2, ``CURSOR_INVALIDATED`` and the missing ``records`` are
from clients that have logged them.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from ctbatch.api.records import read_object
from ctbatch.api.wire import Meaning, judge
from ctbatch.api.words import Json, clean_words
from ctbatch.errors import SettingsError

__all__ = [
    "DEFAULT_PAGE",
    "EVENTS_PATH",
    "LOOKUP_KINDS",
    "MAX_CONCURRENT_READS",
    "MAX_PAGE",
    "PROFILES_PATH",
    "PROFILE_PATH",
    "Heard",
    "Lookup",
    "Page",
    "Sense",
    "cursor_of",
    "encode_query",
    "event_query",
    "hear",
    "page_of",
    "page_query",
    "record_of",
]

EVENTS_PATH = "/1/events.json"
PROFILES_PATH = "/1/profiles.json"
PROFILE_PATH = "/1/profile.json"

MAX_CONCURRENT_READS = 3
"""Concurrent calls per account of each reading endpoint: vendor's "API Request Limit" page."""

MAX_PAGE = 5000
"""The largest ``batch_size``: vendor's "Get Events" page."""

DEFAULT_PAGE = 460
"""The service keeps data in 23 buckets and wants a multiple ("Get User Profiles"). 20 of each leave
2 kB for a record in the 1 MiB that a reply may have."""

LOOKUP_KINDS = ("email", "identity", "objectId")
"""The parameters that name a user: vendor's "Get User Profile" page."""

_IN_PROGRESS = 2
""""Request still in progress, please retry later" comes as HTTP 200 with this code."""

_EXPIRED_CODE = 4004
_EXPIRED_WORDS = ("cursor_invalidated", "invalid cursor")
_ACCEPTED = 202
_MISSING = 404


def _is_plain(text: str) -> bool:
    """Whether it can stand in a query as it is."""
    return text.isascii() and text.isprintable() and not set(text) & set(" &#")


@dataclass(frozen=True, slots=True)
class Lookup:
    """One user, named in one of the three ways."""

    kind: str
    value: str = field(repr=False)

    def __post_init__(self) -> None:
        if self.kind not in LOOKUP_KINDS:
            raise SettingsError(
                "the look-up", "names a user by something else", f"use {', '.join(LOOKUP_KINDS)}"
            )
        if not self.value:
            raise SettingsError(f"the {self.kind} to look up", "is empty")

    @property
    def query(self) -> str:
        """The query string: every character that is not a letter, a digit or ``_.-~`` escaped."""
        return encode_query([(self.kind, self.value)])


def encode_query(pairs: Iterable[tuple[str, str]]) -> str:
    """A query string: ``+``, blanks and other alphabets arrive as they were meant."""
    try:
        return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    except UnicodeEncodeError:
        raise SettingsError("a value to look up", "is not text (not UTF-8)") from None


def page_query(batch_size: int) -> str:
    """The query string of the request for a cursor. Raises :class:`SettingsError`."""
    if not 1 <= batch_size <= MAX_PAGE:
        raise SettingsError("--batch-size", f"must be from 1 to {MAX_PAGE}, not {batch_size}")
    return f"batch_size={batch_size}"


def event_query(
    name: str | None, from_date: int | None, to_date: int | None, query: bytes | None = None
) -> bytes:
    """The body of Get Events: ``query`` is a JSON object that the name and the dates (YYYYMMDD)
    complete; its own bytes stay as they are, but for a BOM.

    Raises:
        SettingsError: it is no JSON object, says otherwise than what is given, or lacks one of the
            three.
    """
    text = b"{}" if query is None else query.removeprefix(BOM_UTF8)  # RFC 8259, section 8.1
    members = read_object(text)
    if members is None:
        raise SettingsError("--query", "is not a JSON object in UTF-8")
    _check_dates(from_date, to_date)
    try:
        (name or "").encode()
    except UnicodeEncodeError:
        raise SettingsError("NAME", "is not text (UTF-8)") from None
    added: list[str] = []
    for option, member, value in (
        ("NAME", "event_name", name),
        ("--from", "from", from_date),
        ("--to", "to", to_date),
    ):
        own = _own(members, member)
        said = None if value is None else json.dumps(value, ensure_ascii=False)
        if own is None and said is None:
            raise SettingsError(option, "is missing", f"give it, or {member!r} in --query")
        if own is not None and said is not None and not _says(own, value):
            raise SettingsError(option, f"is not what {member!r} in --query says", "give one")
        if own is None:
            added.append(f'"{member}":{said}')
    if not added:
        return text
    rest = text.decode().lstrip().removeprefix("{")
    return ("{" + ",".join(added) + ("," if members else "") + rest).encode()


def _check_dates(from_date: int | None, to_date: int | None) -> None:
    for option, value in (("--from", from_date), ("--to", to_date)):
        if value is None:
            continue
        try:
            if not 19700101 <= value <= 99991231:
                raise ValueError
            date.fromisoformat(str(value))
        except ValueError:
            raise SettingsError(option, f"must be a date as YYYYMMDD, not {value}") from None
    if from_date is not None and to_date is not None and from_date > to_date:
        raise SettingsError("--from", "is after --to")


def _own(members: Mapping[str, Any], member: str) -> Any:
    """What a query says itself, or ``None``."""
    if member in members and members[member] is None:
        raise SettingsError("--query", f"has null for {member!r}", "give it, or leave it out")
    return members.get(member)


def _says(own: Any, value: object) -> bool:
    """Whether a member says the same; numbers are scanned as their text."""
    return bool(isinstance(own, str) and own == str(value))


class Sense(StrEnum):
    """What an answer means for who reads."""

    ANSWER = "answer"
    IN_PROGRESS = "in_progress"
    LATER = "later"  # not acted on: ask again
    LOST = "lost"  # perhaps acted on; reading may be repeated
    UNOPENED = "unopened"  # never believed, and a sign of wrong keys
    MISSING = "missing"  # nobody there
    EXPIRED = "expired"  # the cursor
    REFUSED = "refused"  # this request
    FATAL = "fatal"  # us as a whole


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer. ``last`` says in a few words what happened; ``words`` are the service's, cleaned;
    ``text`` is the opened body (empty if it did not open).
    """

    sense: Sense
    last: str
    status: int = 0
    code: int | None = None
    words: str = field(default="", repr=False)
    text: bytes = field(default=b"", repr=False)
    opened: bool = False
    retry_after: str | None = None
    members: Mapping[str, Any] | None = field(default=None, repr=False)


def hear(
    status: int,
    text: bytes,
    *,
    opened: bool,
    retry_after: str | None = None,
    found: str = "status",
    asked: Iterable[Json] = (),
    secrets: Collection[str] = (),
) -> Heard:
    """Say what an answer means.

    ``text`` is the body as it can be read, ``opened`` that it came in the form that was asked for.
    An answer has to say ``success``, or, with ``found`` empty (an endpoint that is not known here),
    just not to fail. What was ``asked`` for, which names people, and ``secrets`` are cut out of its
    words.
    """
    members = read_object(text)
    said = _failure_of(members)
    verdict = judge(
        status, opened=opened, body=said, records=-1, retry_after=retry_after, secrets=secrets
    )
    code, words = verdict.code, clean_words(verdict.words, *asked) if verdict.words else ""
    sense = _SENSES[verdict.meaning]
    good = 200 <= status < 300
    failed = said is not None and said.get("status") == "fail"
    if status == _ACCEPTED or (good and opened and failed and code == _IN_PROGRESS):
        sense = Sense.IN_PROGRESS
    elif good and opened and not failed and (not found or _is_success(members)):
        sense = Sense.ANSWER
    elif opened and members is not None:
        sense = _of_reading(sense, code or status, verdict.words)
    return Heard(
        sense,
        last=f"{verdict.result} {words}".strip(),
        status=status,
        code=code,
        words=words,
        text=text if opened else b"",
        opened=opened,
        retry_after=retry_after,
        members=members if opened else None,
    )


_SENSES = {
    # A count of uploaded records can not add up to -1, so a reading is never BELIEVED as one.
    Meaning.BELIEVED: Sense.LOST,
    Meaning.AMBIGUOUS: Sense.LOST,
    Meaning.UNOPENED: Sense.UNOPENED,
    Meaning.REFUSED: Sense.REFUSED,
    Meaning.TOO_LARGE: Sense.REFUSED,
    Meaning.THROTTLED: Sense.LATER,
    Meaning.FATAL: Sense.FATAL,
}


def _of_reading(sense: Sense, code: int, words: str) -> Sense:
    """What only a reading endpoint says, in an answer that opened."""
    if code == _MISSING:
        return Sense.MISSING
    if sense is Sense.REFUSED:
        said = words.lower()
        if code == _EXPIRED_CODE or any(sign in said for sign in _EXPIRED_WORDS):
            return Sense.EXPIRED
    return sense


def _is_success(members: Mapping[str, Any] | None) -> bool:
    return members is not None and members.get("status") == "success"


def _failure_of(members: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The members of an answer that say how it failed, as :func:`judge` reads them."""
    if members is None:
        return None
    said = {name: members[name] for name in ("status", "error") if name in members}
    code = members.get("code")
    if isinstance(code, str):  # numbers are scanned as their text
        said["code"] = str(code)
    return said


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its records as the bytes that came, each on one line, and where the next one is
    (``None``: this is the last). ``cursor`` is its own.
    """

    cursor: str = field(repr=False)
    records: tuple[bytes, ...] = field(repr=False)
    next_cursor: str | None = field(default=None, repr=False)


def page_of(cursor: str, heard: Heard) -> Page | None:
    """The page in an answer, or ``None`` if it is not one that can be believed."""
    members = heard.members or {}
    next_cursor = members.get("next_cursor")
    records = members.get("records")
    if records is None:
        records = []
    if not isinstance(records, list) or not all(map(_is_object, records)):
        return None
    if not next_cursor and (next_cursor is None or next_cursor == ""):
        return Page(cursor, tuple(records))
    # The same cursor once more would be read for ever; one that is no text cannot go back.
    if _is_cursor(next_cursor) and next_cursor != cursor:
        return Page(cursor, tuple(records), next_cursor)
    return None


def cursor_of(heard: Heard) -> str | None:
    """The cursor in the answer to a query, or ``None`` if there is none that could go back."""
    cursor = (heard.members or {}).get("cursor")
    return cursor if _is_cursor(cursor) else None


def record_of(heard: Heard) -> object:
    """The bytes of the record in the answer to a look-up; ``None`` where it is missing or null:
    nobody found. Anything else cannot be believed.
    """
    return (heard.members or {}).get("record")


def _is_cursor(cursor: object) -> bool:
    return type(cursor) is str and bool(cursor) and _is_plain(cursor)


def _is_object(record: bytes) -> bool:
    return record.startswith(b"{")
