"""Bringing files and directory entries to the disk, so that they survive a power cut.

A new or renamed file is durable only when its directory is, too (fsync(2)). What is written, and
when it must be durable, is not decided here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["sync_directory", "sync_file"]


def sync_directory(path: Path) -> None:
    """Bring the entries of a directory to the disk; blocks."""
    if sys.platform == "win32":
        return  # a directory cannot be opened there; NTFS journals its entries
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _syncer() -> Callable[[int], object]:
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415  # exists on POSIX only

        # fsync leaves the data in the drive's cache there: fsync(2) of macOS.
        return lambda descriptor: fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    return getattr(os, "fdatasync", os.fsync)


sync_file = _syncer()
"""Bring what was written to a file descriptor, and the file's length, to the disk; blocks."""
