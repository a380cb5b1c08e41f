"""Finds the inputs of a run: names and patterns in, :class:`SourceSpec` values out.

Everything that can be said against an input before reading it is said here, so that it is refused
before anything is sent. A pipe is not touched: nothing of it would be lost, and a FIFO's writer
would notice.
"""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctbatch import paths
from ctbatch.errors import InputError
from ctbatch.pipeline.source.sniffing import (
    HEAD_BYTES,
    Kind,
    kind_of_all,
    refuse_unless_ndjson,
    refused_packing,
)
from ctbatch.pipeline.source.streams import Undecodable, fd_of, head_of

__all__ = ["SourceSpec", "expand"]


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One input. A pipe has neither size nor time nor fingerprint.

    ``path`` is as given, ``size`` bytes as stored, ``fingerprint`` the size and a digest of both
    ends: enough to see that a file was replaced, not that its middle was edited.
    """

    path: str
    kind: Kind
    size: int | None = None
    mtime_ns: int | None = None
    fingerprint: str | None = None

    @property
    def is_pipe(self) -> bool:
        """Whether it can be read once only, and waits for its writer."""
        return self.kind is Kind.PIPE


def expand(inputs: Sequence[str | Path]) -> tuple[SourceSpec, ...]:
    """The sources that names and patterns stand for, each file once. Blocks.

    Raises:
        InputError: one is missing, unreadable, a directory, or certainly not NDJSON.
    """
    found: dict[tuple[int, int], SourceSpec] = {}
    for given in inputs:
        for path in _matches(str(given)):
            try:
                status = _status(path)
                identity = (status.st_dev, status.st_ino)
                if identity not in found:
                    found[identity] = _inspect(path, status)
            except OSError as error:
                raise InputError(path, f"cannot be read ({error.strerror})") from None
    return tuple(found.values())


def _matches(given: str) -> Iterator[str]:
    """The paths that a name or a pattern stands for."""
    if "\0" in given or not given:
        raise InputError(repr(given), "is not a path")
    if not glob.has_magic(given) or os.path.lexists(given):
        yield given
        return
    # Not Path.glob: a pattern may be absolute, and the paths are shown as they were written.
    found = sorted(glob.glob(given, recursive=True))  # noqa: PTH207  # see above
    matches = [path for path in found if not paths.is_directory(Path(path))]
    if not matches:
        raise InputError(given, "matches no file", "check the pattern and the directory")
    yield from matches


def _status(path: str) -> os.stat_result:
    number = fd_of(path)
    return os.stat(path) if number is None else os.fstat(number)  # noqa: PTH116  # /dev/fd/N too


def _inspect(path: str, status: os.stat_result) -> SourceSpec:
    """Look at one input."""
    if stat.S_ISDIR(status.st_mode):
        remedy = f"name its files: '{path.rstrip('/')}/*.ndjson'"
        raise InputError(path, "is a directory", remedy)
    if fd_of(path) is not None:
        return SourceSpec(path, Kind.PIPE)
    if stat.S_ISSOCK(status.st_mode):
        raise InputError(path, "is a socket, which cannot be opened as a file")
    if not stat.S_ISREG(status.st_mode):
        if not os.access(path, os.R_OK):
            raise InputError(path, "cannot be read (permission denied)")
        return SourceSpec(path, Kind.PIPE)
    with Path(path).open("rb") as file:
        begin = file.read(HEAD_BYTES)
        file.seek(max(0, status.st_size - HEAD_BYTES))
        end = file.read(HEAD_BYTES)
    digest = hashlib.sha256(begin + end).hexdigest()
    kind = kind_of_all(begin)
    try:
        head, whole = head_of(path, kind)
    except Undecodable as error:
        raise refused_packing(path, str(error), error.command, kind) from None
    known = end if kind is Kind.PLAIN and not whole else b""
    refuse_unless_ndjson(path, head, whole=whole, end=known, kind=kind)
    fingerprint = f"{status.st_size}:{digest[:32]}"
    return SourceSpec(path, kind, status.st_size, status.st_mtime_ns, fingerprint)
