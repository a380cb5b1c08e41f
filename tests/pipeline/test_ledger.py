"""What the ledger says is durable, in order, and survives whatever ends the process."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ctbatch.errors import LedgerFailed, RunDirectoryError
from ctbatch.models import Counts, Refusal, State
from ctbatch.pipeline.ledger import rowfile, writer
from ctbatch.pipeline.ledger.accounts import Accounts, Recorded
from ctbatch.pipeline.ledger.writer import GATHER_TURNS, IDLE_TURN_S, LOOK_TURNS, Ledger
from tests.pipeline.ledgers import (
    DIGEST,
    admit,
    line,
    modes,
    opened,
    original,
    read,
    rows,
    settle,
    span,
)

ROOT = Path(__file__).parents[2]


def recorded(run_dir: Path, source: int = 0) -> list[Recorded]:
    """The spans of a source as another process reads them."""
    return read(run_dir, lambda accounts: accounts.recorded(source))


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Keep the writer waiting for the database, without a clock."""
    with closing(sqlite3.connect(run_dir / "ledger.sqlite", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


# -- the protocol of a span -----------------------------------------------------------------------


async def test_an_admission_is_durable_when_its_future_is_done(tmp_path: Path) -> None:
    """Another connection sees a span as admitted, all of it maybe on the wire."""
    async with opened(tmp_path, create=True) as ledger:
        await admit(ledger, span())
        (found,) = recorded(tmp_path)
    assert found == Recorded(span(), False, DIGEST, Counts(), None, None)
    assert read(tmp_path, lambda accounts: accounts.key_ids()) == [7]
    assert read(tmp_path, lambda accounts: accounts.anything_sent())


async def test_part_of_a_span_may_be_admitted(tmp_path: Path) -> None:
    """Only the lines of the piece that goes out may arrive."""
    async with opened(tmp_path, create=True) as ledger:
        await admit(ledger, span(), [0, 1, 4])
    (found,) = recorded(tmp_path)
    assert found.maybe == frozenset({0, 1, 4})
    assert found.pending is None


async def test_a_span_is_settled_in_parts(tmp_path: Path) -> None:
    """In between it is not done, and knows what is pending and what may have arrived."""
    async with opened(tmp_path, create=True) as ledger:
        await admit(ledger, span())
        await settle(ledger, span(), {1: State.INVALID}, pending=[2, 3], maybe=[3])
        (partly,) = recorded(tmp_path)
        await ledger.admit(
            span(), digest=DIGEST, key_id=8, pending=frozenset({2, 3}), maybe=frozenset({2, 3})
        )
        (again,) = recorded(tmp_path)
        counts = Counts(processed=2, invalid=1, unprocessed=1, unknown=1)
        await settle(ledger, span(), {2: State.UNPROCESSED, 3: State.UNKNOWN}, counts=counts)
        (done,) = recorded(tmp_path)
    assert (partly.done, partly.pending, partly.maybe) == (False, frozenset({2, 3}), frozenset({3}))
    assert partly.counts == Counts(processed=2, invalid=1)
    assert (again.done, again.pending, again.maybe) == (False, frozenset({2, 3}), frozenset({2, 3}))
    assert (done.done, done.pending, done.maybe) == (True, frozenset(), frozenset())
    assert done.counts == counts
    assert rows(tmp_path) == [(0, 2, line(2)), (0, 3, line(3))]
    assert rows(tmp_path, "unknown") == [(0, 4, line(4))]


async def test_a_withdrawn_admission_leaves_nothing(tmp_path: Path) -> None:
    """Nothing was on the wire: the lines may be cut into other batches, and nothing was sent."""
    async with opened(tmp_path, create=True) as ledger:
        await admit(ledger, span())
        await ledger.withdraw(span())
        assert recorded(tmp_path) == []
        await admit(ledger, span(lines=3))
    assert [found.span.lines for found in recorded(tmp_path)] == [3]


async def test_a_withdrawn_retry_keeps_what_was_settled(tmp_path: Path) -> None:
    """What is settled stays, the rest is unsent and cannot have arrived."""
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span(), {0: State.INVALID}, counts=Counts(invalid=1), pending=[1, 2])
        await ledger.admit(
            span(), digest=DIGEST, key_id=7, pending=frozenset({1, 2}), maybe=frozenset({1, 2})
        )
        assert read(tmp_path, lambda accounts: accounts.anything_sent())
        await ledger.withdraw(span())
    (found,) = recorded(tmp_path)
    assert (found.pending, found.maybe) == (frozenset({1, 2}), frozenset())
    assert found.counts == Counts(invalid=1)
    assert not read(tmp_path, lambda accounts: accounts.anything_sent())


@pytest.mark.parametrize("lines", [4, 5])
async def test_a_recorded_span_keeps_its_bounds(tmp_path: Path, lines: int) -> None:
    """A done span, or one with other bounds, is never written over: that would be a bug of ours."""
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span(), pending=[0] if lines == 4 else [])
        with pytest.raises(LedgerFailed, match="recorded differently"):
            await admit(ledger, span(lines=lines))
    assert recorded(tmp_path)[0].span == span()


