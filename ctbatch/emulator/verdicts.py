"""Which records of an upload the service refuses, with its codes and in its words.

The order of the checks, the words and the altered echo are those of recorded exchanges where one is
known (codes 509, 513, 515 to 520, 525); the words of the others are not published and are invented.

Invariants:

1. Sans I/O, and no state: a verdict depends on the record and the rules only.
2. One refusal per record: the first check that fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["MISCELLANEOUS", "RESTRICTED_EVENTS", "Record", "Rules", "code_of", "echo_of", "words"]

Record = dict[str, Any]

MISCELLANEOUS: Final = 555

RESTRICTED_EVENTS: Final = frozenset(
    {
        "Notification Sent",
        "Notification Viewed",
        "Notification Clicked",
        "Notification Delivered",
        "Notification Replied",
        "UTM Visited",
        "App Launched",
        "App Uninstalled",
        "App Version Changed",
        "Stayed",
        "Reply Sent",
        "Experiment Rendered",
        "Reachable By",
        "Identity Reset",
        "Identity Set",
        "Identity Error",
        "Web Page Viewed",
    }
)
"""Code 513: the vendor's list, and one name seen refused in a log of 2024."""

_PROFILE = "Profile data is incorrect. "
_EVENT = "Event Name is incorrect. ErrorCode: "

# The blank before "Skipped" is there or not as in the recordings.
_WORDS: Final[dict[int, str]] = {
    509: f"{_EVENT}509 - Event name is mandatory. ",
    512: "Event structure is invalid. ",
    513: f"{_EVENT}513 - Trying to raise a restricted system event. ",
    514: f"{_PROFILE}Gender needs to be M/F.",
    515: f"{_PROFILE}Email is not valid.",
    516: f"{_PROFILE}Phone number is not valid.",
    517: f"{_PROFILE}Employed needs to be Y/N.",
    518: f"{_PROFILE}Education needs to be School/College/Graduate..",
    519: f"{_PROFILE}Married needs to be Y/N.",
    520: f"{_PROFILE}Age is invalid.",
    522: "Number of event properties exceeds the limit. ",
    523: "Identity is missing. ",
    524: "Record is neither an event nor a profile. ",
    525: "Timestamp should be present in the Unix Epoch format. ",
    526: "Object ID is invalid. ",
    528: "Event is discarded. ",
    530: "Invalid object ID. ",
    531: "Invalid token data. ",
    532: "Token ID is missing. ",
    533: "Token type is missing. ",
    534: "Token type is not valid for the object ID. ",
    MISCELLANEOUS: "Miscellaneous error. ",
}

_IDENTITIES: Final = ("identity", "FBID", "GPID", "objectId")
_OTHERS: Final = frozenset(_IDENTITIES[1:])
_TOKEN_TYPES: Final = frozenset({"apns", "gcm", "fcm", "wns", "mpns", "chrome"})
_MAX_IDENTITY: Final = 1024
# Epoch seconds of the year 9999, so that milliseconds are refused.
_MAX_TS: Final = 253_402_300_799
_EMAIL: Final = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+").fullmatch
# A plus sign and more than four digits: the vendor's warehouse import page.
_PHONE: Final = re.compile(r"\+[0-9]{5,15}").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What differs from account to account."""

    max_event_properties: int = 100
    discarded_events: frozenset[str] = frozenset()


def words(code: int, number: int | None) -> str:
    """The error text; ``number`` is the record's 1-based place in the call, ``None`` leaves it
    out.
    """
    said = _WORDS[code]
    return said.rstrip() if number is None else f"{said}Skipped record number : {number}"


def code_of(record: object, rules: Rules) -> int | None:
    """The code the record is refused with, or ``None``."""
    if type(record) is not dict:
        return 524
    assert isinstance(record, dict)
    kind = record.get("type")
    if kind == "token":
        return _token(record)
    if kind not in {"profile", "event"}:
        return 524
    if (code := _identity(record)) is not None:
        return code
    if "ts" in record and not _is_epoch(record["ts"]):
        return 525
    return _profile(record) if kind == "profile" else _event(record, rules)


def echo_of(record: object, code: int) -> object:
    """The record as the service gives it back: **not** what was sent.

    Recorded: once Phone has passed, it comes back as a number; in the Age case an identity inside
    profileData comes back as a string.
    """
    if not isinstance(record, dict) or not isinstance(record.get("profileData"), dict):
        return record
    data = dict(record["profileData"])
    if code in {517, 518, 519, 520, 514} and isinstance(data.get("Phone"), str):
        data["Phone"] = int(data["Phone"][1:])
    if code == 520 and "identity" in data:
        data["identity"] = str(data["identity"])
    return {**record, "profileData": data}


def _identity(record: Record) -> int | None:
    value = record.get("identity")
    if type(value) is str and 0 < len(value) <= _MAX_IDENTITY and _OTHERS.isdisjoint(record):
        return None  # the usual case, at a third of the time
    found = False
    for kind in _IDENTITIES:
        value = record.get(kind)
        if value is None:
            continue
        if type(value) not in {str, int, float} or not 0 < len(str(value)) <= _MAX_IDENTITY:
            return 526 if kind == "objectId" else 523
        found = True
    return None if found else 523


def _is_epoch(ts: object) -> bool:
    return isinstance(ts, int) and not isinstance(ts, bool) and 0 < ts <= _MAX_TS


def _profile(record: Record) -> int | None:
    data = record.get("profileData")
    if not isinstance(data, dict):
        return 524
    if _FIELDS.keys().isdisjoint(data):
        return None
    for field, (code, is_good) in _FIELDS.items():
        if field in data and not is_good(value := data[field]) and type(value) is not dict:
            return code  # an operator such as {"$delete": 1} is not a value to be checked
    return None


def _event(record: Record, rules: Rules) -> int | None:
    name = record.get("evtName")
    if not isinstance(name, str) or not name:
        return 509
    if name in RESTRICTED_EVENTS:
        return 513
    if name in rules.discarded_events:
        return 528
    data = record.get("evtData", {})
    if not isinstance(data, dict):
        return 512
    return 522 if len(data) > rules.max_event_properties else None


def _token(record: Record) -> int | None:
    data = record.get("tokenData")
    if not isinstance(record.get("objectId"), str) or not record["objectId"]:
        return 530
    if not isinstance(data, dict):
        return 531
    if not data.get("id"):
        return 532
    if not data.get("type"):
        return 533
    return None if data["type"] in _TOKEN_TYPES else 534


def _one_of(*allowed: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in allowed


def _is_email(value: Any) -> bool:
    return isinstance(value, str) and _EMAIL(value) is not None


def _is_phone(value: Any) -> bool:
    return isinstance(value, str) and _PHONE(value) is not None


def _is_age(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isdecimal()
    return isinstance(value, int | float) and not isinstance(value, bool)


# In the order the service checks them: recorded for all but Gender, whose place is not known.
_FIELDS: Final[Mapping[str, tuple[int, Callable[[Any], bool]]]] = {
    "Email": (515, _is_email),
    "Phone": (516, _is_phone),
    "Gender": (514, _one_of("M", "F")),
    "Employed": (517, _one_of("Y", "N")),
    "Education": (518, _one_of("School", "College", "Graduate")),
    "Married": (519, _one_of("Y", "N")),
    "Age": (520, _is_age),
}
