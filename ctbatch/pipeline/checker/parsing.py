"""One line to one JSON object, strictly; or a :class:`Flaw` that says why not.

The bytes of an accepted line are sent unchanged, so they must mean one thing to every reader:
what two parsers could understand differently is refused here.

Invariants:

1. An accepted line is one JSON object by itself (RFC 8259, UTF-8), nested at most 254 deep, without
   a duplicate key in any object, a lone surrogate, NaN, an infinite number or one of more than
   ``MAX_NUMBER_BYTES`` bytes. Joining such lines with commas gives an array of as many objects.
2. Nothing is raised, whatever the bytes. A flaw says the kind and the place, never the content.

What the object has to hold is :mod:`ctbatch.pipeline.checker.fields`' to say.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

__all__ = ["MAX_NUMBER_BYTES", "Flaw", "Record", "parse", "parse_exactly"]

Record = dict[str, Any]

MAX_NUMBER_BYTES: Final = 512
"""The vendor's limit of a value; a number is one too."""

_NUMBER_BYTES: Final = b"+-.0123456789Ee"
_NUMBER_RUN: Final = re.compile(rb"[-+.0-9Ee]{0,%d}" % (MAX_NUMBER_BYTES + 1))


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a line is invalid: ``code`` is a short word, ``error`` a sentence without data."""

    code: str
    error: str


class _FlawFoundError(Exception):
    """Carries a flaw out of a hook of the parser."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.code)
        self.flaw = flaw


_DUPLICATE: Final = Flaw("duplicate_key", "an object holds the same key twice")
_TOO_DEEP: Final = Flaw("too_deep", "the record is nested too deeply, 254 levels are the limit")
_LONG: Final = Flaw(
    "number_too_long", f"a number is longer than {MAX_NUMBER_BYTES} bytes, the limit of a value"
)
_INFINITE: Final = Flaw("number_too_large", "a number is too large for any reader of JSON")


def parse(line: bytes) -> Record | Flaw:
    """The object on the line. Integers beyond 64 bits come as floats; see
    :func:`parse_exactly`.
    """
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _diagnose(line, error)
    if type(record) is not dict:
        return Flaw("not_an_object", "the line holds JSON, but not an object")
    try:
        written = orjson.dumps(record)
    except TypeError:  # orjson writes 254 levels and reads 1024
        return _TOO_DEEP
    # orjson keeps the last of duplicate keys without a word. Written again, an object has as many
    # colons as the line unless keys were dropped or a colon was escaped. For 300 bytes this look
    # costs 0.8 µs, and the exact parse 7 µs.
    if (
        line.count(b":") != written.count(b":")
        or (b"\\" in line and b"\\u003" in line)  # two looks: the first is six times faster
        or (len(line) > MAX_NUMBER_BYTES and _may_hold_long_number(line))
    ):
        exact = parse_exactly(line)
        return exact if isinstance(exact, Flaw) else record
    return record


def parse_exactly(line: bytes) -> Record | Flaw:
    """Like :func:`parse` for a line that orjson accepts, slower, with each number as it is
    written: an ``int``, or the text of a number with a fraction or exponent.
    """
    try:
        record: Record = json.loads(
            line, object_pairs_hook=_unique, parse_int=_exact_int, parse_float=_exact_float
        )
    except _FlawFoundError as found:
        return found.flaw
    except RecursionError:
        return _TOO_DEEP
    return record


def _unique(pairs: list[tuple[str, Any]]) -> Record:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _FlawFoundError(_DUPLICATE)
    return found


def _exact_int(text: str) -> int:
    return int(_exact_float(text))


def _exact_float(text: str) -> str:
    if len(text) > MAX_NUMBER_BYTES:
        raise _FlawFoundError(_LONG)
    return text


def _may_hold_long_number(line: bytes) -> bool:
    # A run of 513 bytes covers one of every 513 places: a glance at these, and at what stands
    # around those that could be of a number, is all. (To search a whole line of 100 kB took 13 ns
    # a byte, six times as long as everything else that is checked of it.)
    step = MAX_NUMBER_BYTES + 1
    glance = line[MAX_NUMBER_BYTES::step]
    if len(glance.translate(None, _NUMBER_BYTES)) == len(glance):
        return False
    return any(
        byte in _NUMBER_BYTES and _run_around(line, MAX_NUMBER_BYTES + step * n) >= step
        for n, byte in enumerate(glance)
    )


def _run_around(line: bytes, at: int) -> int:
    """How many bytes that a number can have stand together around a place, as far as it matters."""
    before = line[max(0, at - MAX_NUMBER_BYTES) : at][::-1]
    runs = (_NUMBER_RUN.match(before), _NUMBER_RUN.match(line, at))
    return sum(run.end() - run.start() for run in runs if run)


def _diagnose(line: bytes, error: orjson.JSONDecodeError) -> Flaw:
    """Why orjson refused the line. Its own words are not passed on: they could quote the line."""
    try:
        text = line.decode()
    except UnicodeDecodeError as wrong:
        return Flaw("not_utf8", f"byte {wrong.start + 1} of the line is not valid UTF-8")
    for part, flaw in _BY_MESSAGE:
        if part in error.msg:
            return flaw
    at = error.pos
    code, words = "not_json", "the line is not valid JSON from here on"
    if text.startswith(("NaN", "Infinity"), at):
        code, words = "not_a_number", "NaN or Infinity is not JSON"
    elif text[at : at + 1] < " ":  # also where the text has ended
        code, words = "control_character", "a control character stands unescaped"
    elif "after document" in error.msg:
        code, words = "more_than_one", "something follows the end of the JSON value"
    return Flaw(code, f"character {at + 1}: {words}")


# A part of orjson's message, and what it means.
_BY_MESSAGE: Final = (
    ("depth limit", _TOO_DEEP),
    ("is infinity", _INFINITE),
    ("surrogate", Flaw("lone_surrogate", "a string holds half of a surrogate pair")),
    ("BOM", Flaw("byte_order_mark", "a byte order mark stands before the JSON")),
    ("end of data", Flaw("cut_short", "the line ends in the middle of the JSON")),
    ("zero-length", Flaw("cut_short", "the line is empty")),
)
