"""Standard output and standard error, so that a reader who left is not an error.

``ctbatch … | head`` closes our output while we still write to it. That is the reader's good right:
what is left to say goes nowhere, and the exit code is what it would have been. The same goes for a
terminal that was closed. Any other failure to write (a full disk) is reported.

Imports nothing heavy: ``--version`` comes through here.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["PatientFile", "err", "finish", "out", "out_bytes", "prepare"]


class PatientFile(io.FileIO):
    """A file descriptor that swallows what is written after its reader left, or after the terminal
    that it was has gone; any other failure is told once, by raising :class:`OutputBroke`, unless it
    is ``mute``.
    """

    def __init__(self, descriptor: int, *, closefd: bool = False, mute: bool = False) -> None:
        super().__init__(descriptor, "wb", closefd=closefd)
        self._gone = {errno.EPIPE, errno.EIO} if self.isatty() else {errno.EPIPE}
        self._mute = mute

    def write(self, data: ReadableBuffer, /) -> int:
        """Write, or pretend to."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in self._gone and not self._mute:
                self._mute = True
                raise _broke(error) from None
            return memoryview(data).nbytes


def prepare() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` patient, and able to write any text.

    Streams that somebody else put in place (a test, a host program) are left alone. Of the three
    standard descriptors those that were closed (``<&-``) lead nowhere: a socket that got the number
    of one would be taken for it, by our children and by libraries.
    """
    if os.name == "nt":
        # A broken pipe is another error there, and a console is not a plain file.
        return
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(opened, opened < 3)
    sys.stdout = sys.stdout or io.TextIOWrapper(io.BufferedWriter(PatientFile(1)))
    sys.stderr = sys.stderr or io.TextIOWrapper(io.BufferedWriter(PatientFile(2)))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _patient(stream))


def out(text: str) -> None:
    """Write a result as a line to standard output; raises :class:`OutputBroke`."""
    _write(f"{text}\n")


def out_bytes(data: bytes) -> None:
    """Write a result to standard output as it is; raises :class:`OutputBroke`."""
    _write(data.decode("utf-8"))


def _write(text: str) -> None:
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:  # of a stream that is not ours
        raise _broke(error) from None


def _broke(error: OSError) -> Exception:
    from ctbatch.errors import OutputBroke  # noqa: PLC0415  # --version does without

    return OutputBroke("standard output", error.strerror or type(error).__name__)


def err(text: str) -> None:
    """Write a message as a line to standard error."""
    print(text, file=sys.stderr, flush=True)


def finish(code: int) -> int:
    """Flush both streams; returns the exit code: ``code``, or 4 if a success could not be told."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except Exception as error:  # whatever a stream of a host program may raise
            _give_up(stream)
            code = code or 4
            if stream is sys.stdout:
                err(f"ctbatch: {_broke(error) if isinstance(error, OSError) else error}")
    return code


def _patient(stream: TextIO) -> TextIO:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return stream
    stream.flush()
    # Of a standard error that fails nobody can be told.
    buffered = io.BufferedWriter(PatientFile(descriptor, mute=stream is sys.__stderr__))
    return io.TextIOWrapper(
        buffered,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.isatty() or stream is sys.__stderr__,
    )


def _give_up(stream: TextIO) -> None:
    """Let the interpreter's own last flush succeed: it would complain a second time."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):
        return
