"""The service's wire, sans I/O: paths, headers, and what every reply means.

This is the only place that decides what a reply means; sending, opening and settling act on it.

Invariants:

1. A reply is *believed* only if it is a 2xx whose JSON is at hand and whose counts add up to the
   records sent. Everything else is named by one of the other classes, never guessed.
2. Nothing here raises on any bytes or any JSON.
3. Words of the service are data: :func:`~ctbatch.api.words.clean_words` is the only way for them
   to leave, and secrets are cut out of them here, before anybody sees them.

Sources: the vendor's "API Encryption", "Upload User Profiles API", "API Errors" and "API Request
Limit" pages; the 1-based number and the altered echo are from recorded exchanges.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ctbatch.api.words import Json, without_secrets

__all__ = [
    "ACCOUNT_HEADER",
    "HPKE_MEDIA_TYPE",
    "IDENTITY_KINDS",
    "JSON_MEDIA_TYPE",
    "MAX_CONCURRENT_UPLOADS",
    "MAX_RECORDS",
    "PASSCODE_HEADER",
    "TRANSIENT_CODE",
    "UPLOAD_PATH",
    "Entry",
    "Mapped",
    "Meaning",
    "Verdict",
    "headers",
    "identity_of",
    "judge",
    "map_entries",
    "stands",
]

UPLOAD_PATH = "/1/upload"
HPKE_MEDIA_TYPE = "application/octet-stream+hpke"
JSON_MEDIA_TYPE = "application/json"
ACCOUNT_HEADER = "X-CleverTap-Account-Id"
PASSCODE_HEADER = "X-CleverTap-Passcode"

MAX_RECORDS = 1000
"""Records per call: vendor's "Upload User Profiles API" page."""

MAX_CONCURRENT_UPLOADS = 15
"""Concurrent upload calls per account: vendor's "API Request Limit" page."""

TRANSIENT_CODE = 555
""""Miscellaneous server error": the only record code that looks transient ("API Errors" page)."""

IDENTITY_KINDS = ("identity", "FBID", "GPID", "objectId")
"""The four ways to name a user, in the order in which one is chosen ("Upload User Profiles")."""

_NUMBER = re.compile(r"Skipped record number\s*:\s*([0-9]{1,7})(?![0-9])", re.IGNORECASE)
_CODE = re.compile(r"-?[0-9]{1,9}")
_ECHO_KEYS = {**{kind: kind for kind in IDENTITY_KINDS}, "fbId": "FBID", "gpId": "GPID"}
"""Under which keys an echo names a user: the vendor's pages spell two of them in two ways."""


def headers(account_id: str, passcode: str, *, sealed: bool, body: bool) -> dict[str, str]:
    """The documented headers: a GET (no ``body``) names JSON as its Content-Type even when
    sealed.
    """
    media_type = HPKE_MEDIA_TYPE if sealed else JSON_MEDIA_TYPE
    return {
        ACCOUNT_HEADER: account_id,
        PASSCODE_HEADER: passcode,
        "Content-Type": media_type if body else JSON_MEDIA_TYPE,
        "Accept": media_type,
    }


class Meaning(StrEnum):
    """What a reply means for the records that were sent."""

    BELIEVED = "believed"
    AMBIGUOUS = "ambiguous"
    UNOPENED = "unopened"  # ambiguous, and a sign of wrong keys
    REFUSED = "refused"  # the batch as a whole
    TOO_LARGE = "too_large"
    THROTTLED = "throttled"
    FATAL = "fatal"  # us as a whole


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of ``unprocessed``; ``number`` is the 1-based number in its error text, if usable.

    ``names`` are the identities in the echo (``kind:value``), ``type`` its type's first letter.
    """

    number: int | None
    code: int | None
    words: str = field(repr=False)
    names: frozenset[str] = field(default=frozenset(), repr=False)
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reply means. ``result`` is the key under which the attempt is counted."""

    meaning: Meaning
    result: str
    code: int | None = None
    words: str = field(default="", repr=False)
    retry_after: str | None = None
    entries: tuple[Entry, ...] = ()

    @property
    def too_many(self) -> bool:
        """Whether more requests were on the wire than the service takes."""
        return self.result.rpartition("/")[2] == "429"


