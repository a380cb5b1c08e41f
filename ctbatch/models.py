"""The values that cross a stage border: frozen, slotted, one type per state of a batch.

A **line** is one line of input, a **record** the JSON object on a valid line, a **batch**
consecutive lines. Positions inside a batch are 0-based *line indexes*; lines in files are 1-based
*line numbers*.

Invariants:

1. Nothing here does I/O or knows a stage.
2. Bytes of records live in :class:`Batch` only, and never reach a ``repr``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from io import BytesIO
from itertools import islice
from typing import AnyStr, Self, overload

import orjson

__all__ = [
    "Batch",
    "Checked",
    "Counts",
    "Mode",
    "Names",
    "Overlong",
    "Refusal",
    "SealedBatch",
    "Span",
    "State",
    "line_bounds",
    "line_indexes",
    "numbers",
]


class State(StrEnum):
    """The state a line ends in; exactly one each."""

    PROCESSED = "processed"
    UNPROCESSED = "unprocessed"
    INVALID = "invalid"
    UNKNOWN = "unknown"
    UNSENT = "unsent"
    BLANK = "blank"


class Mode(StrEnum):
    """How a run talks to the service; a run directory never changes its mode."""

    SEALED = "sealed"
    PLAINTEXT = "plaintext"
    EMULATOR = "emulator"
    DRY_RUN = "dry_run"
    SERVER_DRY_RUN = "server_dry_run"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The piece of input that a batch covers.

    ``source`` is the index of the source in the run, ``first_line`` 1-based, ``offset`` and
    ``size`` bytes in the (decompressed) stream, line terminators and a leading BOM included.
    """

    source: int
    first_line: int
    lines: int
    offset: int
    size: int

    @property
    def end_line(self) -> int:
        """The number of the first line after the span."""
        return self.first_line + self.lines

    @property
    def end_offset(self) -> int:
        """The offset of the first byte after the span."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class Overlong:
    """A line over ``--max-line-bytes``: skipped without being held, known by place and size
    only.
    """

    index: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive lines as read.

    ``data`` holds ``span.lines`` lines exactly as they stand in the input, each ended by ``\\n``
    (the last line of a source may lack it; a ``\\r`` before it is kept), without a BOM at the start
    of the stream. An overlong line stands in it as an empty line and is listed in ``overlong``.
    """

    span: Span
    data: bytes = field(repr=False)
    overlong: tuple[Overlong, ...] = ()

    def lines(self) -> list[bytes]:
        """The lines without their ``\\n``; ``len() == span.lines``."""
        split = self.data.split(b"\n")
        if len(split) > self.span.lines:
            split.pop()
        return split


