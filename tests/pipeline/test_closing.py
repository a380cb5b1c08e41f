"""How a run ended, and its report, from the ledger alone."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from ctbatch.errors import (
    BalanceError,
    CtbatchError,
    ExitCode,
    Interrupted,
    LedgerFailed,
    ResumeRefused,
    RunDirectoryError,
    ServiceRefused,
    ServiceUnavailable,
)
from ctbatch.models import Counts, Mode, State
from ctbatch.pipeline.closing import balanced, draw_up, ending, now, write_report
from ctbatch.pipeline.ledger.accounts import SourceRow
from ctbatch.pipeline.report.document import Report, RunState
from ctbatch.pipeline.report.measurements import Measurements
from tests.pipeline.ledgers import admit, opened, read, settle, span

META = {
    "run_id": "r1",
    "mode": "sealed",
    "started_at": "2026-01-31T12:00:00Z",
    "settings": {"strict": False},
    "account_id": "A",
    "host": "h",
    "flags": ["--hpke-info", "a b"],
}


@pytest.mark.parametrize(
    ("reason", "settled", "state", "code"),
    [
        (None, True, RunState.COMPLETE, None),
        (Interrupted(2), True, RunState.COMPLETE, None),
        (Interrupted(2), False, RunState.INTERRUPTED, Interrupted(2).exit_code),
        (ServiceRefused("no"), True, RunState.REFUSED, ExitCode.REFUSED),
        (ServiceUnavailable(900, "timeout"), False, RunState.STOPPED, ExitCode.STOPPED),
        (LedgerFailed("x", "full"), False, RunState.STOPPED, ExitCode.STOPPED),
        (ResumeRefused("a", "changed"), False, RunState.STOPPED, ExitCode.USAGE),
        (BalanceError("a", 2, 1), True, RunState.STOPPED, ExitCode.UNBALANCED),
    ],
)
def test_the_ending_follows_from_the_reason(
    reason: CtbatchError | None, settled: bool, state: RunState, code: ExitCode | None
) -> None:
    """A signal that came when everything was settled interrupted nothing."""
    assert ending(reason, settled=settled) == (state, code)


def make(run_dir: Path, meta: Mapping[str, object]) -> None:
    """A run over two sources: one read to its end, one not."""

    async def write() -> None:
        measured = Measurements()
        measured.attempt("200", 0.1)
        measured.ran(2.0, 7)
        async with opened(run_dir, create=True) as ledger:
            await ledger.put_sources([
                SourceRow("users.ndjson", 100, 1, "f", 100, 5, ended=True),
                SourceRow("more.ndjson", 400, 1, "f", 100, 20, ended=False),
            ])  # fmt: skip
            await ledger.put(meta)
            await settle(ledger, span(), {0: State.INVALID, 1: State.UNPROCESSED})
            await admit(ledger, span(source=1))
            for _ in range(2):
                await ledger.add_measured(measured.encode())

    asyncio.run(write())


def drawn(run_dir: Path, *, running: bool = False) -> Report:
    """The report."""
    return read(run_dir, lambda accounts: draw_up(accounts, run_dir, running=running))


def test_every_line_is_in_the_report(tmp_path: Path) -> None:
    """What is recorded has its state, the rest of the lines known is unsent."""
    make(tmp_path, META | {"state": "stopped", "problem": "p", "exit_code": 4, "moved": ["x"]})
    report = drawn(tmp_path)
    users, more = report.sources
    assert users.lines == Counts(total=5, processed=3, unprocessed=1, invalid=1)
    assert more.lines == Counts(total=20, unsent=20, maybe_sent=5)
    assert report.lines == users.lines + more.lines
    assert not report.counted_to_end
    assert balanced(report) is None
    assert (report.batches.total, report.batches.delivered) == (2, 1)
    assert (report.attempts.total, report.elapsed_s) == (2, 4.0)
    assert [(reason.code, reason.first_lines) for reason in report.reasons] == [
        (500, (("users.ndjson", 1),)),
        (501, (("users.ndjson", 2),)),
    ]
    assert report.keys.sealed_with == (7,)
    resume = f"ctbatch resume {tmp_path} --hpke-info 'a b'"
    assert (report.resume, report.problem, report.moved) == (resume, "p", ("x",))
    assert (report.mode, report.exit_code) == (Mode.SEALED, 4)


def test_lines_read_beyond_the_known_total_count(tmp_path: Path) -> None:
    """A killed run knows its total only from its spans."""
    make(tmp_path, META)
    asyncio.run(_forget_totals(tmp_path))
    report = drawn(tmp_path)
    assert report.lines == Counts(
        total=10, processed=3, unprocessed=1, invalid=1, unsent=5, maybe_sent=5
    )
    assert balanced(report) is None


async def _forget_totals(run_dir: Path) -> None:
    async with opened(run_dir) as ledger:
        await ledger.put_sources([SourceRow("users.ndjson"), SourceRow("more.ndjson")])


@pytest.mark.parametrize(
    ("kept", "running", "state", "resumable"),
    [
        ("running", True, RunState.RUNNING, False),
        ("running", False, RunState.KILLED, True),
        (None, False, RunState.KILLED, True),
        ("complete", False, RunState.COMPLETE, False),
        ("interrupted", False, RunState.INTERRUPTED, True),
    ],
)
def test_the_state_is_what_stands_now(
    tmp_path: Path, kept: str | None, running: bool, state: RunState, resumable: bool
) -> None:
    """A run that says it is running and is not was killed; one that ended early names the
    command.
    """
    meta = META | {"problem": "of the process before"}
    make(tmp_path, meta | ({} if kept is None else {"state": kept, "finished_at": now()}))
    report = drawn(tmp_path, running=running)
    assert report.state is state
    assert (report.resume is not None) is resumable
    if running:
        assert (report.finished_at, report.problem) == (None, None)
    else:
        assert report.problem == "of the process before"


def test_a_run_that_ended_before_it_began_has_no_report(tmp_path: Path) -> None:
    """Killed between making the ledger and the first facts: say so, and that nothing was sent."""
    make(tmp_path, {})
    with pytest.raises(RunDirectoryError, match=r"before it began\. nothing was sent"):
        drawn(tmp_path)


def test_what_does_not_balance_is_found(tmp_path: Path) -> None:
    """The error names the source."""
    make(tmp_path, META)
    report = drawn(tmp_path)
    found = balanced(replace(report, lines=report.lines + Counts(total=1)))
    assert isinstance(found, BalanceError)


def test_a_report_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """It is private, and nothing is left beside it."""
    make(tmp_path, META)
    report = drawn(tmp_path)
    for run_id in ("r1", "r2"):
        write_report(tmp_path, replace(report, run_id=run_id))
    path = tmp_path / "report.json"
    assert orjson.loads(path.read_bytes())["run_id"] == "r2"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(entry.name for entry in tmp_path.glob("*report*")) == ["report.json"]
    assert not list(tmp_path.glob(".report*"))


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """A full disk costs the new report, never the one before."""
    make(tmp_path, META)
    report = drawn(tmp_path)
    write_report(tmp_path, report)
    (tmp_path / ".report.json.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_report(tmp_path, replace(report, run_id="r2"))
    assert orjson.loads((tmp_path / "report.json").read_bytes())["run_id"] == "r1"
    assert not list(tmp_path.glob(".report*"))


def test_the_time_is_utc_to_the_second() -> None:
    """ISO 8601 with a Z."""
    assert len(now()) == len("2026-01-31T12:00:00Z")
    assert now().endswith("Z")