async def test_a_done_span_is_not_settled_again(tmp_path: Path) -> None:
    """Its lines have their states."""
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span())
        with pytest.raises(LedgerFailed, match="recorded differently"):
            await settle(ledger, span(), {0: State.UNPROCESSED})
    assert recorded(tmp_path)[0].counts == Counts(processed=5)


# -- durability -----------------------------------------------------------------------------------


async def test_originals_are_synced_before_the_commit_and_that_before_the_waiter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut between any two steps leaves no position without its line."""
    steps: list[str] = []

    def watch(name: str) -> None:
        real = getattr(rowfile, name)

        def watched(*args: object) -> None:
            real(*args)
            steps.append(name)

        monkeypatch.setattr(rowfile, name, watched)

    watch("sync_file")
    watch("sync_directory")
    async with opened(tmp_path, create=True) as ledger:
        ledger._db.set_trace_callback(lambda sql: steps.append(sql.split(" ")[0]))
        await settle(ledger, span(), {0: State.UNPROCESSED})
        steps.append("told")
    order = [step for step in steps if step not in {"INSERT", "SELECT"}]
    new_files = ["sync_directory"] * 2
    assert order[:7] == ["BEGIN", *new_files, "sync_file", "sync_file", "COMMIT", "told"]


def test_each_commit_is_on_the_disk(tmp_path: Path) -> None:
    """WAL with FULL: NORMAL may lose the last commits to a power cut."""
    ledger = Ledger(tmp_path, create=True)
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)
    ledger._db.close()


async def test_writes_that_wait_share_a_commit(tmp_path: Path) -> None:
    """Fifty admissions cost a handful of syncs, not fifty."""
    commits: list[str] = []
    async with opened(tmp_path, create=True) as ledger:
        ledger._db.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        with held(tmp_path):
            waiting = [
                ledger.admit(
                    span(5 * n + 1),
                    digest=DIGEST,
                    key_id=None,
                    pending=None,
                    maybe=frozenset(range(5)),
                )
                for n in range(50)
            ]
        await asyncio.gather(*waiting)
        assert len(recorded(tmp_path)) == 50
    assert len(commits) <= 3


async def test_a_waiter_that_is_cancelled_harms_nobody(tmp_path: Path) -> None:
    """Its write may happen; the others' do, and the writer lives on."""
    async with opened(tmp_path, create=True) as ledger:
        with held(tmp_path):
            lost = asyncio.create_task(admit(ledger, span(1)))
            kept = asyncio.create_task(admit(ledger, span(6)))
            await asyncio.sleep(0)
            lost.cancel()
            with pytest.raises(asyncio.CancelledError):
                await lost
        await kept
        await ledger.put({"after": 1})
    assert [found.span.first_line for found in recorded(tmp_path)] == [1, 6]


