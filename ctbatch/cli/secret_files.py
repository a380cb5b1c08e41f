"""Secrets: passcode and passphrase, read from files, or a passphrase typed on a terminal.

Invariants:

1. A secret never comes from the command line, where every process could see it.
2. A file that anybody else could write, or that others can read, is refused unless the user
   insists. Permissions are those of the open file, not of the name: it cannot be swapped between.
3. No message holds any part of a secret.
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
from pathlib import Path

from ctbatch.cli.wording import clean
from ctbatch.errors import SettingsError
from ctbatch.settings import Secret

__all__ = ["ask_passphrase", "read_secret"]

_MAX_BYTES = 64 * 1024
"""Larger is not a passcode: somebody named the wrong file."""


def read_secret(option: str, path: Path, *, insecure: bool) -> Secret:
    """The first and only line of a file. May block: the file may be a pipe.

    Raises:
        SettingsError: it cannot be read, is empty, or is open to others.
    """
    try:
        with path.open("rb") as file:
            if not insecure:
                _check_permissions(option, path, os.fstat(file.fileno()))
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(option, f"{path} cannot be read ({error.strerror})") from None
    return Secret(_text(option, path, data))


def ask_passphrase(path: Path) -> Secret | None:
    """The passphrase of a key file, typed without being shown; ``None`` where nobody can be asked,
    or nothing was typed. Standard input may be the data: then the terminal itself is read.
    """
    if not _has_terminal():
        return None
    try:
        typed = getpass.getpass(f"Passphrase of {clean(str(path))}: ", stream=sys.stderr)
    except EOFError:
        return None
    except UnicodeDecodeError:
        raise SettingsError("the passphrase", "that was typed is not text (UTF-8)") from None
    return Secret(typed) if typed else None


def _has_terminal() -> bool:
    # Without one, getpass would read standard input, and show it.
    if sys.stdin is not None and sys.stdin.isatty():
        return True
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _text(option: str, path: Path, data: bytes) -> str:
    if len(data) > _MAX_BYTES:
        raise SettingsError(option, f"{path} is too large to be one", "name the right file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise SettingsError(option, f"{path} is not text", "name the right file") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise SettingsError(option, f"{path} is empty")
    if "\n" in text:
        raise SettingsError(option, f"{path} has several lines", "leave the secret alone in it")
    return text


def _check_permissions(option: str, path: Path, found: os.stat_result) -> None:
    # Pipes (`<(pass show …)`) have no permissions worth the name, nor has Windows.
    if os.name == "nt" or not stat.S_ISREG(found.st_mode):
        return
    remedy = f"chmod 600 {path}, or insist with --insecure-key-permissions"
    if found.st_uid not in {0, os.geteuid()}:
        raise SettingsError(option, f"{path} belongs to another user", remedy)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingsError(option, f"{path} can be changed by other users", remedy)
    if found.st_mode & stat.S_IROTH:
        raise SettingsError(option, f"{path} can be read by everybody", remedy)
