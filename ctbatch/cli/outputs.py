"""Where what was read goes: standard output, or a file with a note of how to go on.

Invariants:

1. A file is made for its owner only (0600) and never written over. One that is empty, such as a
   download leaves that was killed before its query was answered, is taken over: nothing is in it.
2. The note (``FILE.cursor``) is replaced, by write, sync and rename, only after what it counts is
   on the disk. So at any instant the file's first ``bytes`` bytes are whole pages, and the note's
   cursor is that of the page that follows; what is beyond is cut off when a download goes on.
3. The note goes when the download is complete.
4. Whoever writes a file holds its lock, from its first moment on; it dies with the process.

Compressed files are members (gzip) or frames (zstd), one a page: each ends where a note may point,
and together they are an ordinary file of their kind.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, ParamSpec, Protocol

from ctbatch import paths
from ctbatch.cli import streams
from ctbatch.cli.notes import OWNER_ONLY, Note, note_path, sync
from ctbatch.errors import InputError, OutputBroke, SettingsError

__all__ = [
    "OutputFile",
    "Sink",
    "Stdout",
    "note_of",
    "on_thread",
    "open_sink",
]

_P = ParamSpec("_P")

_PIECE = 4096
"""Bytes that a pipe takes at once where ``poll`` says that it takes any (POSIX: at least 512, Linux
4096)."""

_LOOK_MS = 100
"""Between two looks whether a reader who pauses is still waited for."""


def note_of(output: Path) -> Note:
    """The note of how to go on with an output. May block; raises :class:`InputError`, also where
    there is none yet because somebody has only just begun to write.
    """
    try:
        return Note.load(note_path(output))
    except InputError:
        if paths.is_file(output):
            with suppress(OSError), output.open("rb") as file:
                _lock(output, file)
        raise


class Sink(Protocol):
    """Where records go. All methods may block."""

    gone: bool
    """Whether nobody takes what is written any more."""

    def put(self, data: bytes) -> None:
        """Write whole lines."""
        ...

    def mark(self, cursor: str, records: int) -> None:
        """Note that everything up to here is written and ``cursor`` goes on."""
        ...

    def finish(self) -> None:
        """It is complete."""
        ...

    def leave(self) -> None:
        """Nobody waits for what is being written any more: whoever writes is to return soon."""
        ...

    def close(self) -> None:
        """Let go, complete or not."""
        ...


class Stdout:
    """Standard output, as bytes: no encoding of a terminal changes a record."""

    def __init__(self) -> None:
        self.gone = False
        self._left = False

    def put(self, data: bytes) -> None:
        """Write, unless the reader left. A reader who pauses is waited for."""
        out = sys.stdout
        buffer = getattr(out, "buffer", None)
        if buffer is None:
            streams.out_bytes(data)
            return
        try:
            out.flush()
            for start in range(0, len(data), _PIECE):
                if not self._is_awaited(buffer):
                    return
                buffer.write(data[start : start + _PIECE])
                buffer.flush()
        except BrokenPipeError:
            self.gone = True
        except OSError as error:
            raise OutputBroke("standard output", error.strerror or "it failed") from None
        self.gone = self.gone or _reader_left(buffer)

    def _is_awaited(self, buffer: BinaryIO) -> bool:
        """Wait until a piece can be written at once; ``False``: there is nobody to write it for."""
        while not (self._left or self.gone) and not _takes_more(buffer):
            self.gone = _reader_left(buffer)
        return not (self._left or self.gone)

    def mark(self, cursor: str, records: int) -> None:
        """Nothing: what went down a pipe cannot be gone on with."""

    def finish(self) -> None:
        """Nothing to do."""

    def leave(self) -> None:
        """Wait no longer for a reader who pauses."""
        self._left = True

    def close(self) -> None:
        """Nothing to close."""


class OutputFile:
    """A file; ``note`` is that of the download it belongs to, if it can go on (without its cursor
    when it is new).
    """

    def __init__(self, path: Path, *, note: Note | None = None, goes_on: bool = False) -> None:
        """Make the file, or open it and cut it to what its note counts. Raises
        :class:`SettingsError` and :class:`InputError`.
        """
        if not path.name:
            raise SettingsError("--output", "names no file", "name the one to be made")
        if note is not None and not goes_on and not paths.exists(path):
            _refuse_what_is_no_note(note_path(path))
        self.gone = False
        self.path = path
        self.note = note
        self._pack = _packer(path)
        self._marked = goes_on
        self._file = _reopen(path, note) if goes_on and note is not None else _create(path)
        self._size = note.bytes if goes_on and note is not None else 0

    def put(self, data: bytes) -> None:
        """Append. Raises :class:`OutputBroke`."""
        if data:
            self._write(self._pack(data))

    def mark(self, cursor: str, records: int) -> None:
        """Sync, then replace the note. Raises :class:`OutputBroke`."""
        if self.note is None:
            return
        self.note = replace(self.note, cursor=cursor, bytes=self._size, records=records)
        try:
            sync(self._file)
            self.note.save(note_path(self.path))
        except OSError as error:
            raise self._broken(error) from None
        self._marked = True

    def finish(self) -> None:
        """Sync and take the note away. An empty archive is one of nothing."""
        if not self._size:
            self._write(self._pack(b""))
        try:
            sync(self._file)
            if self.note is not None:
                note_path(self.path).unlink(missing_ok=True)
        except OSError as error:
            raise self._broken(error) from None
        self._marked = True

    def leave(self) -> None:
        """A file keeps nobody waiting."""

    def close(self) -> None:
        """Close. A file that was made and of which nothing is noted goes: it would be in the way
        of another try.
        """
        # What a full disk did not take was told of; closing would try it once more.
        with suppress(OSError):
            self._close()

    def _close(self) -> None:
        if self._marked or self._size:
            self._file.close()
        elif sys.platform == "win32":  # where what is open cannot be removed
            self._file.close()
            self.path.unlink(missing_ok=True)
        else:  # while it is locked: unlocked, it might be somebody else's already
            self.path.unlink(missing_ok=True)
            self._file.close()

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise self._broken(error) from None
        self._size += len(data)

    def _broken(self, error: OSError) -> OutputBroke:
        return OutputBroke(str(self.path), error.strerror or "it failed")


async def on_thread(
    sink: Sink, write: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs
) -> None:
    """Write to a sink on a thread, and no longer than somebody waits for it: the end of the loop
    would wait for the thread.
    """
    try:
        await asyncio.to_thread(write, *args, **kwargs)
    except asyncio.CancelledError:
        sink.leave()
        raise


def open_sink(output: Path | None, note: Note | None = None, *, goes_on: bool = False) -> Sink:
    """Standard output unless a file is named. May block; raises as :class:`OutputFile`."""
    if output is None or str(output) == "-":
        return Stdout()
    return OutputFile(output, note=note, goes_on=goes_on)


def _refuse_what_is_no_note(path: Path) -> None:
    """What stands where a note will be is replaced by it: an old note, that is."""
    if paths.exists(path):
        try:
            Note.load(path)
        except InputError:
            why = f"would be noted in {path}, which is there and no note of a download"
            raise SettingsError("--output", why, "choose another name") from None


def _create(path: Path) -> BinaryIO:
    remedy = "choose another name"
    try:
        # Made with its mode, so that there is no moment at which others can read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    except FileExistsError:
        file = _take_over(path)
        if file is not None:
            return file
        if paths.exists(note_path(path)):
            remedy += f", or go on with it: --continue {path}"
        raise SettingsError("--output", f"{path} exists already", remedy) from None
    except OSError as error:
        raise SettingsError("--output", f"{path} cannot be made ({error.strerror})") from None
    file = os.fdopen(descriptor, "wb")
    _lock(path, file)
    return file


def _take_over(path: Path) -> BinaryIO | None:
    """A file that is there, if there is nothing in it: empty, as we make them, and without a note.

    Raises :class:`InputError` if another process has only just made it.
    """
    if sys.platform == "win32":
        return None
    try:
        if not _is_untouched(path.lstat()):
            return None
        # Neither through a link nor waiting for a pipe, whatever has taken its place meanwhile.
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    file = os.fdopen(descriptor, "wb")
    # Looked at again under the lock: who held it before may have written, or removed it.
    if (
        _lock(path, file)
        and _is_untouched(os.fstat(file.fileno()))
        and not paths.exists(note_path(path))
    ):
        return file
    file.close()
    return None


def _is_untouched(found: os.stat_result) -> bool:
    """Whether it is an empty file of this user and mode, of one name."""
    return (
        stat.S_ISREG(found.st_mode)
        and (stat.S_IMODE(found.st_mode), found.st_size, found.st_nlink) == (OWNER_ONLY, 0, 1)
        and found.st_uid == os.geteuid()
    )


def _reopen(path: Path, note: Note) -> BinaryIO:
    try:
        file = path.open("r+b")
    except OSError as error:
        raise InputError(str(path), f"cannot be gone on with ({error.strerror})") from None
    _lock(path, file)
    try:
        if file.seek(0, os.SEEK_END) < note.bytes:
            why = f"is shorter than the {note.bytes:,} bytes that were written to it"
            raise InputError(str(path), why, "somebody changed it: start again, into another file")
        file.truncate(note.bytes)
        file.seek(note.bytes)
    except BaseException:
        file.close()
        raise
    return file


def _lock(path: Path, file: BinaryIO) -> bool:
    """Lock it: two processes writing one file would mix their pages. Where another has it, it is
    closed and :class:`InputError` raised; ``False`` where there are no locks.
    """
    if sys.platform == "win32":
        return False
    import fcntl  # noqa: PLC0415  # not on Windows

    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(str(path), "is being written by another process") from None
    except OSError:
        return False  # a file system without locks
    return True


def _packer(path: Path) -> Callable[[bytes], bytes]:
    """What a page becomes: by the name of the file."""
    if path.suffix == ".gz":
        from isal import igzip  # noqa: PLC0415  # only if asked for

        return lambda data: bytes(igzip.compress(data))
    if path.suffix == ".zst":
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415  # only if asked for
        else:
            from backports import zstd  # noqa: PLC0415  # only if asked for

        return zstd.compress
    return bytes


def _takes_more(buffer: BinaryIO) -> bool:
    """Whether a piece can be written at once, as far as that can be told; waits a moment for it."""
    if sys.platform == "win32":
        return True
    try:
        poll = select.poll()
        poll.register(buffer.fileno(), select.POLLOUT)
        return any(what & select.POLLOUT for _, what in poll.poll(_LOOK_MS))
    except (OSError, ValueError, AttributeError):
        return True


def _reader_left(buffer: BinaryIO) -> bool:
    """Whether the other end of a pipe is closed: then a download would go on for nobody."""
    if sys.platform == "win32":
        return False
    try:
        poll = select.poll()
        poll.register(buffer.fileno(), 0)
        return any(what & select.POLLERR for _, what in poll.poll(0))
    except (OSError, ValueError, AttributeError):
        return False
