"""Which inputs a run has: files, globs, standard input and pipes; refused if they are not NDJSON.

A file is refused only when it is certainly something else; a file that merely begins with a bad
line is NDJSON with an invalid line.
"""

from __future__ import annotations

import glob
import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ctbatch.errors import InputError
from ctbatch.pipeline.decoding import MAGIC_BYTES, decoder_for, kind_of

__all__ = ["STDIN", "SourceSpec", "expand", "open_stored"]

STDIN = "-"
_SAMPLE_BYTES = 64 * 1024

_FOREIGN = {
    b"PK\x03\x04": ("is a zip archive", "unzip it"),
    b"BZh": ("is compressed with bzip2", "decompress it with bunzip2 (gzip and zstd are read)"),
    b"\xfd7zXZ\x00": ("is compressed with xz", "decompress it with unxz (gzip and zstd are read)"),
    b"\xff\xfe": ("is UTF-16", "convert it: iconv -f UTF-16 -t UTF-8"),
    b"\xfe\xff": ("is UTF-16", "convert it: iconv -f UTF-16 -t UTF-8"),
    b"PAR1": ("is a Parquet file", "export it as NDJSON"),
}


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One input. ``path`` is as given; size and time are of what is stored, ``None`` for a pipe.

    ``fingerprint`` tells a person whether two reports are of the same file: its size and a digest
    of its ends.
    """

    path: str
    size: int | None = None
    mtime_ns: int | None = None
    fingerprint: str | None = None

    @property
    def is_pipe(self) -> bool:
        """Whether it can be read once, from the start, only."""
        return self.size is None


def expand(inputs: Sequence[str | Path]) -> tuple[SourceSpec, ...]:
    """The sources that the inputs name, in order; the same file twice is taken once.

    Raises:
        InputError: one is missing, unreadable, a directory, or not NDJSON.
    """
    seen: set[tuple[int, int]] = set()
    specs: list[SourceSpec] = []
    for path in _paths(inputs):
        spec, identity = _standard_input() if path == STDIN else _examine(path)
        if identity not in seen:
            seen.add(identity)
            specs.append(spec)
    return tuple(specs)


def _paths(inputs: Sequence[str | Path]) -> Iterator[str]:
    for item in map(str, inputs):
        if item == STDIN or os.path.lexists(item) or not glob.has_magic(item):
            yield item
            continue
        found = sorted(glob.glob(item, recursive=True))  # noqa: PTH207  # patterns may be absolute
        if not found:
            raise InputError(item, "no file matches")
        yield from (path for path in found if not Path(path).is_dir())


def _standard_input() -> tuple[SourceSpec, tuple[int, int]]:
    if sys.stdin is None or sys.stdin.closed:
        raise InputError("standard input", "is closed", "name a file, or pipe something in")
    status = os.fstat(sys.stdin.fileno())
    if os.isatty(sys.stdin.fileno()):
        raise InputError("standard input", "is a terminal", "pipe or redirect NDJSON into it")
    return SourceSpec(STDIN), (status.st_dev, status.st_ino)


def _examine(path: str) -> tuple[SourceSpec, tuple[int, int]]:
    try:
        status = os.stat(path)  # noqa: PTH116  # "/dev/fd/3" and the like are not for pathlib
        identity = (status.st_dev, status.st_ino)
        if stat.S_ISDIR(status.st_mode):
            remedy = f"name the files in it: '{path.rstrip('/')}/*.ndjson'"
            raise InputError(path, "is a directory", remedy)
        if not stat.S_ISREG(status.st_mode):
            return SourceSpec(path), identity
        with Path(path).open("rb") as file:
            _refuse_foreign(path, file)
            fingerprint = _fingerprint(file, status.st_size)
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})") from None
    return SourceSpec(path, status.st_size, status.st_mtime_ns, fingerprint), identity


def _fingerprint(file: BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    for offset in (0, max(0, size - _SAMPLE_BYTES)):
        file.seek(offset)
        digest.update(file.read(_SAMPLE_BYTES))
    return f"{size}-{digest.hexdigest()[:32]}"


def open_stored(spec: SourceSpec) -> BinaryIO:
    """Open a source for unbuffered reading of what is stored."""
    if spec.path == STDIN:
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    return Path(spec.path).open("rb", buffering=0)


# -- what is not NDJSON -----------------------------------------------------------------------------


def _refuse_foreign(path: str, file: BinaryIO) -> None:
    """Raise :class:`InputError` if a file is certainly not NDJSON."""
    stored = file.read(_SAMPLE_BYTES)
    for magic, (why, remedy) in _FOREIGN.items():
        if stored.startswith(magic):
            raise InputError(path, why, remedy)
    kind = kind_of(stored[:MAGIC_BYTES]) if stored else "plain"
    if kind != "plain":
        stored = _first_of(kind, stored)
    lines = [
        line for raw in stored.split(b"\n")[:2000] if (line := raw.strip(b" \t\r\xef\xbb\xbf"))
    ]
    if not lines or (lines[0].startswith(b"{") and lines[0] != b"{"):
        return
    if lines[0].startswith(b"[") and (lines[0] == b"[" or b"{" in lines[0]):
        remedy = f"one record a line: jq -c '.[]' {path} > users.ndjson"
        raise InputError(path, "is a JSON array, not NDJSON", remedy)
    if lines[0] == b"{" and len(lines) > 1 and lines[1].startswith(b'"'):
        remedy = f"one record a line: jq -c . {path} > users.ndjson"
        raise InputError(path, "holds JSON over several lines, not NDJSON", remedy)
    if not any(b"{" in line for line in lines) and _is_csv(lines[0]):
        remedy = "convert each row to one JSON record a line"
        raise InputError(path, "looks like CSV, not NDJSON", remedy)


def _is_csv(line: bytes) -> bool:
    return any(line.count(separator) > 0 for separator in (b",", b";", b"\t"))


def _first_of(kind: str, stored: bytes) -> bytes:
    """The beginning of a compressed stream; damage is left to the reader."""
    try:
        return next(decoder_for(kind).feed(stored), b"")[:_SAMPLE_BYTES]
    except ValueError:
        return b""
