"""The files of refused lines: ``rejected.ndjson``, ``unknown.ndjson`` and their ``.reasons``.

Row *n* of a file belongs to row *n* of its reasons. While a run goes on rows are appended in the
order in which they became known; at its end they are put in input order.

Invariants:

1. Appended bytes are synced before :meth:`append` returns; the lengths then go into the commit
   that relies on them, and opening cuts the files to the lengths of the last commit.
2. Sorting writes a new file beside the old one; the commit that holds the new positions also says
   that the new file is the one that counts, and opening finishes a rename that a crash cut short.
3. A file that somebody edited after it was published is moved aside, never overwritten.

Only these files hold originals of lines; they are 0600.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypedDict

import orjson

from ctbatch.models import Refusal, Span, State

__all__ = ["Copies", "FileState", "RejectFiles", "fresh_state", "pack_rows", "unpack_rows"]

FILES = {"rejected": "rejected.ndjson", "unknown": "unknown.ndjson"}
REASONS = {"rejected": "rejected.reasons.ndjson", "unknown": "unknown.reasons.ndjson"}


class FileState(TypedDict):
    """What the ledger holds of one file: lengths in bytes, a pending swap, the published digest."""

    length: int
    reasons_length: int
    swap: bool
    digest: str | None


@dataclass(frozen=True, slots=True)
class Copies:
    """Consecutive rows of one span in one file, from byte ``at``; a row's ``None`` length was not
    copied and stands as an empty line.
    """

    row_id: int
    source: int
    first_line: int
    file: str
    at: int
    rows: tuple[tuple[Refusal, int | None], ...]

    def ranges(self) -> Iterator[tuple[Refusal, int, int | None]]:
        """Each refusal with its offset in the file and its length without terminator."""
        at = self.at
        for refusal, length in self.rows:
            yield refusal, at, length
            at += (length or 0) + 1


def pack_rows(rows: Iterable[tuple[Refusal, int | None]]) -> bytes:
    """Rows as a blob for the ledger."""
    return orjson.dumps(
        [(r.index, r.state.value, r.code, r.error, r.place, length) for r, length in rows]
    )


def unpack_rows(blob: bytes) -> tuple[tuple[Refusal, int | None], ...]:
    """The inverse of :func:`pack_rows`."""
    return tuple(
        (Refusal(index, State(state), code, error, place and (place[0], place[1])), length)
        for index, state, code, error, place, length in orjson.loads(blob)
    )


def fresh_state() -> dict[str, FileState]:
    """The state of files that do not exist yet."""
    return {name: FileState(length=0, reasons_length=0, swap=False, digest=None) for name in FILES}


class RejectFiles:
    """The open reject files of a run directory; used by the ledger's thread only."""

    def __init__(
        self, run_dir: Path, state: dict[str, FileState], source_names: Sequence[str]
    ) -> None:
        self.state = state
        self.moved_aside: list[Path] = []
        self._dir = run_dir
        self._names = list(source_names)
        self._open: dict[str, tuple[BinaryIO, BinaryIO]] = {}
        self._lost: set[str] = set()
        for name in FILES:
            self._finish_swap(name)
            self._set_aside_if_edited(name)

    def name_sources(self, names: Sequence[str]) -> None:
        """The names that stand in the reasons; fixed once the inputs are known."""
        self._names = list(names)

    # -- appending ----------------------------------------------------------------------------

    def append(
        self, span: Span, refusals: Sequence[tuple[Refusal, bytes | None]]
    ) -> list[tuple[str, int, bytes]]:
        """Append refused lines; returns (file, offset of the first, packed rows) per file used."""
        return [
            self._append_to(name, span, [item for item in refusals if _file_of(item[0]) == name])
            for name in FILES
            if any(_file_of(refusal) == name for refusal, _ in refusals)
        ]

    def _append_to(
        self, name: str, span: Span, items: Sequence[tuple[Refusal, bytes | None]]
    ) -> tuple[str, int, bytes]:
        state = self.state[name]
        lines, reasons = self._handles(name)
        at = state["length"]
        state["length"] += lines.write(b"".join((original or b"") + b"\n" for _, original in items))
        state["reasons_length"] += reasons.write(
            b"".join(self.reason(span.source, span.first_line, r) for r, _ in items)
        )
        state["digest"] = None
        rows = pack_rows((r, None if line is None else len(line)) for r, line in items)
        return name, at, rows

    def sync(self) -> None:
        """Bring what was appended to the disk."""
        for pair in self._open.values():
            for file in pair:
                file.flush()
                os.fdatasync(file.fileno())

    def _handles(self, name: str) -> tuple[BinaryIO, BinaryIO]:
        if name not in self._open:
            state = self.state[name]
            self._open[name] = (
                _open_at(self._dir / FILES[name], state["length"]),
                _open_at(self._dir / REASONS[name], state["reasons_length"]),
            )
        return self._open[name]

    def reason(self, source: int, first_line: int, refusal: Refusal) -> bytes:
        """One row of a reasons file."""
        row: dict[str, object] = {
            "source": self._names[source],
            "line": first_line + refusal.index,
            "state": refusal.state.value,
            "code": refusal.code,
            "error": refusal.error,
        }
        if refusal.place is not None:
            row |= {"copied": False, "offset": refusal.place[0], "length": refusal.place[1]}
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)

    # -- sorting ------------------------------------------------------------------------------

    def sort(
        self,
        copies: Iterable[Sequence[Copies]],
        original: Callable[[int, int, int], bytes | None],
    ) -> list[tuple[Sequence[Copies], str, int, bytes]]:
        """Write each file anew in input order, beside the old one.

        ``copies`` come grouped by span and in input order. Returns what replaces what: the old
        copies, the file, the new offset and the new rows. ``original(source, first_line, index)``
        reads a line from the input again, for a file that was moved aside.
        """
        self.close()
        replaced: list[tuple[Sequence[Copies], str, int, bytes]] = []
        writers = {name: _Sorted(self._dir, name) for name in FILES if self._exists(name)}
        for group in copies:
            for name, writer in writers.items():
                mine = [part for part in group if part.file == name]
                if mine:
                    rows = sorted(
                        (row for part in mine for row in part.ranges()), key=lambda r: r[0].index
                    )
                    read = writer.read if name not in self._lost else None
                    at, packed = writer.write(self, mine[0], rows, read, original)
                    replaced.append((mine, name, at, packed))
        for name, writer in writers.items():
            self.state[name] = writer.finish()
        return replaced

    def publish(self) -> None:
        """Put the sorted files in place, after the commit that counts on them."""
        self._lost.clear()
        for name in FILES:
            self._finish_swap(name)

    def _exists(self, name: str) -> bool:
        return self.state[name]["length"] > 0

    def _finish_swap(self, name: str) -> None:
        if self.state[name]["swap"]:
            for final in (FILES[name], REASONS[name]):
                sorted_file = self._dir / f".{final}.sorted"
                if sorted_file.exists():
                    sorted_file.replace(self._dir / final)
            self.state[name]["swap"] = False

    def _set_aside_if_edited(self, name: str) -> None:
        """Move a published file aside that is no longer what was published."""
        path, digest = self._dir / FILES[name], self.state[name]["digest"]
        if digest is None or (path.exists() and _digest(path) == digest):
            return
        self._lost.add(name)
        if path.exists():
            number = 1
            while (aside := path.with_name(f"{path.name}.edited-{number}")).exists():
                number += 1
            path.rename(aside)
            self.moved_aside.append(aside)
        with _create(path) as blank:  # its rows are read from the input again when it is sorted
            blank.truncate(self.state[name]["length"])

    def close(self) -> None:
        """Close the files."""
        for pair in self._open.values():
            for file in pair:
                file.close()
        self._open.clear()


