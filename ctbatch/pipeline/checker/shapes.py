"""Shapes: what is the same for many lines, as one regular expression over a whole batch.

The keys stand in it as they are, the values as classes of harmless text. A line that matches needs
no exact check. :mod:`~ctbatch.pipeline.checker.fastlane` learns shapes from lines that the exact
check accepted, and says which lines match.

Why a match is proof of all that the exact check asks for:

* *One JSON object a line.* A shape describes a whole line, with JSON's own grammar and no freedom
  in white space. Each of its branches ends in the only line feed that it may hold; strings could
  hold one in the quicker form, but then there are fewer matches than lines and none is believed.
* *UTF-8, control characters, escapes.* The batch decodes (lines that do not are taken out). In the
  quicker forms of a shape a string is everything up to a quote. They are used only where the batch
  holds no control character and each backslash of it begins a whole escape, none of which is of a
  quote or a backslash, or half of a surrogate pair: so a quote ends a string. The careful form
  spells out what a string may hold.
* *Numbers* have at most 18 digits, 18 more behind the point and an exponent of two: none is long,
  infinite, or anything but finite in any reader.
* *Duplicate keys.* A shape has each key of an object once, and matches it once at most.
* *Limits.* Keys are those of accepted lines. Strings are at most 512 raw bytes (an event's name
  120, an identity 1024), and no character takes more when it is decoded; in the careful form, with
  escapes, at most 128 characters, each 4 bytes at most. Lists have at most 100 items, merged
  objects at most 256 keys.
* *Facts.* Type and kind of identity are fixed in a shape; the identity is what one group captures,
  without escapes, so its text is its value; placeholders are left to the exact check. What may not
  be applied twice is the same for all lines of a shape: profiles with such an operator are not
  learnt, and events and tokens never may.
* The rest of the rules (``ts``, ``evtData`` and so on) are narrower here than there.

The proof in practice is ``tests/pipeline/test_fastlane.py``, with the exact check as its oracle.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from ctbatch.models import Names
from ctbatch.pipeline.checker.fields import IDENTITY_KINDS, LONGEST_PLACEHOLDER, PLACEHOLDERS, Facts
from ctbatch.pipeline.checker.patterns import (
    CLASSES,
    Find,
    Form,
    either,
    in_series,
    list_of,
    object_of,
    singly,
)

__all__ = ["DiffersError", "Family", "Shape", "Value", "describe"]

TRIALS: Final = 1000
"""Lines after which a shape has to pay."""

WORTH: Final = 8
"""A match saves 10 µs, the exact check; to try a line on a shape takes up to 2."""

OFTEN: Final = 0.9
"""Of the lines that were tried: ten that match one after the other are worth a series."""

_WITHIN: Final = (("integer", "number"), ("null", "word"))
"""Classes that are a part of another one."""

_MAX_EXEMPLAR_BYTES: Final = 16_384
_MAX_KEYS: Final = 256
_MAX_DEPTH: Final = 8


class Family(NamedTuple):
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
class Shape:
    """The lines of a family that a value describes; ``hits`` are how many of those ``tried`` did
    match, ``origin`` is what it was before the lesson that is under way.
    """

    family: Family
    value: Value
    hits: int = 0
    tried: int = 0
    origin: Shape | None = None
    _patterns: dict[tuple[Form, bool], Find] = field(default_factory=dict, repr=False)

    @property
    def pays(self) -> bool:
        """Whether it matches so many lines that the others are not tried in vain."""
        return self.tried < TRIALS or self.hits > self.tried / WORTH

    def count(self, tried: int, hits: int) -> None:
        """Note how many lines were tried, and how many of them matched."""
        self.tried += tried
        self.hits += hits
        if self.tried > 16 * TRIALS:  # what was long ago counts for less
            self.tried, self.hits = self.tried // 2, self.hits // 2

    def find(self, text: bytes, lines: int, form: Form) -> list[bytes]:
        """For each line its identity, or nothing where it does not match or is to be looked at."""
        found = self._compiled(form)(text)
        if len(found) != lines:  # a string ran over the end of its line
            careful = Form.CAREFUL
            return [b""] * lines if form is careful else self.find(text, lines, careful)
        named = found if all(found) else filter(None, found)
        if min(map(len, named), default=len(text)) > LONGEST_PLACEHOLDER:
            return found
        if _PLACEHOLDERS.isdisjoint(map(bytes.lower, found)):
            return found
        return [b"" if name.lower() in _PLACEHOLDERS else name for name in found]

    def _compiled(self, form: Form) -> Find:
        """What matches best, by how many lines did match before."""
        often = self.hits > OFTEN * self.tried
        if (find := self._patterns.get((form, often))) is None:
            line = self.value.pattern(self.family.style, CLASSES[form])
            find = self._patterns[form, often] = in_series(line) if often else singly(line)
        return find


class DiffersError(Exception):
    """Two values do not go into one shape."""


@dataclass(frozen=True, slots=True)
class Value:
    """What a value was seen to be: classes of scalars; an object (its keys in order, each with
    whether it is always there); a list (what its items were seen to be).
    """

    classes: frozenset[str] = frozenset()
    keys: Mapping[str, tuple[bool, Value]] | None = None
    items: Value | None = None

    def __or__(self, other: Value) -> Value:
        keys = other.keys if self.keys is None else self.keys
        items = other.items if self.items is None else self.items
        if self.keys is not None and other.keys is not None:
            keys = _merged(self.keys, other.keys)
        if self.items is not None and other.items is not None:
            items = self.items | other.items
        classes = self.classes | other.classes
        classes -= {part for part, whole in _WITHIN if whole in classes}
        return Value(classes, keys, items)

    def pattern(self, style: tuple[bytes, bytes], classes: Mapping[str, bytes]) -> bytes:
        """A pattern of the values that this describes."""
        branches = [text for name, text in classes.items() if name in self.classes]
        if self.keys is not None:
            members = [
                (orjson.dumps(key), value.pattern(style, classes), always)
                for key, (always, value) in self.keys.items()
            ]
            branches.append(object_of(members, style))
        if self.items is not None:
            branches.append(list_of(self.items.pattern(style, classes), style[0]))
        return either(branches)


def _merged(
    mine: Mapping[str, tuple[bool, Value]], other: Mapping[str, tuple[bool, Value]]
) -> Mapping[str, tuple[bool, Value]]:
    """The keys of two objects, in an order that is that of both."""
    if [key for key in mine if key in other] != [key for key in other if key in mine]:
        raise DiffersError
    merged: dict[str, tuple[bool, Value]] = {}
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
        raise DiffersError
    return merged


def describe(line: bytes, facts: Facts) -> tuple[Family, Value] | None:
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
    family = Family(kind[0], identity, type(record[identity]) is str, style)
    try:
        return family, Value(keys={key: (True, _field(key, record[key])) for key in record})
    except DiffersError:
        return None


class _Pairs(list[tuple[str, Any]]):
    """An object as its items: a list of JSON is a bare list."""


def _field(key: str, value: object) -> Value:
    """What a field of the API was seen to be; null is never widened to another word."""
    if value is None:
        return Value(frozenset({"null"}))
    if key == "type":
        return Value(frozenset({str(value)}))
    if key in IDENTITY_KINDS:
        return Value(frozenset({"identity" if type(value) is str else "number identity"}))
    if key == "ts":
        return Value(frozenset({"seconds"}))
    if key == "evtName" and type(value) is str:
        return Value(frozenset({"event name"}))
    return _seen(value, 1)


def _seen(value: object, depth: int) -> Value:
    """What a value is."""
    if depth > _MAX_DEPTH:
        raise DiffersError
    if isinstance(value, _Pairs):
        if len(value) > _MAX_KEYS:
            raise DiffersError
        return Value(keys={key: (True, _seen(inner, depth + 1)) for key, inner in value})
    if isinstance(value, list):
        items = Value()
        for inner in value:
            items |= _seen(inner, depth + 1)
        return Value(items=items)
    return Value(frozenset({_CLASS_OF[type(value)]}))


_CLASS_OF: Final[Mapping[type, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "word",
    type(None): "word",
}
_PLACEHOLDERS: Final = frozenset(word.encode() for word in PLACEHOLDERS)
