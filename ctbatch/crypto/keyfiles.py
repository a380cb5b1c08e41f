"""Key files: who else may read or write one, and writing one so that it is whole or not there.

Invariants:

1. Permissions are those of the open file, not of the name: it cannot be swapped in between.
2. A file is created exclusively with mode 0600, or replaced by write, sync and rename; it is never
   overwritten, and at no moment open to others.

What is in a key file is not known here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ctbatch import paths
from ctbatch.errors import KeyFileError

__all__ = ["alone_in", "check_readers", "check_writers", "create", "read", "replace_file"]

_MAX_BYTES = 1 << 20
"""Thousands of keys: larger is not a keyset, somebody named the wrong file."""

_INSIST = "or insist with --insecure-key-permissions"


def read(path: Path) -> tuple[bytes, os.stat_result]:
    """The bytes of a key file, and what it was when it was open. May block: it may be a pipe.

    Raises:
        KeyFileError: it cannot be read, is empty, or is far too large.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        remedy = "make yours with `ctbatch keys generate`, fetch the service's from the dashboard"
        raise KeyFileError(str(path), f"cannot be read ({error.strerror})", remedy) from None
    if not data:
        raise KeyFileError(str(path), "is empty", "copy it again")
    if len(data) > _MAX_BYTES:
        raise KeyFileError(str(path), "is too large for a keyset", "name the right file")
    return data, found


def check_writers(path: Path, found: os.stat_result, *, private: bool = False) -> None:
    """Raise :class:`KeyFileError` if anybody but this user (and root) could have written it. Of
    one that may be ``private`` the remedy sees to its readers, too.
    """
    if not _has_permissions(found):
        return
    if found.st_uid not in {0, os.geteuid()}:
        remedy = f"chown it to the user that runs ctbatch, {_INSIST}"
        raise KeyFileError(str(path), "belongs to another user", remedy)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        remedy = f"chmod {'600' if private else 'go-w'} {path}, {_INSIST}"
        raise KeyFileError(str(path), "can be changed by other users", remedy)


def check_readers(path: Path, found: os.stat_result) -> None:
    """Raise :class:`KeyFileError` if others than owner and group can read it."""
    if _has_permissions(found) and found.st_mode & stat.S_IROTH:
        remedy = f"chmod 600 {path}, {_INSIST}"
        raise KeyFileError(str(path), "can be read by everybody", remedy)


def _has_permissions(found: os.stat_result) -> bool:
    # Pipes (`<(vault read …)`) have no permissions worth the name, nor has Windows.
    return os.name == "posix" and stat.S_ISREG(found.st_mode)


def create(path: Path, data: bytes) -> None:
    """Write a new file; raises :class:`KeyFileError` if it exists or cannot be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        remedy = "it is never overwritten: name another place, or move it away"
        raise KeyFileError(str(path), "exists already", remedy) from None
    except OSError as error:
        raise KeyFileError(str(path), f"cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise KeyFileError(str(path), f"cannot be written ({error.strerror})") from None
    _sync_directory(path.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file in one step, keeping its mode and owner; a new one is 0600.

    Raises:
        KeyFileError: it cannot be written, or another replacement is under way.
    """
    path = path.resolve()  # a link stays one
    new = path.with_name(f"{path.name}.new")
    create(new, data)
    try:
        if os.name == "posix" and paths.exists(path):
            _keep_owner_and_mode(path, new)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise KeyFileError(str(path), f"cannot be replaced ({error.strerror})") from None
    _sync_directory(path.parent)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Wait until no other process is in here for this directory, as far as it can be locked."""
    with ExitStack() as stack:
        if os.name == "posix":
            import fcntl  # noqa: PLC0415  # not on Windows

            with suppress(OSError):
                descriptor = os.open(directory, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _keep_owner_and_mode(path: Path, new: Path) -> None:
    found = path.stat()
    # Owner first: a change of owner may clear mode bits.
    os.chown(new, found.st_uid, found.st_gid)
    new.chmod(stat.S_IMODE(found.st_mode))


def _sync_directory(directory: Path) -> None:
    """Make a new name durable, where directories can be synced at all."""
    # Windows and some network file systems cannot; the file itself is synced.
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
