"""Reading a JSON answer without touching its records: they are cut out, byte for byte; pure.

What the members mean is not known here: see :mod:`ctbatch.api.queries`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["MAX_VALUES", "Number", "is_moderate", "read_object"]

MAX_VALUES = 5_000_000
"""Values in one answer: 1000 for each of the 5000 records that a page may have. Parsed, a value can
take 30 times its bytes, so a reply within its limit of bytes could still fill the memory.
"""


class Number(str):
    """A number, or another literal, by its text."""

    __slots__ = ()


def _refuse(_: str) -> Any:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=_refuse)


def is_moderate(text: bytes) -> bool:
    """Whether JSON has so few values that parsing it is no danger; commas in strings count too."""
    return sum(map(text.count, (b",", b"[", b"{"))) <= MAX_VALUES


def read_object(text: bytes) -> dict[str, Any] | None:
    """The members of a JSON object, or ``None`` if the text is none, or out of all measure.

    Strings are read, numbers are text, ``records`` (a list) and ``record`` (an object) are bytes
    that were cut out.
    """
    if not is_moderate(text):
        return None
    try:
        return _Scanner(text.decode()).whole()
    except (ValueError, RecursionError):
        return None


class _Scanner:
    """Walks over one JSON object and notes where the records begin and end.

    Each value is found, and proved to be JSON, by the standard library's decoder, which says where
    it ends; what it makes of a record is thrown away. So the bytes of a record are a slice of the
    text that came. UTF-8 is decoded strictly, which is one to one: encoded again, a slice is what
    it was. Line breaks in a slice can only be blanks between tokens (in a string they must be
    escaped), so making them blanks changes no value and gives a record one line.
    """

    __slots__ = ("_at", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def whole(self) -> dict[str, Any]:
        """The object, and nothing after it. Raises :class:`ValueError`."""
        members: dict[str, Any] = {}
        self._skip()
        self._series("{", "}", lambda: self._member(members))
        self._skip()
        if self._at != len(self._text):
            raise ValueError("something follows the object")
        return members

    def _member(self, members: dict[str, Any]) -> None:
        name, _ = self._value()
        if type(name) is not str or name in members:
            raise ValueError("a name is missing or repeated")
        self._take(":")
        if name == "records" and self._next() == "[":
            records: list[bytes] = []
            self._series("[", "]", lambda: records.append(self._value()[1]()))
            members[name] = records
            return
        value, cut = self._value()
        members[name] = cut() if name == "record" and isinstance(value, dict) else value

    def _series(self, opening: str, closing: str, item: Callable[[], None]) -> None:
        self._take(opening)
        if self._next() == closing:
            self._at += 1
            return
        while True:
            item()
            if self._next() == closing:
                self._at += 1
                return
            self._take(",")

    def _value(self) -> tuple[Any, Callable[[], bytes]]:
        """The next value, and how to cut it out."""
        self._skip()
        start = self._at
        value, self._at = _DECODER.raw_decode(self._text, start)
        end = self._at
        return value, lambda: _one_line(self._text[start:end])

    def _take(self, sign: str) -> None:
        if self._next() != sign:
            raise ValueError(f"{sign} is missing")
        self._at += 1

    def _next(self) -> str:
        self._skip()
        return self._text[self._at : self._at + 1]

    def _skip(self) -> None:
        while self._text[self._at : self._at + 1] in {" ", "\t", "\r", "\n"}:
            self._at += 1


def _one_line(text: str) -> bytes:
    return text.replace("\r", " ").replace("\n", " ").encode()
