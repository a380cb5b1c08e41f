"""The files of refused lines: ``rejected.ndjson``, ``unknown.ndjson`` and their ``.reasons``.

Row *n* of a file belongs to row *n* of its reasons. While a run goes on rows are appended in the
order in which they became known; at its end they are put in input order.

Invariants:

1. Appended bytes are synced before the commit that holds their positions and the files' lengths,
   and opening cuts the files to the lengths of the last commit.
2. Sorting writes a new file beside the old one; the commit that holds the new positions also says
   that the new file is the one that counts, and opening finishes a rename that a crash cut short.
3. A file that somebody edited is moved aside, never overwritten; its rows are read from the input
   again when the files are put in order, and those that cannot be stand as empty lines.
4. The reasons row of a line that was not copied says ``"copied": false``.

Only the two files of original lines hold personal data. How a file is kept safe is
:mod:`~ctbatch.pipeline.ledger.rowfile`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

import orjson

from ctbatch.errors import CtbatchError
from ctbatch.models import Refusal, Span, State
from ctbatch.paths import legible
from ctbatch.pipeline.ledger.rowfile import FileState, Rewrite, RowFile, fresh

__all__ = [
    "FILES",
    "REASONS",
    "Copies",
    "RejectFiles",
    "Row",
    "Sorted",
    "fresh_state",
    "pack_rows",
    "unpack_rows",
]

FILES = {"rejected": "rejected.ndjson", "unknown": "unknown.ndjson"}
REASONS = {"rejected": "rejected.reasons.ndjson", "unknown": "unknown.reasons.ndjson"}


class Row(NamedTuple):
    """A refused line as the ledger has it. One without a ``length`` was not copied and stands as an
    empty line; ``place`` says where in the input it is, if it was over-long.
    """

    line_index: int
    state: str
    code: int | str | None
    error: str
    place: list[int] | None
    length: int | None

    @classmethod
    def of(cls, refusal: Refusal, line: bytes | None) -> Row:
        """The row of a refused line and its original, if that is copied."""
        length = None if line is None else len(line)
        place = None if refusal.place is None else list(refusal.place)
        return cls(
            refusal.index, refusal.state, refusal.code, legible(refusal.error), place, length
        )


@dataclass(frozen=True, slots=True)
class Copies:
    """Consecutive rows of one span in one file, from byte ``at``."""

    row_id: int
    source: int
    first_line: int
    file: str
    at: int
    rows: tuple[Row, ...]

    @property
    def size(self) -> int:
        """Bytes of all rows, with their terminators."""
        return sum((row.length or 0) + 1 for row in self.rows)

    def cut(self, block: bytes | None) -> Iterator[tuple[Row, bytes | None]]:
        """Each row with its line out of the bytes of all, ``None`` where it is not in them."""
        at = 0
        for row in self.rows:
            end = at + (row.length or 0)
            line = None if block is None else block[at:end]
            yield row, None if line is None or len(line) != row.length else line
            at = end + 1


@dataclass(frozen=True, slots=True)
class Sorted:
    """Copies in their new place, and those they replace."""

    old: tuple[Copies, ...]
    at: int
    rows: bytes


def pack_rows(rows: Iterable[Row]) -> bytes:
    """Rows as a blob for the ledger."""
    return orjson.dumps(list(map(list, rows)))


def unpack_rows(blob: bytes) -> tuple[Row, ...]:
    """The inverse of :func:`pack_rows`."""
    return tuple(starmap(Row, orjson.loads(blob)))


def fresh_state() -> dict[str, FileState]:
    """The state of files that do not exist yet, by name."""
    return {name: fresh() for name in (*FILES.values(), *REASONS.values())}


class RejectFiles:
    """The open reject files of a run directory; used by the ledger's thread only.

    ``state`` is changed in place; it is what the ledger commits.
    """

    def __init__(
        self, run_dir: Path, state: dict[str, FileState], source_names: Sequence[str]
    ) -> None:
        self.state = state
        self.name_sources(source_names)
        self._files = {name: RowFile(run_dir / name, state[name]) for name in fresh_state()}
        for file in self._files.values():
            file.recover()

    @property
    def moved_aside(self) -> list[Path]:
        """Where files are now that somebody had edited."""
        return [aside for file in self._files.values() for aside in file.moved_aside]

    def name_sources(self, names: Sequence[str]) -> None:
        """The names that stand in the reasons; fixed once the inputs are known."""
        self._names = [legible(name) for name in names]

    def begin(self) -> None:
        """From when the state has been committed after this, rows may be appended."""
        for file in self._files.values():
            file.begin()

    # -- appending ----------------------------------------------------------------------------

    def append(
        self, span: Span, refusals: Sequence[tuple[Refusal, bytes | None]]
    ) -> list[tuple[str, int, bytes]]:
        """Append refused lines; returns (file, offset of the first, packed rows) per file used."""
        parts: dict[str, list[tuple[Refusal, bytes | None]]] = {}
        for item in refusals:
            kind = "unknown" if item[0].state is State.UNKNOWN else "rejected"
            parts.setdefault(kind, []).append(item)
        return [self._append_to(kind, span, items) for kind, items in parts.items()]

    def _append_to(
        self, kind: str, span: Span, items: Sequence[tuple[Refusal, bytes | None]]
    ) -> tuple[str, int, bytes]:
        lines = b"".join((original or b"") + b"\n" for _, original in items)
        rows = [Row.of(refusal, original) for refusal, original in items]
        at = self._files[FILES[kind]].append(lines)
        reasons = b"".join(self._reason(span.source, span.first_line, row) for row in rows)
        self._files[REASONS[kind]].append(reasons)
        return kind, at, pack_rows(rows)

    def sync(self) -> None:
        """Bring what was appended to the disk."""
        for file in self._files.values():
            file.sync()

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _reason(self, source: int, first_line: int, row: Row) -> bytes:
        """One row of a reasons file."""
        reason: dict[str, object] = {
            "source": self._names[source],
            "line": first_line + row.line_index,
            "state": row.state,
            "code": row.code,
            "error": row.error,
        }
        if row.length is None:
            reason["copied"] = False
            if row.place is not None:
                reason["offset"], reason["length"] = row.place
        return orjson.dumps(reason, option=orjson.OPT_APPEND_NEWLINE)

    # -- sorting ------------------------------------------------------------------------------

    def sort(
        self,
        copies: Iterable[Sequence[Copies]],
        original: Callable[[int, int, int], bytes | None],
    ) -> Generator[Sorted, None, None]:
        """Write each file anew in input order, beside the old one; done when it is exhausted.

        ``copies`` come grouped by span and in input order. ``original(source, first_line, index)``
        reads a line from the input again, for a file that was moved aside.
        """
        with ExitStack() as stack:
            new: dict[str, Rewrite] = {}
            for kind, final in FILES.items():
                for name in (final, REASONS[kind]):
                    if self.state[final]["length"]:
                        new[name] = self._files[name].rewrite()
                        stack.callback(new[name].abandon)
                    else:  # what will stand there is somebody else's
                        self.state[name]["published"] = True
            for group in copies:
                for kind, final in FILES.items():
                    mine = tuple(part for part in group if part.file == kind)
                    if mine:
                        yield self._rewrite(mine, new[final], new[REASONS[kind]], original)
            for rewrite in new.values():
                rewrite.finish()
            stack.pop_all()

    def _rewrite(
        self,
        old: tuple[Copies, ...],
        lines: Rewrite,
        reasons: Rewrite,
        original: Callable[[int, int, int], bytes | None],
    ) -> Sorted:
        """Write the rows that one span has in one file."""
        source, first_line = old[0].source, old[0].first_line
        rows: list[Row] = []
        copied, why = bytearray(), bytearray()
        file = self._files[FILES[old[0].file]]
        found = [item for part in old for item in part.cut(file.read(part.at, part.size))]
        for row, kept in sorted(found, key=lambda item: item[0].line_index):
            line = kept
            if line is None and row.length is not None:
                line = _read_again(original, source, first_line, row.line_index, row.length)
            rows.append(row if line is not None else row._replace(length=None))
            copied += (line or b"") + b"\n"
            why += self._reason(source, first_line, rows[-1])
        reasons.write(why)
        return Sorted(old, lines.write(copied), pack_rows(rows))

    def publish(self) -> None:
        """Put the sorted files in place, after the commit that counts on them."""
        for file in self._files.values():
            file.replace()


def _read_again(
    original: Callable[[int, int, int], bytes | None],
    source: int,
    first_line: int,
    index: int,
    length: int,
) -> bytes | None:
    """A line from the input, unless the input is gone or holds another line there."""
    try:
        line = original(source, first_line, index)
    except (OSError, CtbatchError):
        return None
    return line if line is not None and len(line) == length else None
