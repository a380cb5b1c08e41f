"""The ledger: what became of every line, durable before anything depends on it.

SQLite in the run directory, written by one thread with group commit. WAL with ``synchronous=FULL``:
each commit is on the disk before its waiters go on. (``NORMAL`` would survive a kill but may lose
the last commits to a power cut, and a lost *admitted* is a batch sent twice.)

Invariants:

1. A span is *admitted* durably before the first byte of any of its records may go out, together
   with which of its lines may be on the wire (``maybe``) and which are not settled (``pending``).
2. It is *done* when every line in it has its state. In between it may be settled in part.
3. Originals of refused and unknown lines are appended and synced before the commit that holds
   their positions and the files' lengths.
4. After the first failure nothing more is written, and every waiter fails: what cannot be
   recorded must not be sent.
5. No personal data here: positions, codes and cleaned words only.

What does not live here: deciding what a reply means, reading the input, and sums
(:mod:`~ctbatch.pipeline.accounts`).
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import orjson

from ctbatch.errors import LedgerFailed, RunDirectoryError
from ctbatch.models import Counts, Refusal, Span
from ctbatch.pipeline.accounts import LEDGER_NAME, SCHEMA_VERSION, Accounts, SourceRow
from ctbatch.pipeline.rejects import RejectFiles, fresh_state

__all__ = ["Ledger"]

_SCHEMA = """
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
CREATE TABLE measured (id INTEGER PRIMARY KEY, value BLOB NOT NULL);
"""

_Write = Callable[[], object]
_Op = tuple[_Write, "asyncio.Future[None]"]


class Ledger:
    """The ledger of one run directory, open for writing; one process at a time.

    An async context manager that owns the writer thread. Its methods return when the write is
    durable and raise :class:`LedgerFailed` when it never will be. ``accounts`` reads the same
    database; use it only before the first and after the last write.
    """

    def __init__(self, run_dir: Path, *, create: bool = False) -> None:
        self._path = run_dir / LEDGER_NAME
        self._db = _connect(self._path, create=create)
        self.accounts = Accounts(self._db)
        names = [row.path for row in self.accounts.sources()]
        state = cast("Any", self.accounts.get("files")) or fresh_state()
        self.files = RejectFiles(run_dir, state, names)
        self._queue: queue.SimpleQueue[_Op | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failure: LedgerFailed | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="ctbatch-ledger", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            await asyncio.shield(asyncio.to_thread(thread.join))
        self.files.close()
        self._db.close()

    # -- the protocol of a span ---------------------------------------------------------------

    def admit(
        self,
        span: Span,
        *,
        digest: bytes,
        key_id: int | None,
        pending: frozenset[int] | None,
        maybe: frozenset[int],
    ) -> asyncio.Future[None]:
        """Note that the ``maybe`` lines of a span may be on the wire from now on.

        ``pending`` ``None``: nothing of it has been settled. The write is under way when this
        returns; wait for it before anything goes out.
        """
        on_wire = None if len(maybe) == span.lines else maybe
        row = (*_columns(span), digest, key_id, _pack(pending), _pack(on_wire))
        return self._submit(
            lambda: self._db.execute(
                "INSERT INTO span (source, first_line, lines, offset, size, digest, key_id, state,"
                " pending, maybe) VALUES (?, ?, ?, ?, ?, ?, ?, 'admitted', ?, ?)"
                " ON CONFLICT DO UPDATE SET pending = excluded.pending, maybe = excluded.maybe,"
                " key_id = excluded.key_id",
                row,
            )
        )

    async def settle(
        self,
        span: Span,
        *,
        digest: bytes,
        counts: Counts,
        refusals: Sequence[tuple[Refusal, bytes | None]],
        pending: frozenset[int],
        maybe: frozenset[int],
    ) -> None:
        """Record the states known so far: ``counts`` of the whole span, the newly refused lines
        with their originals (``None``: not copied), the lines that are not settled yet, and those
        of them that may have arrived.
        """
        state = "admitted" if pending else "done"
        numbers = (
            counts.processed, counts.unprocessed, counts.invalid, counts.unknown, counts.blank
        )  # fmt: skip
        row = (*_columns(span), digest, state, *numbers, _pack(pending), _pack(maybe))

        def write() -> None:
            for file, at, rows in self.files.append(span, refusals):
                self._insert_refusal(span.source, span.first_line, file, at, rows)
            self._db.execute(
                "INSERT INTO span (source, first_line, lines, offset, size, digest, state,"
                " processed, unprocessed, invalid, unknown, blank, pending, maybe)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " state = excluded.state, processed = excluded.processed,"
                " unprocessed = excluded.unprocessed, invalid = excluded.invalid,"
                " unknown = excluded.unknown, blank = excluded.blank,"
                " pending = excluded.pending, maybe = excluded.maybe",
                row,
            )

        await self._submit(write)

    async def withdraw(self, span: Span) -> None:
        """Note that nothing of an admitted span is on the wire after all."""
        key = (span.source, span.first_line)

        def write() -> None:
            self._db.execute(
                "DELETE FROM span WHERE source = ? AND first_line = ? AND state = 'admitted'"
                " AND pending IS NULL",
                key,
            )
            self._db.execute(
                "UPDATE span SET maybe = '[]' WHERE source = ? AND first_line = ?", key
            )

        await self._submit(write)

    # -- what concerns the run ----------------------------------------------------------------

    async def put(self, values: Mapping[str, object]) -> None:
        """Keep JSON values under their keys."""

        def write() -> None:
            for key, value in values.items():
                self._put(key, value)

        await self._submit(write)

    async def put_sources(self, rows: Sequence[SourceRow]) -> None:
        """Keep what is known of all sources, in order."""

        def write() -> None:
            self.files.name_sources([row.path for row in rows])
            self._db.executemany(
                "INSERT OR REPLACE INTO source"
                " (id, path, size, mtime_ns, fingerprint, bytes_read, total, ended)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (i, r.path, r.size, r.mtime_ns, r.fingerprint, r.bytes_read, r.total, r.ended)
                    for i, r in enumerate(rows)
                ],
            )

        await self._submit(write)

    async def add_measured(self, value: bytes) -> None:
        """Keep what this process measured; each process of a run adds its own."""
        await self._submit(
            lambda: self._db.execute("INSERT INTO measured (value) VALUES (?)", (value,))
        )

    async def publish_files(self, original: Callable[[int, int, int], bytes | None]) -> None:
        """Put the rows of the reject files in input order; safe against a crash at every step."""

        def write() -> None:
            for old, file, at, rows in self.files.sort(self.accounts.copies(), original):
                for part in old:
                    self._db.execute("DELETE FROM refusal WHERE rowid = ?", (part.row_id,))
                self._insert_refusal(old[0].source, old[0].first_line, file, at, rows)

        await self._submit(write)
        await self._submit(self.files.publish)

    # -- the writer thread --------------------------------------------------------------------

    def _submit(self, write: _Write) -> asyncio.Future[None]:
        """Have the writer do a write; the future is done when it is durable."""
        done: asyncio.Future[None] = self._loop.create_future()
        done.add_done_callback(_seen)
        self._queue.put((write, done))
        return done

    def _run(self) -> None:
        """Take whatever is queued, write it in one transaction, tell the waiters; until
        ``None``.
        """
        last = False
        while not last:
            ops: list[_Op] = []
            op = self._queue.get()
            while op is not None:
                ops.append(op)
                if self._queue.empty():
                    break
                op = self._queue.get()
            last = op is None
            if ops:
                self._commit([write for write, _ in ops])
                self._loop.call_soon_threadsafe(self._tell, [done for _, done in ops])

    def _commit(self, writes: Sequence[_Write]) -> None:
        if self._failure is not None:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for write in writes:
                write()
            self.files.sync()
            self._put("files", self.files.state)
            self._db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._failure = LedgerFailed(str(self._path), str(error))
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _tell(self, waiters: Sequence[asyncio.Future[None]]) -> None:
        for done in waiters:
            if done.cancelled():
                continue
            if self._failure is None:
                done.set_result(None)
            else:
                done.set_exception(self._failure)

    def _put(self, key: str, value: object) -> None:
        row = (key, orjson.dumps(value))
        self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", row)

    def _insert_refusal(
        self, source: int, first_line: int, file: str, at: int, rows: bytes
    ) -> None:
        self._db.execute(
            "INSERT INTO refusal (source, first_line, file, at, rows) VALUES (?, ?, ?, ?, ?)",
            (source, first_line, file, at, rows),
        )


def _connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open or create the database; used by one thread at a time."""
    try:
        if create:
            path.touch(0o600, exist_ok=False)
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=10,
        )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if create:
            db.executescript(_SCHEMA)
            db.execute("INSERT INTO meta VALUES ('schema', ?)", (orjson.dumps(SCHEMA_VERSION),))
    except (sqlite3.Error, OSError) as error:
        why = f"its ledger cannot be opened for writing ({error})"
        raise RunDirectoryError(str(path.parent), why) from None
    return db


def _seen(done: asyncio.Future[None]) -> None:
    """Look at the result: whoever waited for it may have been cancelled."""
    if not done.cancelled():
        done.exception()


def _columns(span: Span) -> tuple[int, ...]:
    return span.source, span.first_line, span.lines, span.offset, span.size


def _pack(indexes: frozenset[int] | None) -> bytes | None:
    return None if indexes is None else orjson.dumps(sorted(indexes))
