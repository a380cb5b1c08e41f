"""Run directories: made privately, held by one process at a time, found again.

The lock is a POSIX record lock (Windows: a byte-range lock): it dies with the process that holds
it, however that ends, and is not inherited by a child. Closing *any* descriptor of the file gives a
process's record lock up (fcntl(2)), so a directory that this process holds is never opened again.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ctbatch.errors import RunDirectoryError
from ctbatch.pipeline.ledger.durable import sync_directory
from ctbatch.pipeline.ledger.schema import LEDGER_NAME

__all__ = ["DEFAULT_BASE", "all_runs", "create", "is_locked", "locked"]

DEFAULT_BASE = Path("ctbatch-runs")
"""Where run directories are made without ``--run-dir``: in the working directory."""

_LOCK_NAME = ".lock"

_Holder = tuple[int, int, int]

_held: set[_Holder] = set()
# Module state on purpose: the lock is the process's in the kernel, too.


def create(path: Path | None, first_input: str, now: datetime | None = None) -> Path:
    """Make a run directory (0700): ``path``, or one named by UTC time and first input.

    Raises:
        RunDirectoryError: it exists and is not empty, or cannot be made.
    """
    if path is None:
        return _create_named(first_input, now or datetime.now(UTC))
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(entry.name != _LOCK_NAME for entry in path.iterdir()):
            remedy = "name another, or go on with it: ctbatch resume"
            raise RunDirectoryError(str(path), "exists and is not empty", remedy)
        path.chmod(0o700)
        sync_directory(path.parent)
    except OSError as error:
        raise RunDirectoryError(str(path), f"cannot be made ({error.strerror})") from None
    return path


def _create_named(first_input: str, now: datetime) -> Path:
    stem = "stdin" if first_input == "-" else Path(first_input).name.split(".")[0]
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:40] or "input"
    path = DEFAULT_BASE
    try:
        DEFAULT_BASE.mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            suffix = f"-{number}" if number else ""
            path = DEFAULT_BASE / f"{now:%Y%m%dT%H%M%SZ}-{stem}{suffix}"
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                continue
            sync_directory(DEFAULT_BASE)
            return path
    except OSError as error:
        remedy = "run from a directory you may write to, or name one with --run-dir"
        raise RunDirectoryError(str(path), f"cannot be made ({error.strerror})", remedy) from None
    raise RunDirectoryError(str(DEFAULT_BASE), "is full of runs of this second")


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the run directory for this process.

    Raises:
        RunDirectoryError: it is held already, or it cannot be written.
    """
    why, remedy = "is in use by another process", "wait for it, or stop it first"
    if _holder(run_dir) in _held:
        raise RunDirectoryError(str(run_dir), "is in use by this process", remedy)
    try:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(run_dir / _LOCK_NAME, flags, 0o600)
    except OSError as error:
        raise RunDirectoryError(str(run_dir), f"cannot be written ({error.strerror})") from None
    holder: _Holder | None = None
    try:
        try:
            _lock(descriptor)
        except OSError:
            raise RunDirectoryError(str(run_dir), why, remedy) from None
        if (holder := _holder(run_dir)) is not None:
            _held.add(holder)
        yield
    finally:
        _held.discard(holder or (0, 0, 0))
        os.close(descriptor)


def is_locked(run_dir: Path) -> bool:
    """Whether a process, this one included, holds the run directory."""
    if _holder(run_dir) in _held:
        return True
    try:
        descriptor = os.open(run_dir / _LOCK_NAME, os.O_RDWR)
    except OSError:
        return False
    try:
        _lock(descriptor)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def all_runs(base: Path = DEFAULT_BASE) -> list[Path]:
    """The run directories under ``base``, the newest first."""
    return sorted((ledger.parent for ledger in base.glob(f"*/{LEDGER_NAME}")), reverse=True)


def _holder(run_dir: Path) -> _Holder | None:
    """What names a lock of this process; ``None``: there is no lock file."""
    try:
        found = (run_dir / _LOCK_NAME).stat()
    except OSError:
        return None
    return os.getpid(), found.st_dev, found.st_ino


def _locker() -> Callable[[int], None]:
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415  # exists on Windows only

        return lambda descriptor: msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    import fcntl  # noqa: PLC0415  # exists on POSIX only

    return lambda descriptor: fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_lock = _locker()
