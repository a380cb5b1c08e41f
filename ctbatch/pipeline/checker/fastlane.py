"""Lines that are clean because they look like lines that were: the checker's fast lane.

The exact check reads a line into objects and looks at each of them. Most lines of an export differ
in their values only, so here the *shape* of accepted lines is learnt, as one regular expression
over a whole batch: the keys stand in it as they are, the values as classes of harmless text.

Invariants:

1. It says "clean" or nothing: a line that no shape matches is for the exact check to judge.
2. A clean line is one that the exact check accepts, without a warning, with the facts given here.
3. What was learnt decides how quickly a line is judged, never how.

Why a match is proof of all that the exact check asks for is argued in
:mod:`ctbatch.pipeline.checker.shapes`; this is how shapes are learnt, kept, and given up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from ctbatch.models import Names, line_bounds
from ctbatch.pipeline.checker.fields import Facts
from ctbatch.pipeline.checker.patterns import Form, form_for
from ctbatch.pipeline.checker.shapes import DiffersError, Family, Shape, Value, describe

__all__ = ["Alike", "FastLane", "Sorted"]

MAX_SHAPES: Final = 8
"""A line that is not clean is tried on each: 0.1 µs where it differs early, 2 where late."""

EXEMPLARS: Final = 64
"""Lines looked at in one lesson: enough to see most of the keys that some lines leave out."""


class Sorted(NamedTuple):
    """What is known of the lines of a batch. Of a clean line the first letter of its type and its
    identity as ``kind:value``, of the others, which are ``left``, empty strings.
    """

    kinds: list[str]
    names: list[str]
    left: Sequence[int]


class Alike(NamedTuple):
    """All clean lines of a batch are of one shape: the first letter of their type, their
    identities, and the lines that are ``left``.
    """

    kind: str
    names: Names
    left: Sequence[int]

    def singly(self, lines: int) -> Sorted:
        """The same by line, of so many lines."""
        kinds, names = [self.kind] * lines, list(self.names)
        for at in self.left:
            kinds[at] = ""
            names.insert(at, "")
        return Sorted(kinds, names, self.left)


class FastLane:
    """Finds lines that are like lines accepted before.

    A lesson takes milliseconds: there is none for fewer than ``least`` lines, and after one that
    bore no fruit it is twice as long until the next.
    """

    def __init__(self, least: int = 16) -> None:
        self._least = least
        self._shapes: list[Shape] = []
        self._batches = self._lesson_at = 0
        self._pause = 1
        self._taught: int | None = None

    def sort(self, data: bytes, lines: int) -> Sorted | Alike:
        """Tell the clean lines of a batch from the others."""
        self._batches += 1
        text = _readable(data)
        form = form_for(text)
        kinds, names = [""] * lines, [""] * lines
        left: Sequence[int] = range(lines)
        missed: Sequence[int] = ()
        for shape in self._shapes:
            if missed:
                text = _lines_of(text, missed)
            found = shape.find(text, len(left), form)
            missed = _empty(found)
            shape.count(len(found), len(found) - len(missed))
            if len(left) == lines > len(missed) and (not missed or len(self._shapes) == 1):
                self._sort_shapes()
                clean = list(filter(None, found)) if missed else found
                return Alike(shape.family.kind, shape.family.packed(clean), missed)
            _put(shape.family.names(found), missed, left, names)
            _put([shape.family.kind] * len(found), missed, left, kinds)
            left = [left[at] for at in missed]
            if not left:
                break
        self._sort_shapes()
        return Sorted(kinds, names, left)

    def _sort_shapes(self) -> None:
        """The one that matched most first, and none that costs more than it saves."""
        self._shapes.sort(key=lambda shape: -shape.hits)
        if not all(shape.pays for shape in self._shapes):
            self._shapes = [shape for shape in self._shapes if shape.pays]

    def learn(self, accepted: Sequence[tuple[bytes, Facts]]) -> None:
        """Learn from lines that were not found clean and were accepted all the same."""
        if not self._is_due(len(accepted)):
            return
        known = list(self._shapes)
        for shape in known:
            shape.origin = shape
        exemplars = accepted[:: max(1, len(accepted) // EXEMPLARS)]
        # The longest first: they show the order of most keys at once.
        for line, facts in sorted(exemplars, key=lambda pair: -len(pair[0])):
            if (described := describe(line.strip(b" \t\r"), facts)) is not None:
                self._remember(*described)
        # Lines of a style of their own are in no shape for all that: then it stays as it was.
        text = b"".join(line.rstrip(b"\r") + b"\n" for line, _ in exemplars)
        for n, shape in reversed(list(enumerate(self._shapes))):
            if shape in known or any(shape.find(text, len(exemplars), Form.CAREFUL)):
                shape.origin = None
            elif shape.origin is not None:
                self._shapes[n] = shape.origin
            else:
                del self._shapes[n]

    def _is_due(self, lines: int) -> bool:
        """Whether so many lines are worth a lesson now, as far as the last one tells."""
        if self._taught is not None:
            self._pause = 1 if lines < self._taught / 2 else 2 * self._pause
            self._taught = None
        if lines < self._least or self._batches < self._lesson_at + self._pause:
            return False
        self._taught, self._lesson_at = lines, self._batches
        return True

    def _remember(self, family: Family, value: Value) -> None:
        """Widen a shape until it covers the value, or make one."""
        for n, shape in enumerate(self._shapes):
            if shape.family != family:
                continue
            try:
                wider = shape.value | value
            except DiffersError:
                continue
            if wider != shape.value:
                self._shapes[n] = Shape(family, wider, shape.hits, shape.tried, shape.origin)
            return
        del self._shapes[MAX_SHAPES - 1 :]  # the one that matched least makes room
        self._shapes.append(Shape(family, value))


def _empty(found: list[bytes]) -> list[int]:
    """Where nothing was found. (A fifth of the time of a look at each, where they are few.)"""
    places: list[int] = []
    with suppress(ValueError):
        while True:
            places.append(found.index(b"", places[-1] + 1 if places else 0))
    return places


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
    return b"".join([text[start : end + 1] for start, end in line_bounds(text, wanted)])


_LONE_CR = re.compile(rb"\r(?!\n)").search


def _readable(data: bytes) -> bytes:
    """The lines, those that are not UTF-8 left empty, each ended by a bare line feed."""
    text = data if data.endswith(b"\n") else data + b"\n"
    if b"\r" in text:
        # Without one that stands elsewhere a sixth of the time.
        text = text.replace(b"\r\n", b"\n") if _LONE_CR(text) else text.replace(b"\r", b"")
    if not (text.isascii() or _decodes(text)):
        text = b"\n".join([line if _decodes(line) else b"" for line in text.split(b"\n")])
    return text


def _decodes(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