_FATAL = {401, 403, 404, 405, 407, 415}
_BY_STATUS = {
    **dict.fromkeys(_FATAL, Meaning.FATAL),
    408: Meaning.AMBIGUOUS,
    413: Meaning.TOO_LARGE,
    429: Meaning.THROTTLED,
    TRANSIENT_CODE: Meaning.AMBIGUOUS,
}


def judge(  # noqa: PLR0911  # a decision table: one return a row
    status: int,
    *,
    opened: bool,
    body: Json,
    records: int,
    retry_after: str | None = None,
    secrets: Collection[str] = (),
) -> Verdict:
    """Say what a reply to ``records`` records means.

    ``body`` is the parsed JSON or ``None``; ``opened`` says that the body was readable in the form
    that was asked for (it opened, or, without encryption, it is there at all). ``secrets`` are cut
    out of all words.
    """
    code, words = _code_and_words(body, secrets)
    result = str(status)
    if not 200 <= status < 300:
        meaning = _by_status(status, body, retry_after)
        if meaning is Meaning.FATAL:  # decided by the status, so explained by it
            code = status
        return Verdict(meaning, result, code, words, retry_after)
    if not opened:
        return Verdict(Meaning.UNOPENED, "unopened")
    if not isinstance(body, dict):
        return Verdict(Meaning.AMBIGUOUS, "unreadable")
    entries = body.get("unprocessed", [])
    processed = body.get("processed", 0 if "unprocessed" in body else None)
    if type(processed) is int and isinstance(entries, list):
        if processed >= 0 and processed + len(entries) == records:
            return Verdict(
                Meaning.BELIEVED, result, entries=tuple(_entry(raw, secrets) for raw in entries)
            )
        return Verdict(Meaning.AMBIGUOUS, "wrong_counts", code, words)
    if body.get("status") == "fail":
        result = f"{status}/{code or 'fail'}"
        return Verdict(_by_code(code), result, code or 400, words, retry_after)
    return Verdict(Meaning.AMBIGUOUS, "no_counts", code, words)


def _by_status(status: int, body: Json, retry_after: str | None) -> Meaning:
    """The row of the table for an HTTP status."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status == 503 and (retry_after is not None or _is_vendor_failure(body)):
        return Meaning.THROTTLED
    if status < 400:  # a redirect, or no answer at all: never followed
        return Meaning.FATAL
    return Meaning.REFUSED if status < 500 else Meaning.AMBIGUOUS


def stands(status: int, *, retry_after: str | None) -> bool:
    """Whether a status says by itself, whatever body was to come with it, that nothing was acted
    on.
    """
    if 200 <= status < 300:
        return False
    return _by_status(status, None, retry_after) is not Meaning.AMBIGUOUS


def _by_code(code: int | None) -> Meaning:
    """The row for the ``code`` of a failure that came with a 2xx: codes are HTTP statuses, or the
    service's own from 509 on; one that means nothing here is as 400.
    """
    if code in _BY_STATUS:
        return _BY_STATUS[code]
    if code == 503:
        return Meaning.THROTTLED
    return Meaning.AMBIGUOUS if code is not None and 500 <= code < 509 else Meaning.REFUSED


def _is_vendor_failure(body: Json) -> bool:
    return isinstance(body, dict) and body.get("status") == "fail" and "error" in body


def _code_and_words(body: Json, secrets: Collection[str]) -> tuple[int | None, str]:
    if not isinstance(body, dict):
        return None, ""
    code, words = body.get("code"), body.get("error")
    words = without_secrets(words, secrets) if isinstance(words, str) else ""
    if isinstance(code, str) and _CODE.fullmatch(code):
        code = int(code)
    return (code if type(code) is int else None), words


def _entry(raw: Json, secrets: Collection[str]) -> Entry:
    """Read one entry of ``unprocessed``, whatever it is."""
    code, words = _code_and_words(raw, secrets)
    record = raw.get("record") if isinstance(raw, dict) else None
    found = _NUMBER.findall(words)
    number = int(found[0]) if len(found) == 1 else None
    if not isinstance(record, dict):
        return Entry(number, code, words)
    kind = record.get("type")
    return Entry(
        number,
        code,
        words,
        names=frozenset(_names(record)),
        type=kind[:1] if isinstance(kind, str) and kind else None,
    )


def identity_of(kind: str, value: Json) -> str | None:
    """``kind:value``; the number 123, the string "123" and 123.0 are one identity.

    ``None`` for what names nobody, and for a number of which a parser may have lost digits.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return f"{kind}:{value}"


