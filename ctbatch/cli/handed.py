"""Inputs that are descriptors: ``-`` and ``/dev/fd/N`` have to be the caller's.

Looked at before the event loop is there: it has descriptors too, and who reads from one of them
takes away what it waits for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from ctbatch.errors import InputError

__all__ = ["check_descriptors"]


def check_descriptors(inputs: Iterable[str]) -> None:
    """Raises :class:`InputError` for one that was not handed over, or not for reading."""
    if os.name != "posix":
        return
    from ctbatch.pipeline.source.streams import fd_of  # noqa: PLC0415  # --help does not wait

    for given in inputs:
        number = fd_of(given)
        if number is not None and (why := _fault(number)):
            raise InputError(given, why)


def _fault(number: int) -> str:
    """What is wrong with a descriptor, if anything."""
    import fcntl  # noqa: PLC0415  # not on Windows

    if number == 0 and sys.__stdin__ is None:
        return "standard input is closed"
    try:
        # All of our own are closed when another program begins (PEP 446); none of the caller's is.
        ours = fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if ours:
        return "was not handed to this command"
    return "is open for writing only" if mode == os.O_WRONLY else ""
