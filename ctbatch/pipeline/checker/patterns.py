"""Regular expressions of lines, and how a batch is matched with them; they know nothing of users.

A pattern is put together from :data:`CLASSES` of scalars with :func:`either`, :func:`list_of` and
:func:`object_of`; :func:`singly` and :func:`in_series` match whole batches with it. What a match
proves is argued in :mod:`~ctbatch.pipeline.checker.shapes`.

Of the text of an export half is keys, quotes and commas, and an engine compares the text of a
pattern letter by letter, each of them an instruction. What a group has captured it compares as one
piece. So in a series the text of the first line is captured, piece by piece, and the lines after it
refer to that. A group of a piece can capture nothing but the piece: a reference matches exactly
what its text would.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from operator import itemgetter
from typing import Final

__all__ = [
    "CLASSES",
    "Find",
    "Form",
    "either",
    "form_for",
    "in_series",
    "list_of",
    "object_of",
    "singly",
]

Find = Callable[[bytes], list[bytes]]
"""For each line of a text, which ends in a line feed, what the pattern captures, or nothing where
it does not match. In the quicker forms they may be fewer: a string ran over the end of its line.
"""

SERIES: Final = 16
"""Lines matched together. Fewer take longer, and so do more where some are bad."""

_MAX_LINE: Final = 16_384
"""Bytes of the pattern of a line in a series, that of 250 keys at most."""

_MAX_ITEMS: Final = 100

_CONTROLS: Final = tuple(bytes((code,)) for code in range(0x20) if code != 0x0A)
"""What no text without control characters holds; line feeds may be. Searching for each takes less
than one pass that looks at each byte, and makes no copy: a search looks at 32 bytes at a time.
"""

_MARK: Final = b"\0"
"""Stands around text that a match always has, once. Nothing else is one: keys are JSON."""


class Form(Enum):
    """How closely a shape looks at strings."""

    CAREFUL = auto()
    ESCAPED = auto()
    PLAIN = auto()


def _text(pattern: bytes) -> bytes:
    return _MARK + pattern + _MARK


def _within(pattern: bytes) -> bytes:
    """The pattern where it may match not at all, or more than once."""
    return pattern.replace(_MARK, b"")


_Classes = Mapping[str, bytes]
"""A pattern for each class of scalars."""

_UNIT: Final = rb"[^\"\\\x00-\x1f]"
_ESCAPE: Final = (
    rb'\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    rb"|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
_INTEGER: Final = rb"(?:0|-?[1-9][0-9]{0,17}+)"
_CAREFUL: Final[_Classes] = {
    "identity": rb'"(%b{1,1024}+)"' % _UNIT,
    "number identity": rb"(%b)" % _INTEGER,
    "event name": rb'"%b{1,120}+"' % _UNIT,
    "string": rb'"(?:%b{0,512}+"|(?=%b*+\\)(?:%b|%b){0,128}")' % (_UNIT, _UNIT, _UNIT, _ESCAPE),
    "number": _INTEGER + rb"(?:\.[0-9]{1,18}+|)(?:[eE][-+]?[0-9]{1,2}+|)",
    "integer": _INTEGER,
    "seconds": rb"[1-9][0-9]{0,10}+",
    "word": rb"(?:true|false|null)",
    "null": _text(rb"null"),
    "profile": _text(rb'"profile"'),
    "event": _text(rb'"event"'),
    "token": _text(rb'"token"'),
}
"""The classes of scalars.