class _Sorted:
    """One file being written anew in input order, with its reasons."""

    def __init__(self, run_dir: Path, name: str) -> None:
        self._old = (run_dir / FILES[name]).open("rb")
        self._lines = _create(run_dir / f".{FILES[name]}.sorted")
        self._reasons = _create(run_dir / f".{REASONS[name]}.sorted")
        self._hash = hashlib.sha256()
        self._length = self._reasons_length = 0

    def read(self, at: int, length: int) -> bytes:
        """The bytes of a row in the old file."""
        self._old.seek(at)
        return self._old.read(length)

    def write(
        self,
        files: RejectFiles,
        of: Copies,
        rows: Sequence[tuple[Refusal, int, int | None]],
        read: Callable[[int, int], bytes] | None,
        original: Callable[[int, int, int], bytes | None],
    ) -> tuple[int, bytes]:
        """Write the rows of one span; returns their offset and the packed rows."""
        start, packed = self._length, []
        for refusal, at, length in rows:
            line: bytes | None = None
            if length is not None:
                line = (
                    read(at, length)
                    if read is not None
                    else original(of.source, of.first_line, refusal.index)
                )
            packed.append((refusal, None if line is None else len(line)))
            text = (line or b"") + b"\n"
            self._hash.update(text)
            self._length += self._lines.write(text)
            reason = files.reason(of.source, of.first_line, refusal)
            self._reasons_length += self._reasons.write(reason)
        return start, pack_rows(packed)

    def finish(self) -> FileState:
        """Sync and close; the state that makes the new file count."""
        self._old.close()
        for file in (self._lines, self._reasons):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        return FileState(
            length=self._length,
            reasons_length=self._reasons_length,
            swap=True,
            digest=self._hash.hexdigest(),
        )


def _file_of(refusal: Refusal) -> str:
    return "unknown" if refusal.state is State.UNKNOWN else "rejected"


def _open_at(path: Path, length: int) -> BinaryIO:
    """Open for appending at ``length``; what stands beyond was never committed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    file = os.fdopen(descriptor, "r+b")
    file.truncate(length)
    file.seek(length)
    return file


def _create(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0)
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
