"""Lines that are clean because they look like lines that were: the checker's fast lane.

The exact check reads a line into objects and looks at each of them. Most lines of an export differ
in their values only, so here the *shape* of accepted lines is learnt, as one regular expression
over a whole batch: the keys stand in it as they are, the values as classes of harmless text.

Invariants:

1. It says "clean" or nothing: a line that no shape matches is for the exact check to judge.
2. A clean line is one that the exact check accepts, without a warning, with the facts given here.
3. What was learnt decides how quickly a line is judged, never how.

Why a match is proof of all that the exact check asks for:

* *One JSON object a line.* A shape describes a whole line, with JSON's own grammar and no freedom
  in white space. Each of its branches ends in the only line feed that it may hold; strings could
  hold one in the quicker form, but then there are fewer matches than lines and none is believed.
* *UTF-8, control characters, escapes.* The batch decodes (lines that do not are taken out). In the
  quicker form of a shape a string is everything up to a quote, and it is used only where the batch
  holds no backslash and no control character. The careful form spells out what a string may hold;
  half of a surrogate pair is not in it.
* *Numbers* have at most 18 digits, 18 more behind the point and an exponent of two: none is long,
  infinite, or anything but finite in any reader.
* *Duplicate keys.* A shape has each key of an object once, and matches it once at most.
* *Limits.* Keys are those of accepted lines. Strings are at most 512 raw bytes (an event's name
  120, an identity 1024), and no character takes more when it is decoded; with escapes at most 128
  characters, each 4 bytes at most. Lists have at most 100 items, merged objects at most 256 keys.
* *Facts.* Type and kind of identity are fixed in a shape; the identity is what one group captures,
  without escapes, so its text is its value; placeholders are left to the exact check. What may not
  be applied twice is the same for all lines of a shape: profiles with such an operator are not
  learnt, and events and tokens never may.
* The rest of the rules (``ts``, ``evtData`` and so on) are narrower here than there.

The proof in practice is ``tests/pipeline/test_fastlane.py``, with the exact check as its oracle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from ctbatch.models import Names
from ctbatch.pipeline.checker.fields import IDENTITY_KINDS, LONGEST_PLACEHOLDER, PLACEHOLDERS, Facts

__all__ = ["Alike", "FastLane", "Sorted"]

MAX_SHAPES: Final = 8
"""A line that is not clean is tried on each: 0.1 µs where it differs early."""

EXEMPLARS: Final = 64
"""Lines looked at in one lesson: enough to see most of the keys that some lines leave out."""

_MAX_EXEMPLAR_BYTES: Final = 16_384
_MAX_KEYS: Final = 256
_MAX_DEPTH: Final = 8
_MAX_ITEMS: Final = 100

_CONTROLS: Final = tuple(bytes((code,)) for code in range(0x20) if code != 0x0A)
"""What no text without control characters holds; line feeds may be. Searching for each takes less
than one pass that looks at each byte, and makes no copy: a search looks at 32 bytes at a time.
"""
_UNIT: Final = rb"[^\"\\\x00-\x1f]"
_ESCAPE: Final = (
    rb'\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    rb"|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
_INTEGER: Final = rb"(?:0|-?[1-9][0-9]{0,17}+)"
_CAREFUL: Final = {
    "identity": rb'"(%b{1,1024}+)"' % _UNIT,
    "number identity": rb"(%b)" % _INTEGER,
    "event name": rb'"%b{1,120}+"' % _UNIT,
    "string": rb'"(?:%b{0,512}+"|(?=%b*+\\)(?:%b|%b){0,128}")' % (_UNIT, _UNIT, _UNIT, _ESCAPE),
    "number": _INTEGER + rb"(?:\.[0-9]{1,18}+|)(?:[eE][-+]?[0-9]{1,2}+|)",
    "integer": _INTEGER,
    "seconds": rb"[1-9][0-9]{0,10}+",
    "word": rb"(?:true|false|null)",
    "null": rb"null",
    "profile": rb'"profile"',
    "event": rb'"event"',
    "token": rb'"token"',
}
"""The classes of scalars.