async def test_only_the_owner_can_read(tmp_path: Path) -> None:
    """Ledger, its companions and all row files are 0600 while they are open."""
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span(), {0: State.UNPROCESSED, 1: State.UNKNOWN})
        found = modes(tmp_path)
    assert set(found.values()) == {0o600}
    assert {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"} < found.keys()
    assert len(found) == 7


# -- failure --------------------------------------------------------------------------------------


def fill_up(ledger: Ledger, run_dir: Path) -> None:
    """No page may be added to the database."""
    ledger._db.execute("PRAGMA max_page_count = 1")


def close_under_it(ledger: Ledger, run_dir: Path) -> None:
    """The database is gone."""
    ledger._db.close()


def fill_up_files(ledger: Ledger, run_dir: Path) -> None:
    """Lines go to a device that is always full."""
    (run_dir / "rejected.ndjson").symlink_to("/dev/full")


def block_files(ledger: Ledger, run_dir: Path) -> None:
    """The reasons cannot be opened."""
    (run_dir / "rejected.reasons.ndjson").mkdir()


@pytest.mark.parametrize("spoil", [fill_up, close_under_it, fill_up_files, block_files])
async def test_after_the_first_failure_nothing_is_written(
    tmp_path: Path, spoil: Callable[[Ledger, Path], None]
) -> None:
    """Every waiter fails, now and later, and the ledger stands as it stood before."""
    async with opened(tmp_path, create=True) as ledger:
        await admit(ledger, span())
        spoil(ledger, tmp_path)
        many = dict.fromkeys(range(5), State.UNPROCESSED)
        big = [settle(ledger, span(1000 * n + 1, 1000), many) for n in range(1, 40)]
        results = await asyncio.gather(*big, return_exceptions=True)
        assert {type(result) for result in results} == {LedgerFailed}
        assert len({id(result) for result in results}) == len(results)
        attempts: list[Awaitable[object]] = [
            admit(ledger, span(6)),
            ledger.withdraw(span()),
            ledger.put({"late": 1}),
            ledger.add_measured(b"late"),
            ledger.publish_files(original),
        ]
        for attempt in attempts:
            with pytest.raises(LedgerFailed, match=r"ledger\.sqlite cannot be written"):
                await attempt
    assert [found.span for found in recorded(tmp_path)] == [span()]
    assert read(tmp_path, lambda accounts: accounts.get("late")) is None
    assert list(read(tmp_path, lambda accounts: list(accounts.refusals()))) == []


def test_a_full_disk_ends_the_run_not_the_writer(tmp_path: Path) -> None:
    """With files limited in size the process is told; what was told before stands."""
    said = _victim(tmp_path, "--fsize", "150000")
    assert said[-1] == ["failed"]
    _check_after_crash(tmp_path, said)


async def test_an_unforeseen_error_fails_its_waiters_too(tmp_path: Path) -> None:
    """Whatever goes wrong in the writer, nobody hangs; the message quotes nothing."""
    async with opened(tmp_path, create=True) as ledger:
        with pytest.raises(LedgerFailed, match="an unforeseen TypeError") as caught:
            await ledger.put({"secret": object()})
        assert "secret" not in str(caught.value)
        with pytest.raises(LedgerFailed):
            await ledger.put({"late": 1})


async def test_what_is_asked_for_within_two_turns_is_one_commit(tmp_path: Path) -> None:
    """The admission that a settlement makes room for shares its commit, and its fate."""
    async with opened(tmp_path, create=True) as ledger:
        first = ledger._submit(lambda: None)
        await asyncio.sleep(0)
        second = ledger._submit(close_and_fail)
        results = await asyncio.gather(first, second, return_exceptions=True)
    assert all(isinstance(result, LedgerFailed) for result in results)


@pytest.mark.parametrize(
    ("busy", "turns"),
    [(0, LOOK_TURNS), (LOOK_TURNS, 2 * LOOK_TURNS), (2 * GATHER_TURNS, GATHER_TURNS)],
    ids=["idle", "idle after a while", "busy"],
)
async def test_writes_are_gathered_for_as_long_as_the_loop_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: int, turns: int
) -> None:
    """But not for ever; and nobody waits for others where there are none."""
    async with opened(tmp_path, create=True) as ledger:
        now_s, passed = 0.0, 0
        monkeypatch.setattr(writer, "perf_counter", lambda: now_s)
        written = ledger._submit(lambda: None)
        while ledger._gathered:
            now_s += 2 * IDLE_TURN_S if passed < busy else 0.0
            await asyncio.sleep(0)
            passed += 1
        await written
    assert passed == turns


async def test_a_write_that_was_durable_is_not_called_failed(tmp_path: Path) -> None:
    """A waiter hears of its own commit, also when a later one has failed by then."""
    async with opened(tmp_path, create=True) as ledger:
        first = ledger._submit(lambda: None)
        ledger._hand_over()
        while not ledger._queue.empty():  # the writer has taken it: what follows is another commit
            pass
        second = ledger._submit(close_and_fail)
        results = await asyncio.gather(first, second, return_exceptions=True)
    assert results[0] is None
    assert isinstance(results[1], LedgerFailed)


def close_and_fail() -> None:
    """A write that cannot succeed."""
    raise OSError(28, "No space left on device")


async def test_a_closed_ledger_fails_at_once(tmp_path: Path) -> None:
    """Nobody waits for a writer that has gone."""
    async with opened(tmp_path, create=True) as ledger:
        pass
    with pytest.raises(LedgerFailed, match="closed"):
        await admit(ledger, span())


async def test_leaving_writes_what_is_queued(tmp_path: Path) -> None:
    """A write that nobody waits for is not lost."""
    async with opened(tmp_path, create=True) as ledger:
        for n in range(3):
            ledger.admit(
                span(5 * n + 1), digest=DIGEST, key_id=None, pending=None, maybe=frozenset()
            )
    assert len(recorded(tmp_path)) == 3


