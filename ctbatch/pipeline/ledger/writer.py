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
4. After the first failure, of whatever kind, nothing more is written, and every waiter fails: what
   cannot be recorded must not be sent. A waiter is told of the commit that held its write only.
5. No personal data here: positions, codes and cleaned words only.

What does not live here: deciding what a reply means, reading the input, sums
(:mod:`~ctbatch.pipeline.ledger.accounts`), tables (:mod:`~ctbatch.pipeline.ledger.schema`).
"""

from __future__ import annotations

import asyncio
import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, Self, cast

from ctbatch.errors import CtbatchError, LedgerFailed
from ctbatch.models import Counts, Refusal, Span
from ctbatch.pipeline.ledger.accounts import Accounts, SourceRow
from ctbatch.pipeline.ledger.rejects import RejectFiles, Sorted, fresh_state
from ctbatch.pipeline.ledger.schema import (
    ADMIT,
    LEDGER_NAME,
    NO_INDEXES,
    SETTLE,
    connect,
    pack_indexes,
    pack_path,
    unusable,
)
from ctbatch.pipeline.threads import see_through

__all__ = ["Ledger"]

GATHER_TURNS = 200
"""Turns of the loop in which writes are gathered for one commit, at most. While batches are sealed
without a pause it takes some 60 of them, 6 ms, to find the loop idle, and more is brought to be
written; each commit costs it the interpreter's lock a dozen times (benchmarks/README.md)."""

LOOK_TURNS = 20
"""After so many it is looked whether the loop has anything else to do."""

IDLE_TURN_S = 10e-6
"""A turn that takes less has nothing in it: 1 to 2 µs, and 100 while batches are sealed."""

_Write = Callable[[], object]
_Op = tuple[_Write, "asyncio.Future[None]"]


