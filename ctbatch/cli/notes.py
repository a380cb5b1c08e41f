"""The note of how to go on with a download, beside the file that its records are in.

Invariant: it is replaced by write, sync and rename: what stands there is a whole note.

When it is written, and what it has to be true of, is :mod:`ctbatch.cli.outputs`'.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import orjson

from ctbatch.errors import InputError

__all__ = ["OWNER_ONLY", "SUFFIX", "Note", "note_path", "sync"]

_SCHEMA = 1

OWNER_ONLY = 0o600
"""The mode of what is downloaded, and of notes."""

SUFFIX = ".cursor"
"""What the note of an output adds to its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """How to go on: what is downloaded, from where, and how far it is. ``query`` is a digest."""

    path: str
    account_id: str
    host: str
    query: str
    cursor: str = field(repr=False)
    bytes: int = 0
    records: int = 0

    @classmethod
    def load(cls, path: Path) -> Note:
        """Read it. May block; raises :class:`InputError`."""
        try:
            values = orjson.loads(path.read_bytes())
            if values.pop("schema") != _SCHEMA:
                raise ValueError
            note = cls(**values)
            if not all(isinstance(getattr(note, name), kind) for name, kind in _KINDS):
                raise TypeError
        except FileNotFoundError:
            why = "is not there, so there is nothing to go on with"
            remedy = "a download that is complete has none; else start again"
            raise InputError(str(path), why, remedy) from None
        except OSError as error:
            raise InputError(str(path), f"cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(str(path), "is not a note of a download", "start again") from None
        return note

    def save(self, path: Path) -> None:
        """Put it in the place of the one before. May block."""
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(
            os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "wb"
        ) as file:
            file.write(orjson.dumps({"schema": _SCHEMA, **asdict(self)}))
            sync(file)
        new.replace(path)


_KINDS = (
    ("path", str),
    ("account_id", str),
    ("host", str),
    ("query", str),
    ("cursor", str),
    ("bytes", int),
    ("records", int),
)


def note_path(output: Path) -> Path:
    """Where the note of an output is."""
    return output.with_name(output.name + SUFFIX)


def sync(file: BinaryIO) -> None:
    """Bring what was written to the disk; blocks."""
    file.flush()
    os.fsync(file.fileno())