async def test_leaving_can_be_cancelled(tmp_path: Path) -> None:
    """Cancellation passes through once the writer has finished and closed: whoever comes next finds
    nobody at work.
    """
    ledger = await asyncio.to_thread(Ledger, tmp_path, create=True)
    await ledger.__aenter__()
    writer = ledger._thread
    assert writer is not None
    with held(tmp_path):
        ledger.admit(span(), digest=DIGEST, key_id=None, pending=None, maybe=frozenset())
        leaving = asyncio.create_task(ledger.__aexit__(None))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        assert not leaving.done()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert not writer.is_alive()
    assert len(recorded(tmp_path)) == 1


# -- opening --------------------------------------------------------------------------------------


async def test_what_was_put_is_read_again(tmp_path: Path) -> None:
    """Values, measurements and sources survive, paths that are not UTF-8 among them."""
    odd = b"caf\xe9.ndjson".decode("utf-8", "surrogateescape")
    async with opened(tmp_path, create=True, sources=["plain.ndjson", odd]) as ledger:
        await ledger.put({"resume": f"ctbatch resume {odd}", "none": None, "n": 3})
        await ledger.add_measured(b"one")
        await ledger.add_measured(b"two")
        await settle(ledger, span(source=1), {0: State.INVALID})
    async with opened(tmp_path) as ledger:
        await ledger.publish_files(original)
    meta = read(tmp_path, lambda accounts: accounts.meta())
    assert meta["resume"].endswith(odd)
    assert (meta["none"], meta["n"]) == (None, 3)
    assert read(tmp_path, lambda accounts: accounts.measured()) == [b"one", b"two"]
    assert [row.path for row in read(tmp_path, lambda accounts: accounts.sources())] == [
        "plain.ndjson",
        odd,
    ]
    assert b"caf\\\\udce9" in (tmp_path / "rejected.reasons.ndjson").read_bytes()


async def test_a_source_is_updated_in_place(tmp_path: Path) -> None:
    """What is known of the sources is replaced, not added."""
    async with opened(tmp_path, create=True) as ledger:
        rows_ = read(tmp_path, lambda accounts: accounts.sources())
        await ledger.put_sources(rows_)
    assert len(read(tmp_path, lambda accounts: accounts.sources())) == 2


def test_a_ledger_is_created_once(tmp_path: Path) -> None:
    """A second run in the same directory never writes over the first."""
    Ledger(tmp_path, create=True)._db.close()
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        Ledger(tmp_path, create=True)


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    """Neither creating nor opening works without the directory."""
    for create in (True, False):
        with pytest.raises(RunDirectoryError, match="cannot be written"):
            Ledger(tmp_path / "none", create=create)


def test_a_row_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """A directory in the place of a file stops opening, with its name."""
    Ledger(tmp_path, create=True)._db.close()
    (tmp_path / "rejected.ndjson").mkdir()
    with pytest.raises(RunDirectoryError, match=r"rejected\.ndjson"):
        Ledger(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        ("PRAGMA user_version = 2", "schema 2, not 1"),
        ("PRAGMA user_version = 0", "schema 0, not 1"),
    ],
)
def test_a_ledger_of_another_version_is_left_alone(tmp_path: Path, spoil: str, why: str) -> None:
    """A newer ctbatch's ledger is neither read nor written."""
    Ledger(tmp_path, create=True)._db.close()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as db:
        db.execute(spoil)
    with pytest.raises(RunDirectoryError, match=why):
        Ledger(tmp_path)
    with pytest.raises(RunDirectoryError, match=why):
        recorded(tmp_path)


def test_a_run_that_ended_before_it_began_is_explained(tmp_path: Path) -> None:
    """A crash while the ledger was created leaves an empty file."""
    (tmp_path / "ledger.sqlite").touch()
    for open_ in (Ledger, recorded):
        with pytest.raises(RunDirectoryError, match=r"before it began.*begin a new run"):
            open_(tmp_path)


async def test_a_ledger_whose_log_is_lost_is_not_called_one_that_never_began(
    tmp_path: Path,
) -> None:
    """Its tables are in the file itself before anything is admitted."""
    (tmp_path / "copy").mkdir()
    async with opened(tmp_path, create=True) as ledger:
        await admit(ledger, span())
        await asyncio.to_thread(shutil.copy, tmp_path / "ledger.sqlite", tmp_path / "copy")
    read(tmp_path / "copy", lambda accounts: accounts.get("settings"))