class Ledger:
    """The ledger of one run directory, open for writing; one process at a time.

    An async context manager that owns the writer thread. Its methods return when the write is
    durable and raise :class:`LedgerFailed` when it never will be. ``accounts`` reads the same
    database; use it only before the first and after the last write.
    """

    def __init__(self, run_dir: Path, *, create: bool = False) -> None:
        """Create the ledger, or take it up as the last process left it; blocks.

        Raises:
            RunDirectoryError: it is not one of ours, or cannot be written.
        """
        self._path = run_dir / LEDGER_NAME
        self._db = connect(run_dir, create=create)
        self.accounts = Accounts(self._db)
        self._files_kept: object = None
        self._queue: queue.SimpleQueue[list[_Op] | None] = queue.SimpleQueue()
        self._gathered: list[_Op] = []
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        try:
            self._take_up_files(run_dir)
        except (sqlite3.Error, OSError) as error:
            self._db.close()
            raise unusable(run_dir, error) from None

    def _take_up_files(self, run_dir: Path) -> None:
        """Open the reject files; what that changed is committed before anything else is."""
        names = [row.path for row in self.accounts.sources()]
        state = cast("Any", self.accounts.get("files")) or fresh_state()
        self.files = RejectFiles(run_dir, state, names)
        self._transact([])

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="ctbatch-ledger", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._hand_over()
            self._queue.put(None)
            await see_through(asyncio.to_thread(thread.join))

    def close(self) -> None:
        """Close what was opened and never entered; blocks."""
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
        packed = pack_indexes(pending, span.lines), pack_indexes(on_wire, span.lines)
        row = (*_columns(span), digest, key_id, *packed)
        return self._submit(lambda: self._keep_span(ADMIT, row))

    def settle(
        self,
        span: Span,
        *,
        digest: bytes,
        counts: Counts,
        refusals: Sequence[tuple[Refusal, bytes | None]],
        pending: frozenset[int],
        maybe: frozenset[int],
    ) -> asyncio.Future[None]:
        """Record the states known so far: ``counts`` of the whole span, the newly refused lines
        with their originals (``None``: not copied), the lines that are not settled yet, and those
        of them that may have arrived. As with :meth:`admit`, the write is under way on return.
        """
        state = "admitted" if pending else "done"
        numbers = (
            counts.processed, counts.unprocessed, counts.invalid, counts.unknown, counts.blank
        )  # fmt: skip
        packed = pack_indexes(pending, span.lines), pack_indexes(maybe, span.lines)
        row = (*_columns(span), digest, state, *numbers, *packed)

        def write() -> None:
            for file, at, rows in self.files.append(span, refusals):
                self._insert_refusal(span.source, span.first_line, file, at, rows)
            self._keep_span(SETTLE, row)

        return self._submit(write)

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
                "UPDATE span SET maybe = ? WHERE source = ? AND first_line = ?",
                (NO_INDEXES, *key),
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
                [(index, *_source_columns(row)) for index, row in enumerate(rows)],
            )

        await self._submit(write)

    async def add_measured(self, value: bytes) -> None:
        """Keep what this process measured; each process of a run adds its own."""
        await self._submit(
            lambda: self._db.execute("INSERT INTO measured (value) VALUES (?)", (value,))
        )

    async def publish_files(
        self,
        original: Callable[[int, int, int], bytes | None],
        give_up: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Put the rows of the reject files in input order; safe against a crash at every step.

        ``give_up`` is asked between batches: once it says so all stays as it is. Returns whether
        it is done.
        """
        done = False

        def write() -> None:
            nonlocal done
            self._db.execute("SAVEPOINT publishing")
            with closing(self.files.sort(self.accounts.copies(), original)) as sorting:
                for new in sorting:
                    if give_up():
                        break
                    self._replace_refusals(new)
                else:
                    done = True
            if not done:
                self._db.execute("ROLLBACK TO publishing")
            self._db.execute("RELEASE publishing")

        await self._submit(write)
        await self._submit(self.files.publish)
        return done

    # -- the writer thread --------------------------------------------------------------------

    def _submit(self, write: _Write) -> asyncio.Future[None]:
        """Have the writer do a write; the future is done when it is durable.

        What is asked for while the loop is busy goes to the writer together: who settles a batch
        makes room for the admission of another, and one commit, one sync, is for both.
        """
        done: asyncio.Future[None] = self._loop.create_future()
        done.add_done_callback(_seen)
        if self._thread is None:
            done.set_exception(LedgerFailed(str(self._path), "it is closed"))
        else:
            if not self._gathered:
                self._loop.call_soon(self._gather, 1, perf_counter())
            self._gathered.append((write, done))
        return done

    def _gather(self, turn: int, looked_s: float) -> None:
        """Hand over after enough turns, or after some in which next to nothing was done."""
        if turn % LOOK_TURNS == 0:
            now_s = perf_counter()
            if turn >= GATHER_TURNS or now_s - looked_s < LOOK_TURNS * IDLE_TURN_S:
                self._hand_over()
                return
            looked_s = now_s
        self._loop.call_soon(self._gather, turn + 1, looked_s)

    def _hand_over(self) -> None:
        """Give the writer what was gathered."""
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    def _run(self) -> None:
        """Take whatever is queued, write it in one transaction, tell the waiters; until
        ``None``. Then close everything.
        """
        last, begun = False, False
        while not last:
            ops: list[_Op] = []
            gathered = self._queue.get()
            while gathered is not None:
                ops += gathered
                if self._queue.empty():
                    break
                gathered = self._queue.get()
            last = gathered is None
            if ops:
                if not begun:  # not before: a process that writes nothing leaves all as it was
                    self._commit([self.files.begin])
                    begun = True
                failure = self._commit([write for write, _ in ops])
                waiters = [done for _, done in ops]
                self._loop.call_soon_threadsafe(self._tell, waiters, failure)
        self.close()

    def _commit(self, writes: Sequence[_Write]) -> Exception | None:
        """Write in one transaction; returns what went wrong, now or ever before."""
        if self._failure is None:
            try:
                self._transact(writes)
            except Exception as error:  # of whatever kind: a dead thread would hang its waiters
                self._failure = error
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
        return self._failure

    def _transact(self, writes: Sequence[_Write]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        for write in writes:
            write()
        self.files.sync()
        state = json.dumps(self.files.state)
        if state != self._files_kept:
            self._put("files", self.files.state)
        self._db.execute("COMMIT")
        self._files_kept = state

    def _tell(self, waiters: Sequence[asyncio.Future[None]], failure: Exception | None) -> None:
        for done in waiters:
            if done.done():  # nobody waits for it any more
                continue
            if failure is None:
                done.set_result(None)
            else:
                problem = LedgerFailed(str(self._path), _why(failure))
                problem.__cause__ = failure
                done.set_exception(problem)

    def _put(self, key: str, value: object) -> None:
        # The standard library's: orjson has no room for a path that is not UTF-8.
        row = (key, json.dumps(value).encode())
        self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", row)

    def _keep_span(self, statement: str, row: tuple[object, ...]) -> None:
        """Insert or update an unfinished span; recorded spans keep their bounds."""
        if self._db.execute(statement, row).rowcount != 1:
            first, lines = row[1:3]
            raise sqlite3.IntegrityError(f"lines {first} to +{lines} are recorded differently")

    def _insert_refusal(
        self, source: int, first_line: int, file: str, at: int, rows: bytes
    ) -> None:
        self._db.execute(
            "INSERT INTO refusal (source, first_line, file, at, rows) VALUES (?, ?, ?, ?, ?)",
            (source, first_line, file, at, rows),
        )

    def _replace_refusals(self, new: Sorted) -> None:
        first, *others = new.old
        row = (new.at, new.rows, first.row_id)
        self._db.execute("UPDATE refusal SET at = ?, rows = ? WHERE rowid = ?", row)
        for part in others:
            self._db.execute("DELETE FROM refusal WHERE rowid = ?", (part.row_id,))


def _why(failure: Exception) -> str:
    """What went wrong, without what an unforeseen error might quote."""
    if isinstance(failure, sqlite3.Error | OSError | CtbatchError):
        return str(failure)
    return f"an unforeseen {type(failure).__name__}"


def _seen(done: asyncio.Future[None]) -> None:
    """Look at the result: whoever waited for it may have been cancelled."""
    if not done.cancelled():
        done.exception()


def _source_columns(row: SourceRow) -> tuple[object, ...]:
    path, known = pack_path(row.path), (row.size, row.mtime_ns, row.fingerprint)
    return path, *known, row.bytes_read, row.total, row.ended


def _columns(span: Span) -> tuple[int, ...]:
    return span.source, span.first_line, span.lines, span.offset, span.size