def _names(record: Mapping[str, Json]) -> Iterator[str]:
    for key, kind in _ECHO_KEYS.items():
        name = identity_of(kind, record.get(key))
        if name is not None:
            yield name


@dataclass(frozen=True, slots=True)
class Mapped:
    """Which records the service refused.

    ``refused`` maps a record's index to its entry; ``candidates`` are the records among which
    ``unresolved`` further refusals are, without a way to tell which.
    """

    refused: dict[int, Entry]
    candidates: frozenset[int] = frozenset()
    unresolved: tuple[Entry, ...] = ()


def map_entries(
    entries: Sequence[Entry], names: Sequence[frozenset[str]], types: Sequence[str]
) -> Mapped:
    """Map refusals to records by number, then by identity and type where that is unique.

    ``names[r]`` are the identities and ``types[r]`` the type's first letter of sent record ``r``.
    Never by comparing records: the service alters the echo (recorded: a phone comes back as a
    number). A number that is missing, out of range, repeated, or at odds with the echo is not used.
    """
    refused: dict[int, Entry] = {}
    loose: list[Entry] = []
    times = Counter(entry.number for entry in entries)
    for entry in entries:
        index = (entry.number or 0) - 1
        if (
            0 <= index < len(names)
            and times[entry.number] == 1
            and _fits(entry, names[index], types[index])
        ):
            refused[index] = entry
        else:
            loose.append(entry)
    return _map_loose(loose, refused, names, types) if loose else Mapped(refused)


def _fits(entry: Entry, names: frozenset[str], kind: str) -> bool:
    """Whether an entry's echo can be that of a record, as far as both are named."""
    known = entry.names and names
    return (not known or not entry.names.isdisjoint(names)) and entry.type in {None, kind}


def _map_loose(
    loose: Iterable[Entry],
    refused: dict[int, Entry],
    names: Sequence[frozenset[str]],
    types: Sequence[str],
) -> Mapped:
    """Map entries without a usable number; what stays open becomes candidates.

    Entries with the same echo are judged together: two of them for two records are certain too.
    """
    alike: dict[tuple[frozenset[str], str | None], list[Entry]] = {}
    for entry in loose:
        alike.setdefault((entry.names, entry.type), []).append(entry)
    free = [index for index in range(len(names)) if index not in refused]
    holders: dict[str, list[int]] = {}
    for index in free:
        for name in names[index]:
            holders.setdefault(name, []).append(index)
    open_: list[tuple[list[Entry], list[int]]] = []
    for (echoed, _), entries in alike.items():
        near = sorted({i for name in echoed for i in holders.get(name, ())}) if echoed else free
        fitting = [i for i in near if i not in refused and _fits(entries[0], names[i], types[i])]
        if len(fitting) == len(entries):
            refused.update(zip(fitting, entries, strict=True))
        else:
            open_.append((entries, fitting))
    return _candidates(open_, refused, free)


def _candidates(
    open_: Sequence[tuple[list[Entry], list[int]]], refused: dict[int, Entry], free: Sequence[int]
) -> Mapped:
    """The records among which the refused ones are; all of them, and it is certain after all."""
    hopeless = any(len(fitting) < len(entries) for entries, fitting in open_)
    # An echo of nothing that we sent may stand for any of them.
    near = free if hopeless else [index for _, fitting in open_ for index in fitting]
    candidates = frozenset(near) - refused.keys()
    unresolved = tuple(entry for entries, _ in open_ for entry in entries)
    if len(unresolved) != len(candidates):
        return Mapped(refused, candidates, unresolved)
    left = dict.fromkeys(sorted(candidates))
    strangers: list[Entry] = []
    for entries, fitting in open_:
        own = [index for index in fitting if index in left]
        for entry, index in zip(entries, own, strict=False):
            refused[index] = entry
            del left[index]
        strangers += entries[len(own) :]
    refused.update(zip(left, strangers, strict=True))
    return Mapped(refused)
