"""What is sent, from Python values to the bytes of JSON; pure.

Invariants:

1. What cannot be said in JSON is refused, never changed: orjson writes ``null`` for NaN.
2. A refusal names which value it is about, and nothing that is in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import orjson

from ctbatch.errors import SettingsError

__all__ = ["body_of", "upload_of"]

_REMEDY = "JSON has text, true, false, null, lists, objects with text as keys, and finite numbers"


def upload_of(records: Sequence[Mapping[str, Any]]) -> bytes:
    """The body of an upload. Raises :class:`SettingsError` with the number, from 1, of a record
    that is not JSON.
    """
    parts = (_json(f"record {number}", record) for number, record in enumerate(records, 1))
    return b'{"d":[' + b",".join(parts) + b"]}"


def body_of(name: str, value: bytes | Mapping[str, Any] | None) -> bytes | None:
    """A body that may be bytes already, or none. Raises :class:`SettingsError` with its ``name``
    for one that is not JSON.
    """
    return value if value is None or isinstance(value, bytes) else _json(name, value)


def _json(name: str, value: object) -> bytes:
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:  # its words may hold a value's type, or worse
        why = "holds what JSON cannot say, or an integer of more than 64 bits"
        raise SettingsError(name, why, _REMEDY) from None
    if b"null" in text and _has_no_number(value):
        raise SettingsError(name, "holds NaN or an infinity", _REMEDY)
    return text


def _has_no_number(value: object) -> bool:
    """Whether a value that orjson could write has a float in it that is no number."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_no_number, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_no_number, value))
    if is_dataclass(value):
        return any(_has_no_number(getattr(value, field.name)) for field in fields(value))
    return False