Of all the branches in a shape no two can match the same text, and the repeats that could give back
are possessive: a line that does not match is found out in linear time.
"""

_WITHIN: Final = (("integer", "number"), ("null", "word"))
"""Classes that are a part of another one."""

_PLAIN: Final = _CAREFUL | {
    "identity": rb'"([^"]{1,1024}+)"',
    "event name": rb'"[^"]{1,120}+"',
    "string": rb'"[^"]{0,512}+"',
}
"""The classes in a batch without backslashes and control characters: half the time."""


class Sorted(NamedTuple):
    """What is known of the lines of a batch. Of a clean line the first letter of its type and its
    identity as ``kind:value``, of the others, which are ``left``, empty strings.
    """

    kinds: list[str]
    names: list[str]
    left: Sequence[int]


class Alike(NamedTuple):
    """All lines of a batch are clean and of one shape: the first letter of their type, and their
    identities.
    """

    kind: str
    names: Names


class FastLane:
    """Finds lines that are like lines accepted before.

    A lesson takes milliseconds: there is none for fewer than ``least`` lines, and the more there
    were, the longer it is until the next.
    """

    def __init__(self, least: int = 16) -> None:
        self._least = least
        self._shapes: list[_Shape] = []
        self._batches = self._lessons = 0

    def sort(self, data: bytes, lines: int) -> Sorted | Alike:
        """Tell the clean lines of a batch from the others."""
        self._batches += 1
        text, plain = _readable(data)
        kinds, names = [""] * lines, [""] * lines
        left: Sequence[int] = range(lines)
        missed: Sequence[int] = ()
        for shape in self._shapes:
            if missed:
                text = _lines_of(text, missed)
            found = shape.find(text, len(left), plain=plain)
            missed = () if all(found) else [at for at, name in enumerate(found) if not name]
            shape.hits += len(found) - len(missed)
            if len(left) == lines and not missed:
                self._sort_shapes()
                return Alike(shape.family.kind, shape.family.packed(found))
            _put(shape.family.names(found), missed, left, names)
            _put([shape.family.kind] * len(found), missed, left, kinds)
            left = [left[at] for at in missed]
            if not left:
                break
        self._sort_shapes()
        return Sorted(kinds, names, left)

    def _sort_shapes(self) -> None:
        self._shapes.sort(key=lambda shape: -shape.hits)

    def learn(self, accepted: Sequence[tuple[bytes, Facts]]) -> None:
        """Learn from lines that were not found clean and were accepted all the same."""
        if len(accepted) < self._least or self._lessons**2 > 4 * self._batches:
            return
        self._lessons += 1
        known = list(self._shapes)
        for shape in known:
            shape.origin = shape
        exemplars = accepted[:: max(1, len(accepted) // EXEMPLARS)]
        # The longest first: they show the order of most keys at once.
        for line, facts in sorted(exemplars, key=lambda pair: -len(pair[0])):
            if (described := _describe(line.strip(b" \t\r"), facts)) is not None:
                self._remember(*described)
        # Lines of a style of their own are in no shape for all that: then it stays as it was.
        text = b"".join(line.rstrip(b"\r") + b"\n" for line, _ in exemplars)
        for n, shape in reversed(list(enumerate(self._shapes))):
            if shape in known or any(shape.find(text, len(exemplars), plain=False)):
                shape.origin = None
            elif shape.origin is not None:
                self._shapes[n] = shape.origin
            else:
                del self._shapes[n]

    def _remember(self, family: _Family, value: _Value) -> None:
        """Widen a shape until it covers the value, or make one."""
        for n, shape in enumerate(self._shapes):
            if shape.family != family:
                continue
            try:
                wider = shape.value | value
            except _DiffersError:
                continue
            if wider != shape.value:
                self._shapes[n] = _Shape(family, wider, shape.hits, shape.origin)
            return
        del self._shapes[MAX_SHAPES - 1 :]  # the one that matched least makes room
        self._shapes.append(_Shape(family, value))


def _put(values: list[str], missed: Iterable[int], places: Sequence[int], into: list[str]) -> None:
    """Put the values where they belong, but for those that were missed."""
    for at in missed:
        values[at] = ""
    if len(places) == len(into):
        into[:] = values
    else:
        for place, value in zip(places, values, strict=True):
            into[place] = value


def _lines_of(text: bytes, wanted: Iterable[int]) -> bytes:
    lines = text.split(b"\n")
    return b"\n".join([lines[at] for at in wanted]) + b"\n"


def _readable(data: bytes) -> tuple[bytes, bool]:
    """The lines, those that are not UTF-8 left empty, each ended by a bare line feed; and whether
    they are free of backslashes and control characters.
    """
    text = data if data.endswith(b"\n") else data + b"\n"
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    if not (text.isascii() or _decodes(text)):
        text = b"\n".join([line if _decodes(line) else b"" for line in text.split(b"\n")])
    return text, b"\\" not in text and not any(map(text.__contains__, _CONTROLS))


def _decodes(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Family(NamedTuple):
    """What is the same for all lines of a shape: type, the key of the identity and whether it is a
    string, and how items are separated, and keys from values (compact, or as ``json.dumps`` does).
    """

    kind: str
    identity: str
    quoted: bool
    style: tuple[bytes, bytes]

    def packed(self, found: list[bytes]) -> Names:
        """The identities, none of which is empty."""
        return Names.of_texts(IDENTITY_KINDS[self.identity] + ":", found)

    def names(self, found: Iterable[bytes]) -> list[str]:
        """The identities as ``kind:value``, also of those that are empty."""
        prefix = IDENTITY_KINDS[self.identity] + ":"
        texts = b"\n".join(found).decode()
        return (prefix + texts.replace("\n", "\n" + prefix)).split("\n")


@dataclass(slots=True, eq=False)
class _Shape:
    """The lines of a family that a value describes; ``hits`` orders the shapes, ``origin`` is what
    it was before the lesson that is under way.
    """

    family: _Family
    value: _Value
    hits: int = 0
    origin: _Shape | None = None
    _compiled: dict[bool, re.Pattern[bytes]] = field(default_factory=dict, repr=False)

    def find(self, text: bytes, lines: int, *, plain: bool) -> list[bytes]:
        """For each line its identity, or nothing where it does not match or is to be looked at."""
        pattern = self._compiled.get(plain)
        if pattern is None:
            value = self.value.pattern(self.family.style, _PLAIN if plain else _CAREFUL)
            pattern = self._compiled[plain] = re.compile(value + rb"\n|[^\n]*\n")
        found: list[bytes] = pattern.findall(text)
        if len(found) != lines:  # a string ran over the end of its line
            return self.find(text, lines, plain=False) if plain else [b""] * lines
        if min(map(len, found)) > LONGEST_PLACEHOLDER:
            return found
        if _PLACEHOLDERS.isdisjoint(map(bytes.lower, found)):
            return found
        return [b"" if name.lower() in _PLACEHOLDERS else name for name in found]


class _DiffersError(Exception):
    """Two values do not go into one shape."""


@dataclass(frozen=True, slots=True)
class _Value:
    """What a value was seen to be: classes of scalars; an object (its keys in order, each with
    whether it is always there); a list (what its items were seen to be).
    """

    classes: frozenset[str] = frozenset()
    keys: Mapping[str, tuple[bool, _Value]] | None = None
    items: _Value | None = None

    def __or__(self, other: _Value) -> _Value:
        keys = other.keys if self.keys is None else self.keys
        items = other.items if self.items is None else self.items
        if self.keys is not None and other.keys is not None:
            keys = _merged(self.keys, other.keys)
        if self.items is not None and other.items is not None:
            items = self.items | other.items
        classes = self.classes | other.classes
        classes -= {part for part, whole in _WITHIN if whole in classes}
        return _Value(classes, keys, items)

    def pattern(self, style: tuple[bytes, bytes], classes: Mapping[str, bytes]) -> bytes:
        """A pattern of the values that this describes."""
        branches = [text for name, text in classes.items() if name in self.classes]
        if self.keys is not None:
            branches.append(_object_pattern(self.keys, style, classes))
        if self.items is not None:
            item = self.items.pattern(style, classes)
            more = rb"(?:%b%b){0,%d}" % (style[0], item, _MAX_ITEMS - 1)
            branches.append(rb"\[(?:%b%b|)\]" % (item, more) if item else rb"\[\]")
        return b"(?:" + b"|".join(branches) + b")" if branches[1:] else b"".join(branches)


def _object_pattern(
    keys: Mapping[str, tuple[bool, _Value]],
    style: tuple[bytes, bytes],
    classes: Mapping[str, bytes],
) -> bytes:
    comma, colon = style
    members = [
        (always, re.escape(orjson.dumps(key)) + colon + value.pattern(style, classes))
        for key, (always, value) in keys.items()
    ]
    if all(always for always, _ in members):
        return rb"\{" + comma.join(text for _, text in members) + rb"\}"
    # Any of them may be the last, so each brings the comma after it, and the end looks back.
    ended = [(always, text + rb"(?:%b|(?=\}))" % comma) for always, text in members]
    texts = [text if always else b"(?:" + text + b"|)" for always, text in ended]
    return rb"\{" + b"".join(texts) + rb"(?<!%b)\}" % comma


def _merged(
    mine: Mapping[str, tuple[bool, _Value]], other: Mapping[str, tuple[bool, _Value]]
) -> Mapping[str, tuple[bool, _Value]]:
    """The keys of two objects, in an order that is that of both."""
    if [key for key in mine if key in other] != [key for key in other if key in mine]:
        raise _DiffersError
    merged: dict[str, tuple[bool, _Value]] = {}
    theirs = iter(other.items())
    for key, (always, value) in mine.items():
        if key not in other:
            merged[key] = (False, value)
            continue
        for name, (also_always, found) in theirs:
            if name == key:
                merged[key] = (always and also_always, value | found)
                break
            merged[name] = (False, found)
    merged.update({name: (False, found) for name, (_, found) in theirs})
    if len(merged) > _MAX_KEYS:
        raise _DiffersError
    return merged


def _describe(line: bytes, facts: Facts) -> tuple[_Family, _Value] | None:
    """What an accepted line shows of its shape; ``None``: lines like it are not learnt."""
    kind, names, repeatable, warnings = facts
    if warnings or len(names) > 1 or len(line) > _MAX_EXEMPLAR_BYTES:
        return None
    if kind == "profile" and not repeatable:
        return None
    record = dict(json.loads(line, object_pairs_hook=_Pairs))
    identity = next(key for key in IDENTITY_KINDS if record.get(key) is not None)
    spaced = line[: line.find(b'":') + 3].endswith(b" ")
    style = (b", ", b": ") if spaced else (b",", b":")
    family = _Family(kind[0], identity, type(record[identity]) is str, style)
    try:
        return family, _Value(keys={key: (True, _field(key, record[key])) for key in record})
    except _DiffersError:
        return None


class _Pairs(list[tuple[str, Any]]):
    """An object as its items: a list of JSON is a bare list."""


def _field(key: str, value: object) -> _Value:
    """What a field of the API was seen to be; null is never widened to another word."""
    if value is None:
        return _Value(frozenset({"null"}))
    if key == "type":
        return _Value(frozenset({str(value)}))
    if key in IDENTITY_KINDS:
        return _Value(frozenset({"identity" if type(value) is str else "number identity"}))
    if key == "ts":
        return _Value(frozenset({"seconds"}))
    if key == "evtName" and type(value) is str:
        return _Value(frozenset({"event name"}))
    return _seen(value, 1)


def _seen(value: object, depth: int) -> _Value:
    """What a value is."""
    if depth > _MAX_DEPTH:
        raise _DiffersError
    if isinstance(value, _Pairs):
        if len(value) > _MAX_KEYS:
            raise _DiffersError
        return _Value(keys={key: (True, _seen(inner, depth + 1)) for key, inner in value})
    if isinstance(value, list):
        items = _Value()
        for inner in value:
            items |= _seen(inner, depth + 1)
        return _Value(items=items)
    return _Value(frozenset({_CLASS_OF[type(value)]}))


_CLASS_OF: Final[Mapping[type, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "word",
    type(None): "word",
}
_PLACEHOLDERS: Final = frozenset(word.encode() for word in PLACEHOLDERS)
