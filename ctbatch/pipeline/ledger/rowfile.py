"""One file of rows in a run directory that a person may have edited since.

Invariants:

1. What the state says is in the file is in it, or the file was moved aside: its content is compared
   with a digest before anything is appended, when it is put in order, and when it is replaced.
2. A state counts when it was committed elsewhere; bytes beyond a committed length are cut off.
3. Replacing writes a new file beside the old one. The state with ``swap`` says that the new one
   counts; a rename that a crash cut short is made up for when the file is opened again.
4. Files are 0600, and durable (with their directory entry) before :meth:`RowFile.sync` and
   :meth:`Rewrite.finish` return.

What rows mean is not known here (:mod:`~ctbatch.pipeline.ledger.rejects`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypedDict

from ctbatch.pipeline.ledger.durable import sync_directory, sync_file

__all__ = ["FileState", "Rewrite", "RowFile", "fresh"]

_BLOCK_BYTES = 1 << 20

_BUFFER_BYTES = 1 << 18
"""A system call for each 8 KiB takes longer than what fills them."""


class FileState(TypedDict):
    """What is known of a file; JSON.

    ``length`` is in bytes and counts the ``lost`` first ones, which are no longer in the file.
    ``digest`` is of what is in it; ``published``: nothing may stand beyond that; ``swap``: the
    digest of the file that the new one beside it replaces.
    """

    length: int
    lost: int
    digest: str
    published: bool
    swap: str | None


def fresh() -> FileState:
    """The state of a file that does not exist yet."""
    empty = hashlib.sha256().hexdigest()
    return FileState(length=0, lost=0, digest=empty, published=False, swap=None)


class RowFile:
    """A file of rows and its ``state``, which is changed in place; used by one thread.

    Every method blocks and raises :class:`OSError` where the file cannot be read or written.
    """

    def __init__(self, path: Path, state: FileState) -> None:
        self.state = state
        self.moved_aside: list[Path] = []
        self._path = path
        self._beside = path.with_name(f".{path.name}.sorted")
        self._appending: BinaryIO | None = None
        self._reading: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._dirty = False

    def recover(self) -> None:
        """Take up the file as the last process left it; call it once, before anything else."""
        if self.state["swap"] is None:
            self._beside.unlink(missing_ok=True)
        if self._is_odd():
            self._move_aside()
        self.replace()
        self._verify(cut=not self.state["published"])

    def begin(self) -> None:
        """From when the state has been committed after this, what stands beyond ``length`` was
        appended by this process; before, it is somebody else's.
        """
        self.state["published"] = False

    # -- appending ----------------------------------------------------------------------------

    def append(self, rows: bytes) -> int:
        """Append rows; returns the offset of the first. Durable after :meth:`sync`."""
        if self._appending is None:
            self._appending = self._open_at_end()
        at = self.state["length"]
        self._appending.write(rows)
        self._hash.update(rows)
        self.state["length"] += len(rows)
        self.state["published"] = False
        self._dirty = True
        return at

    def sync(self) -> None:
        """Bring what was appended to the disk, and the state up to date."""
        if self._dirty:
            assert self._appending is not None, "it was appended to"
            self._appending.flush()
            sync_file(self._appending.fileno())
            self.state["digest"] = self._hash.hexdigest()
            self._dirty = False

    def _open_at_end(self) -> BinaryIO:
        self.replace()
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        file = os.fdopen(os.open(self._path, flags, 0o600), "wb", _BUFFER_BYTES)
        file.seek(self._present)
        sync_directory(self._path.parent)
        return file

    # -- reading and replacing ------------------------------------------------------------------

    def read(self, at: int, length: int) -> bytes | None:
        """The bytes at an offset, if they are there and :meth:`sync` was called since they were
        appended; ``None`` if they are lost.
        """
        if at < self.state["lost"]:
            return None
        if self._reading is None:
            self._reading = self._path.open("rb")
        self._reading.seek(at - self.state["lost"])
        return self._reading.read(length)

    def rewrite(self) -> Rewrite:
        """Begin a new file that is to replace this one, of which the rows can be read until
        then.
        """
        self.sync()
        self.close()
        self._verify(cut=False)
        return Rewrite(self, self._beside)

    def rewritten(self, length: int, content: hashlib._Hash) -> None:
        """The new file is complete and durable: from the next commit on it is what counts."""
        self.close()
        self._hash = content
        state = self.state
        state["swap"], state["digest"] = state["digest"], content.hexdigest()
        state["length"], state["lost"], state["published"] = length, 0, True

    def replace(self) -> None:
        """Put the new file in place, if there is one: after the commit that counts on it."""
        replaced = self.state["swap"]
        if replaced is None:
            return
        if self._beside.exists():
            if self._path.exists() and _digest(self._path, None)[0].hexdigest() != replaced:
                self._move_aside()
            self._beside.replace(self._path)
            sync_directory(self._path.parent)
        self.state["swap"] = None

    def close(self) -> None:
        """Close the file. What was appended and not synced is of no account."""
        for file in (self._appending, self._reading):
            if file is not None:
                with suppress(OSError):  # a full disk: the buffer cannot be written
                    file.close()
        self._appending = self._reading = None

    # -- what is in it ------------------------------------------------------------------------

    @property
    def _present(self) -> int:
        return self.state["length"] - self.state["lost"]

    def _verify(self, *, cut: bool) -> None:
        """Move the file aside unless it holds what it should; cut off what stands beyond, which is
        kept unless ``cut``: then it is what a crash left.
        """
        expected = self._present
        content, size = _digest(self._path, expected)
        if content.hexdigest() != self.state["digest"]:
            self._move_aside()
            content = hashlib.sha256()
            self.state["lost"], self.state["digest"] = self.state["length"], content.hexdigest()
        elif not expected and (cut or not size):
            self._path.unlink(missing_ok=True)
        elif not expected:
            self._move_aside()
        elif size > expected:
            if not cut:
                self._copy_aside()
            os.truncate(self._path, expected)
        self._hash = content

    def _is_odd(self) -> bool:
        """Whether it is a pipe, which would be waited for, or a link to nothing, which would be
        written through. (A directory cannot be opened, and who opens it says so.)
        """
        try:
            is_link = stat.S_ISLNK(self._path.lstat().st_mode)
        except FileNotFoundError:
            return False
        return not self._path.is_file() and (is_link or not self._path.is_dir())

    def _move_aside(self) -> None:
        if os.path.lexists(self._path):
            aside = self._aside()
            self._path.rename(aside)
            sync_directory(self._path.parent)
            self.moved_aside.append(aside)

    def _copy_aside(self) -> None:
        """Keep what somebody added; the rows themselves are whole."""
        aside = self._aside()
        with self._path.open("rb") as file, _create(aside) as copy:
            shutil.copyfileobj(file, copy)
            copy.flush()
            sync_file(copy.fileno())
        sync_directory(self._path.parent)
        self.moved_aside.append(aside)

    def _aside(self) -> Path:
        """A name that is free."""
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.edited-{number}")).exists():
            number += 1
        return aside


class Rewrite:
    """The new file while it is written."""

    def __init__(self, of: RowFile, path: Path) -> None:
        self._of = of
        self._path = path
        self._hash = hashlib.sha256()
        self._length = 0
        path.unlink(missing_ok=True)
        self._file = _create(path)

    def write(self, rows: bytes | bytearray) -> int:
        """Add rows; returns the offset of the first."""
        at = self._length
        self._length += self._file.write(rows)
        self._hash.update(rows)
        return at

    def finish(self) -> None:
        """Make it durable, and the file's state that of the new one."""
        self._file.flush()
        sync_file(self._file.fileno())
        self._file.close()
        sync_directory(self._path.parent)
        self._of.rewritten(self._length, self._hash)

    def abandon(self) -> None:
        """Remove it, with the copies of lines in it."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _create(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    return os.fdopen(os.open(path, flags, 0o600), "wb", _BUFFER_BYTES)


def _digest(path: Path, length: int | None) -> tuple[hashlib._Hash, int]:
    """The digest of the first bytes of a file (``None``: of all), and its size; a missing file is
    empty.
    """
    content = hashlib.sha256()
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return content, 0
    with file:
        size = os.fstat(file.fileno()).st_size
        left = size if length is None else length
        while left > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
            content.update(block)
            left -= len(block)
    return content, size
