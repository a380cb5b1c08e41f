"""Closing a run: count what was not read, put the files in order, draw up the report.

The report is drawn up from the ledger alone, so that it is the same for a run that ended, that was
killed, or that is still running.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ctbatch import shell
from ctbatch.errors import (
    BalanceError,
    CtbatchError,
    ExitCode,
    Interrupted,
    RunDirectoryError,
    ServiceRefused,
)
from ctbatch.models import Counts, Mode
from ctbatch.pipeline.ledger.accounts import Accounts, SourceRow
from ctbatch.pipeline.ledger.durable import sync_directory
from ctbatch.pipeline.report.bottleneck import Bottleneck, Usage, bound_by
from ctbatch.pipeline.report.document import (
    REPORT_NAME,
    Batches,
    Keys,
    Measurements,
    Reason,
    Report,
    RunState,
    SourceReport,
    Warned,
    gather_reasons,
)
from ctbatch.pipeline.report.measurements import is_failure

__all__ = ["balanced", "draw_up", "ending", "now", "write_report"]


def ending(reason: CtbatchError | None, *, settled: bool) -> tuple[RunState, ExitCode | None]:
    """The state and exit code of a run that ended for a ``reason``; ``None``: by its lines.

    A run in which everything was ``settled`` before the reason took hold is complete.
    """
    if reason is None or (settled and isinstance(reason, Interrupted)):
        return RunState.COMPLETE, None
    if isinstance(reason, Interrupted):
        return RunState.INTERRUPTED, reason.exit_code
    if isinstance(reason, ServiceRefused):
        return RunState.REFUSED, reason.exit_code
    return RunState.STOPPED, reason.exit_code


def draw_up(
    accounts: Accounts, run_dir: Path, *, running: bool, reasons: tuple[Reason, ...] | None = None
) -> Report:
    """The report of a run from its ledger; ``running``: a process holds the run directory.
    ``reasons``: those of an earlier one of the same lines, since to look at all refused lines may
    take long.

    Raises:
        RunDirectoryError: the run ended before it began.
    """
    meta = accounts.meta()
    if "run_id" not in meta:
        why, remedy = "its run ended before it began", "nothing was sent: begin a new run"
        raise RunDirectoryError(str(run_dir), why, remedy)
    rows = accounts.sources()
    sources = tuple(_source(accounts, index, row) for index, row in enumerate(rows))
    lines = sum((source.lines for source in sources), Counts())
    measured = Measurements()
    for blob in accounts.measured():
        measured.merge(Measurements.decode(blob))
    state = RunState(meta.get("state", RunState.RUNNING))
    if state is RunState.RUNNING and not running:
        state = RunState.KILLED
    complete = state is RunState.COMPLETE
    names = [row.path for row in rows]
    flags = tuple(meta.get("flags", ()))
    return Report(
        run_id=meta["run_id"],
        state=state,
        mode=Mode(meta["mode"]),
        account_id=meta.get("account_id"),
        host=meta.get("host"),
        started_at=meta["started_at"],
        finished_at=meta.get("finished_at") if state is not RunState.RUNNING else None,
        elapsed_s=round(measured.elapsed_s, 3),
        sources=sources,
        lines=lines,
        counted_to_end=all(row.ended for row in rows),
        batches=Batches(**accounts.batches(), isolated=measured.isolated_batches),
        attempts=measured.attempts(),
        reasons=_reasons(accounts, names) if reasons is None else reasons,
        warnings=tuple(
            Warned(text=text, count=count, first_line=(names[source], line))
            for text, count, source, line in measured.warnings
        ),
        latency_ms=measured.latency_ms(),
        batch_latency_ms=measured.batch_latency_ms(),
        throughput=measured.throughput(),
        time_s=measured.time_s(),
        bound_by=_bottleneck(measured, meta.get("settings", {}).get("concurrency", 0)),
        settings=meta.get("settings", {}),
        keys=Keys(sealed_with=tuple(accounts.key_ids()), opened_with=measured.opened_with),
        resume=None
        if complete or running
        else shell.command(["ctbatch", "resume", str(run_dir), *flags]),
        problem=None if running else meta.get("problem"),
        exit_code=meta.get("exit_code") or ExitCode.OK,
        run_dir=str(run_dir),
        moved=tuple(meta.get("moved", ())),
        flags=flags,
    )


def _reasons(accounts: Accounts, names: Sequence[str]) -> tuple[Reason, ...]:
    return gather_reasons(
        (names[source], line, (row.state, row.code, row.error))
        for source, line, row in accounts.refusals()
    )


def _bottleneck(measured: Measurements, concurrency: int) -> Bottleneck | None:
    attempts, rates = measured.attempts(), measured.throughput()
    by_result = attempts.by_result.items()
    throttled = sum(count for result, count in by_result if result.endswith("429"))
    return bound_by(
        Usage(
            elapsed_s=measured.elapsed_s,
            spent_s=measured.spent_s,
            slots_full=rates.slots_full,
            mean_limit=rates.mean_limit,
            concurrency=measured.concurrency or concurrency,
            attempts=attempts.total,
            throttled=throttled,
            throttled_before=throttled > 0,
            failed_before=any(map(is_failure, attempts.by_result)),
            loop_cpu=rates.loop_cpu,
            core=measured.core,
            starved=measured.starved,
        )
    )


def _source(accounts: Accounts, index: int, row: SourceRow) -> SourceReport:
    """The lines of a source: what is recorded, and the rest of those known is unsent."""
    totals = accounts.totals(index)
    counts, total = totals.counts, max(row.total, totals.last_line)
    unsent = total - counts.accounted
    lines = counts + Counts(total=total, unsent=unsent, maybe_sent=totals.maybe_sent)
    return SourceReport(path=row.path, bytes=row.size, fingerprint=row.fingerprint, lines=lines)


def balanced(report: Report) -> BalanceError | None:
    """What does not balance in a report, if anything."""
    try:
        report.check_balance()
    except BalanceError as error:
        return error
    return None


def write_report(run_dir: Path, report: Report) -> None:
    """Replace ``report.json`` (0600): write, sync, rename.

    Raises:
        OSError: it cannot be written; the one before stands.
    """
    temporary = run_dir / f".{REPORT_NAME}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(report.to_json())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(run_dir / REPORT_NAME)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(run_dir)


def now() -> str:
    """The time, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
