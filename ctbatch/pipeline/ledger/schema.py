"""The ledger as a database: its tables, its connections, and how values stand in its columns.

Invariant: a ledger is created in one transaction, so a crash leaves none or a whole one.

What is written when is :mod:`~ctbatch.pipeline.ledger.writer`'s.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path

import orjson

from ctbatch import paths
from ctbatch.errors import RunDirectoryError
from ctbatch.models import line_indexes
from ctbatch.pipeline.ledger.durable import sync_directory

__all__ = [
    "ADMIT",
    "LEDGER_NAME",
    "NO_INDEXES",
    "SETTLE",
    "connect",
    "pack_indexes",
    "pack_path",
    "snapshot",
    "unpack_indexes",
    "unusable",
]

LEDGER_NAME = "ledger.sqlite"

NO_INDEXES = b"[]"
"""What :func:`pack_indexes` makes of none."""

_VERSION = 1

_TABLES = """
BEGIN;
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE source (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL, size INTEGER, mtime_ns INTEGER, fingerprint TEXT,
    bytes_read INTEGER NOT NULL, total INTEGER NOT NULL, ended INTEGER NOT NULL);
CREATE TABLE span (
    source INTEGER NOT NULL, first_line INTEGER NOT NULL, lines INTEGER NOT NULL,
    offset INTEGER NOT NULL, size INTEGER NOT NULL, digest BLOB NOT NULL, key_id INTEGER,
    state TEXT NOT NULL CHECK (state IN ('admitted', 'done')),
    processed INTEGER NOT NULL DEFAULT 0, unprocessed INTEGER NOT NULL DEFAULT 0,
    invalid INTEGER NOT NULL DEFAULT 0, unknown INTEGER NOT NULL DEFAULT 0,
    blank INTEGER NOT NULL DEFAULT 0, pending BLOB, maybe BLOB,
    PRIMARY KEY (source, first_line)) WITHOUT ROWID;
CREATE TABLE refusal (
    source INTEGER NOT NULL, first_line INTEGER NOT NULL, file TEXT NOT NULL,
    at INTEGER NOT NULL, rows BLOB NOT NULL);