def line_bounds(data: bytes, indexes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Where lines start, and where they end without their line feeds, by ascending index."""
    lines, at = BytesIO(data), 0  # it shares the bytes; nothing else steps over lines as quickly
    for index in indexes:
        assert at <= index, "the indexes have to ascend"
        next(islice(lines, index - at, index - at), None)
        start, line = lines.tell(), lines.readline()
        yield start, start + len(line.removesuffix(b"\n"))
        at = index + 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that was not accepted, and why: ``state`` is unprocessed, invalid or unknown.

    ``code`` is the service's number, or the checker's word; ``error`` holds no data of the record.
    """

    index: int
    state: State
    code: int | str | None
    error: str
    place: tuple[int, int] | None = None
    """Offset and size in the input of a line that was not copied: it was over-long."""


class Names(Sequence[str]):
    """Identities as ``kind:value``; mostly they are packed, and taken apart when one is looked at,
    which is seldom.
    """

    __slots__ = ("_list", "_packed", "stretch")

    def __init__(self, names: list[str]) -> None:
        self._list: list[str] | None = names
        self._packed = b""
        self.stretch = _stretch(names) if names else None
        """The least and the greatest; ``None``: there are none."""

    @classmethod
    def of_texts(cls, prefix: str, texts: list[bytes]) -> Self:
        """``prefix`` and a text each, of at least one, which hold UTF-8 and nothing that JSON
        escapes.
        """
        before = prefix.encode()
        packed = b'["%b%b"]' % (before, (b'","' + before).join(texts))
        least, greatest = _stretch(texts)  # UTF-8 sorts as what it stands for
        return cls.unpack(packed, (prefix + least.decode(), prefix + greatest.decode()))

    def pack(self) -> tuple[bytes, tuple[str, str] | None]:
        """What :meth:`unpack` makes them of. (As JSON: a third of the time of pickling them.)"""
        return self._packed or orjson.dumps(self._list), self.stretch

    @classmethod
    def unpack(cls, packed: bytes, stretch: tuple[str, str] | None) -> Self:
        """The inverse of :meth:`pack`."""
        self = cls.__new__(cls)
        self._list, self._packed, self.stretch = None, packed, stretch
        return self

    @property
    def _names(self) -> list[str]:
        if self._list is None:
            self._list, self._packed = orjson.loads(self._packed), b""
        return self._list

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._names[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and self._names == other._names

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        return "<Names>"


SAMPLE = 8
"""Names whose order is taken for that of all of them: of two ways to find the least and the
greatest the first is six times as fast where they ascend, and half as fast where they do not."""


def _stretch(names: list[AnyStr]) -> tuple[AnyStr, AnyStr]:
    sample = names[:: 1 + len(names) // SAMPLE]
    if sample == sorted(sample):
        ordered = sorted(names)
        return ordered[0], ordered[-1]
    return min(names), max(names)


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checker found in a batch. The records are numbered 0… in line order.

    ``positions[r]`` is the line index of record ``r``; ``types[r]`` its type's first letter (p, e,
    t); ``identities[r]`` its first identity as ``kind:value``, further ones in ``aliases[r]``;
    ``unsafe`` the records that must not be applied twice; ``left_out`` where in the batch's data
    the lines are that are no records (:func:`line_bounds`), by line index; ``warnings`` (line
    index, text) without data.
    """

    positions: Sequence[int]
    types: str
    identities: Names = field(repr=False)
    aliases: dict[int, tuple[str, ...]] = field(repr=False)
    unsafe: frozenset[int]
    refusals: tuple[Refusal, ...]
    blank: int
    left_out: Mapping[int, tuple[int, int]]
    warnings: tuple[tuple[int, str], ...] = ()

    @property
    def records(self) -> tuple[int, ...]:
        """The numbers of all records."""
        return numbers(len(self.positions))

    def lines_of(self, records: Collection[int]) -> frozenset[int]:
        """The line indexes of distinct records."""
        if len(records) < len(self.positions):
            return frozenset(map(self.positions.__getitem__, records))
        lines = line_indexes(len(self.positions) + len(self.left_out))
        return lines.difference(self.left_out) if self.left_out else lines


# Nearly every batch is whole, and a run holds dozens: these are shared. Made anew for each they
# cost 0.2 µs and 100 bytes a record.
@lru_cache(maxsize=8)
def numbers(count: int) -> tuple[int, ...]:
    """From 0, so many."""
    return tuple(range(count))


@lru_cache(maxsize=8)
def line_indexes(count: int) -> frozenset[int]:
    """The indexes of so many lines."""
    return frozenset(numbers(count))


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """The body of one request: ``records`` records, sealed with key ``key_id`` (``None``: RAW or
    plaintext).
    """

    body: bytes = field(repr=False)
    records: int
    key_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many lines ended in each state; ``maybe_sent`` is a part of ``unsent``."""

    total: int = 0
    processed: int = 0
    unprocessed: int = 0
    invalid: int = 0
    unknown: int = 0
    unsent: int = 0
    blank: int = 0
    maybe_sent: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            total=self.total + other.total,
            processed=self.processed + other.processed,
            unprocessed=self.unprocessed + other.unprocessed,
            invalid=self.invalid + other.invalid,
            unknown=self.unknown + other.unknown,
            unsent=self.unsent + other.unsent,
            blank=self.blank + other.blank,
            maybe_sent=self.maybe_sent + other.maybe_sent,
        )

    @property
    def accounted(self) -> int:
        """The sum over the states; equals ``total`` or something is badly wrong."""
        return (
            self.processed
            + self.unprocessed
            + self.invalid
            + self.unknown
            + self.unsent
            + self.blank
        )