Of all the branches in a shape no two can match the same text, and the repeats that could give back
are possessive: a line that does not match is found out in linear time.
"""

_QUOTE: Final = _text(b'"')
_ESCAPED: Final[_Classes] = dict(_CAREFUL) | {
    "identity": rb'%b([^"\\]{1,1024}+)%b' % (_QUOTE, _QUOTE),
    "event name": rb'%b[^"]{1,120}+%b' % (_QUOTE, _QUOTE),
    "string": rb'%b[^"]{0,512}+%b' % (_QUOTE, _QUOTE),
}
"""The classes where quotes do nothing but begin and end strings: half the time."""

CLASSES: Final[Mapping[Form, _Classes]] = {
    Form.CAREFUL: _CAREFUL,
    Form.ESCAPED: _ESCAPED,
    Form.PLAIN: dict(_ESCAPED) | {"identity": rb'%b([^"]{1,1024}+)%b' % (_QUOTE, _QUOTE)},
}
"""The classes of scalars in each form; those of an identity capture it."""

_OTHER_ESCAPE: Final = re.compile(
    rb"\\(?![/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}"
    rb"|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?<=\\u[dD][89abAB][0-9a-fA-F]{2}\\)u[dD][c-fC-F][0-9a-fA-F]{2})"
)
"""A backslash with which no whole escape begins, or that of a quote or a backslash."""


def form_for(text: bytes) -> Form:
    """The quickest form that proves enough of such lines."""
    if any(map(text.__contains__, _CONTROLS)):
        return Form.CAREFUL
    if b"\\" not in text:
        return Form.PLAIN
    return Form.CAREFUL if _OTHER_ESCAPE.search(text) else Form.ESCAPED


def either(branches: Sequence[bytes]) -> bytes:
    """One of them; of none, nothing."""
    return b"(?:" + _within(b"|".join(branches)) + b")" if branches[1:] else b"".join(branches)


def list_of(item: bytes, comma: bytes) -> bytes:
    """A list of at most 100 such items; an empty one, where there is no item."""
    if not item:
        return rb"\[\]"
    return _within(rb"\[(?:%b(?:%b%b){0,%d}|)\]" % (item, comma, item, _MAX_ITEMS - 1))


def object_of(members: Sequence[tuple[bytes, bytes, bool]], style: tuple[bytes, bytes]) -> bytes:
    """An object: in order the text of each key, a pattern of its value, whether it is always there.

    ``style`` is how members are separated, and keys from values.
    """
    comma, colon = style
    each = [(_text(re.escape(key) + colon) + value, always) for key, value, always in members]
    pivot = next((n for n, (_, always) in enumerate(each) if always), None)
    if pivot is None:
        # Any of them may be the last, so each brings the comma after it, and the end looks back.
        ended = [_within(rb"(?:%b(?:%b|(?=\}))|)" % (member, comma)) for member, _ in each]
        return rb"\{" + b"".join(ended) + (rb"(?<!%b)" % comma if ended else b"") + rb"\}"
    # Members before one that is always there bring the comma after them, others that before them.
    before = [_within(rb"(?:%b%b|)" % (member, comma)) for member, _ in each[:pivot]]
    after = [
        _text(comma) + member if always else _within(rb"(?:%b%b|)" % (comma, member))
        for member, always in each[pivot + 1 :]
    ]
    inner = b"".join([*before, each[pivot][0], *after])
    return _text(rb"\{") + inner + _text(rb"\}")


def singly(line: bytes) -> Find:
    """Match line by line with the pattern of one, which captures once."""
    return re.compile(_within(line) + rb"\n|[^\n]*\n").findall


def in_series(line: bytes) -> Find:
    """Find the same; quicker where many lines match one after the other, and slower where not.

    Where hardly any text is always there it brings nothing, and each kB of a pattern takes a
    millisecond to compile.
    """
    parts = line.replace(_MARK + _MARK, b"").split(_MARK)
    texts = {n: part for n, part in enumerate(parts) if n % 2}
    if sum(map(len, texts.values())) < len(line) / 16 or len(line) > _MAX_LINE:
        return singly(line)
    captured = {n: b"(?P<text%d>%b)" % (n, part) for n, part in texts.items()}
    referred = {n: b"(?P=text%d)" % n for n in texts}
    first, later = (
        b"".join([pieces.get(n, part) for n, part in enumerate(parts)])
        for pieces in (captured, referred)
    )
    more = b""
    for _ in range(SERIES - 1):
        more = rb"(?:%b\n%b|)" % (later, more)
    pattern = re.compile(rb"%b\n%b|[^\n]*(\n)" % (first, more))
    numbers = set(range(1, 1 + pattern.groups)) - set(pattern.groupindex.values())
    wanted = itemgetter(*(number - 1 for number in sorted(numbers)))

    def find(text: bytes) -> list[bytes]:
        columns: Sequence[tuple[bytes, ...]] = wanted(
            list(zip(*pattern.findall(text), strict=True))
        )
        names = [b""] * (len(columns) * len(columns[0]))
        for n, column in enumerate(columns):
            names[n :: len(columns)] = column
        names = list(filter(None, names))
        with suppress(ValueError):
            at = -1
            while True:
                names[at := names.index(b"\n", at + 1)] = b""
        return names

    return find