CREATE INDEX refusal_by_span ON refusal (source, first_line);
CREATE TABLE measured (id INTEGER PRIMARY KEY, value BLOB NOT NULL);
PRAGMA user_version = 1;
COMMIT;
"""

ADMIT = (
    "INSERT INTO span (source, first_line, lines, offset, size, digest, key_id, state, pending,"
    " maybe) VALUES (?, ?, ?, ?, ?, ?, ?, 'admitted', ?, ?)"
    " ON CONFLICT DO UPDATE SET pending = excluded.pending, maybe = excluded.maybe,"
    " key_id = excluded.key_id WHERE lines = excluded.lines AND state = 'admitted'"
)
"""Changes no row if the span is done, or recorded with other bounds."""

SETTLE = (
    "INSERT INTO span (source, first_line, lines, offset, size, digest, state, processed,"
    " unprocessed, invalid, unknown, blank, pending, maybe)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
    " state = excluded.state, processed = excluded.processed, unprocessed = excluded.unprocessed,"
    " invalid = excluded.invalid, unknown = excluded.unknown, blank = excluded.blank,"
    " pending = excluded.pending, maybe = excluded.maybe"
    " WHERE lines = excluded.lines AND state = 'admitted'"
)
"""Changes no row if the span is done, or recorded with other bounds."""


def connect(run_dir: Path, *, create: bool) -> sqlite3.Connection:
    """Open the ledger for writing, or create it (0600); used by one thread at a time.

    Raises:
        RunDirectoryError: it is not one of ours, or cannot be written.
    """
    path = run_dir / LEDGER_NAME
    db: sqlite3.Connection | None = None
    try:
        if create:
            path.touch(0o600, exist_ok=False)  # SQLite gives -wal and -shm the mode of this file
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=10,
        )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA fullfsync = ON")  # macOS: past the drive's cache; no effect elsewhere
        if create:
            db.executescript(_TABLES)
            # So a ledger without tables is one whose run never began, also if its -wal is lost.
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            sync_directory(run_dir)
        _check_version(db, run_dir)
    except (sqlite3.Error, OSError, RunDirectoryError) as error:
        if db is not None:
            db.close()
        if isinstance(error, RunDirectoryError):
            raise
        raise unusable(run_dir, error) from None
    return db


def snapshot(run_dir: Path) -> sqlite3.Connection:
    """Open the ledger for reading only, as it stands now: what another process commits later is
    not seen.

    Raises:
        RunDirectoryError: there is none, or it is not one of ours.
    """
    path = run_dir / LEDGER_NAME
    try:
        there = paths.is_file(path)
    except OSError as error:
        raise RunDirectoryError(str(run_dir), f"cannot be read ({error.strerror})") from None
    if not there:
        raise RunDirectoryError(str(run_dir), f"holds no {LEDGER_NAME}", "name a run directory")
    problem: sqlite3.Error | None = None
    uri = f"{path.absolute().as_uri()}?mode=ro"
    for where in (uri, f"{uri}&immutable=1"):
        if problem is not None and path.with_name(f"{path.name}-wal").exists():
            break  # a process may have it open
        # The second time: in a directory that may not be written no lock can be taken.
        with ExitStack() as stack:
            try:
                db = sqlite3.connect(where, uri=True, timeout=10, isolation_level=None)
                stack.callback(db.close)
                db.execute("BEGIN")
                _check_version(db, run_dir)
            except sqlite3.Error as error:
                problem = error
            else:
                stack.pop_all()
                return db
    raise RunDirectoryError(str(run_dir), f"its ledger cannot be read ({problem})")


_TRACES = ("report.json", "rejected.ndjson", "unknown.ndjson")
"""What a run leaves only after it has begun."""


def unusable(run_dir: Path, error: Exception) -> RunDirectoryError:
    """The error for a ledger that cannot be written."""
    remedy = "look at its permissions and the free space"
    if "malformed" in str(error) or "not a database" in str(error):
        remedy = "it is damaged: bring back a copy of it"
    return RunDirectoryError(str(run_dir), f"its ledger cannot be written ({error})", remedy)


def _check_version(db: sqlite3.Connection, run_dir: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == _VERSION:
        return
    tables = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    if not version and not tables and not any((run_dir / name).exists() for name in _TRACES):
        why, remedy = "its run ended before it began", "nothing was sent: begin a new run"
    elif not version and not tables:
        why, remedy = "its ledger is empty: what was sent is not known", "bring back a copy of it"
    else:
        why = f"its ledger has schema {version}, not {_VERSION}"
        remedy = "use the version of ctbatch that began the run"
    raise RunDirectoryError(str(run_dir), why, remedy)


def pack_indexes(indexes: frozenset[int] | None, lines: int) -> bytes | None:
    """Some of the indexes of so many lines as JSON ranges ``[first, end, …]``: mostly they are
    consecutive, but for a few gaps, and only these are looked at one by one.
    """
    if indexes is None:
        return None
    if not indexes:
        return NO_INDEXES
    left_out = line_indexes(lines) - indexes
    assert len(left_out) + len(indexes) == lines, "an index of another batch"
    bounds = [0]
    for missing in sorted(left_out):
        if bounds[-1] == missing:
            bounds[-1] = missing + 1
        else:
            bounds += (missing, missing + 1)
    if bounds[-1] == lines:
        bounds.pop()
    else:
        bounds.append(lines)
    return orjson.dumps(bounds)


def unpack_indexes(blob: bytes | None) -> frozenset[int] | None:
    """The inverse of :func:`pack_indexes`."""
    if blob is None:
        return None
    bounds = orjson.loads(blob)
    pairs = zip(bounds[::2], bounds[1::2], strict=True)
    return frozenset(index for first, end in pairs for index in range(first, end))


def pack_path(path: str) -> str | bytes:
    """A path as its column holds it: text, or bytes where it is not UTF-8; ``os.fsdecode`` is the
    inverse.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path