async def test_opening_cuts_what_was_never_committed(tmp_path: Path) -> None:
    """Rows that a crash left beyond the last commit go; also where no row was ever committed."""
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span(), {0: State.UNPROCESSED})
    for name in ("rejected.ndjson", "rejected.reasons.ndjson", "unknown.ndjson"):
        with (tmp_path / name).open("ab") as file:
            file.write(b"half a row")
    async with opened(tmp_path) as ledger:
        assert ledger.files.moved_aside == []
        assert rows(tmp_path) == [(0, 1, line(1))]
        assert not (tmp_path / "unknown.ndjson").exists()
        await settle(ledger, span(6), {1: State.UNPROCESSED})
    assert rows(tmp_path) == [(0, 1, line(1)), (0, 7, line(7))]


async def test_an_overlong_line_stands_as_an_empty_row(tmp_path: Path) -> None:
    """Its reason says where it is in the input; one that was not copied for another reason says
    so.
    """
    overlong = Refusal(0, State.INVALID, "too_long", "over 1 MiB", place=(123, 4567))
    other = Refusal(1, State.INVALID, "x", "\ud800")
    async with opened(tmp_path, create=True) as ledger:
        for _ in range(2):
            await ledger.settle(
                span(6 if _ else 1),
                digest=DIGEST,
                counts=Counts(invalid=2, processed=3),
                refusals=[(overlong, None), (other, None)],
                pending=frozenset(),
                maybe=frozenset(),
            )
        await ledger.publish_files(original)
    assert (tmp_path / "rejected.ndjson").read_bytes() == b"\n" * 4
    reasons = (tmp_path / "rejected.reasons.ndjson").read_text().splitlines()
    assert '"copied":false,"offset":123,"length":4567' in reasons[0]
    assert reasons[1].endswith('"error":"\\\\ud800","copied":false}')
    refusals = read(tmp_path, lambda accounts: list(accounts.refusals()))
    assert refusals[0] == (0, 1, (0, "invalid", "too_long", "over 1 MiB", [123, 4567], None))


# -- kill -9 --------------------------------------------------------------------------------------


def _victim(run_dir: Path, *args: str, steps: int | None = None) -> list[list[str]]:
    """Have a process write a ledger; kill it when it has said so many steps."""
    command = [sys.executable, "-m", "tests.pipeline.ledger_victim", str(run_dir), *args]
    said: list[list[str]] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for step in process.stdout:
            said.append(step.split())
            if len(said) == steps:
                process.kill()
    return said


def _check_after_crash(run_dir: Path, said: list[list[str]]) -> None:
    """Whatever was said is recorded, and the files agree with the ledger."""
    found = {item.span.first_line: item for item in recorded(run_dir)}
    for what, *lines in said:
        for first_line in map(int, lines if what in {"admitted", "partly", "settled"} else ()):
            assert first_line in found
            assert found[first_line].done or what != "settled"
            assert found[first_line].pending is not None or what == "admitted"

    async def reopen() -> None:
        async with opened(run_dir) as ledger:
            assert ledger.files.moved_aside == []
            await ledger.publish_files(lambda *_: None)

    asyncio.run(reopen())
    expected = [
        (0, item.span.first_line + index)
        for item in found.values()
        for index in ([0, 3] if item.done else [3] if item.pending is not None else [])
    ]
    assert [row[:2] for row in rows(run_dir)] == expected
    assert all(row[2] for row in rows(run_dir))
    unknown = [(0, item.span.first_line + 2) for item in found.values() if item.done]
    if unknown:
        assert [row[:2] for row in rows(run_dir, "unknown")] == unknown


@pytest.mark.parametrize("steps", [1, 4, 26, 60])
def test_kill_9_loses_nothing_that_was_said(tmp_path: Path, steps: int) -> None:
    """Killed at any step, also around publishing, the next process goes on from it."""
    said = _victim(tmp_path, steps=steps)
    _check_after_crash(tmp_path, said)


def test_a_report_can_be_drawn_while_another_process_writes(tmp_path: Path) -> None:
    """Each reading is of one instant: counts and reasons belong together."""
    command = [sys.executable, "-m", "tests.pipeline.ledger_victim", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        for _ in range(40):
            read(tmp_path, _check_one_instant)
            process.stdout.readline()
        process.kill()


def _check_one_instant(accounts: Accounts) -> None:
    totals = accounts.totals(0)
    listed = sum(1 for _ in accounts.refusals())
    counts = totals.counts
    assert listed == counts.unprocessed + counts.invalid + counts.unknown
    assert 0 <= totals.maybe_sent <= totals.last_line - counts.accounted
