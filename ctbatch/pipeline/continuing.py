"""Which run goes on, whether it may with the inputs and the account at hand, and from which spans.

Size and modification time are compared first; where they differ, the digests of the recorded spans
decide while the input is read again. A file that only grew may go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctbatch.errors import InputError, ResumeRefused, RunDirectoryError
from ctbatch.models import Mode, Span
from ctbatch.pipeline.ledger import rundir
from ctbatch.pipeline.ledger.accounts import Accounts, Recorded, SourceRow
from ctbatch.pipeline.report.document import REPORT_NAME, Report, RunState
from ctbatch.pipeline.source.reader import RecordedSpan, SourceSpec, expand

__all__ = [
    "Continuation",
    "continue_from",
    "kept_settings",
    "mode_in",
    "mode_of",
    "sources_again",
    "unfinished",
]


@dataclass(frozen=True, slots=True)
class Continuation:
    """Where a run goes on.

    ``rows`` are the sources as they are now, with their lines where these were counted and none has
    changed; ``unfinished`` the recorded spans to deliver; ``spans`` all recorded spans by source;
    ``verify`` the sources whose digests have to decide.
    """

    rows: list[SourceRow]
    unfinished: Mapping[Span, Recorded]
    spans: Mapping[int, Sequence[RecordedSpan]]
    verify: frozenset[int]


def continue_from(
    accounts: Accounts, specs: Sequence[SourceSpec], *, mode: Mode, account_id: str | None
) -> Continuation:
    """Compare a run with what it would go on with.

    Raises:
        ResumeRefused: an input was replaced or cut, or the account or mode is another.
    """
    _compare_account(accounts, mode, account_id)
    rows = accounts.sources()
    if [row.path for row in rows] != [spec.path for spec in specs]:
        raise ResumeRefused("the inputs", "are not those that the run began with")
    now: list[SourceRow] = []
    unfinished: dict[Span, Recorded] = {}
    spans: dict[int, list[RecordedSpan]] = {}
    verify: set[int] = set()
    for index, (row, spec) in enumerate(zip(rows, specs, strict=True)):
        recorded = accounts.recorded(index)
        unfinished |= {item.span: item for item in recorded if not item.done}
        spans[index] = [RecordedSpan(item.span, item.done, item.digest) for item in recorded]
        if recorded and _changed(row, spec):
            verify.add(index)
        found = SourceRow(spec.path, spec.size, spec.mtime_ns, spec.fingerprint)
        same = spec.size is not None and (row.size, row.mtime_ns) == (spec.size, spec.mtime_ns)
        counted = same and row.ended
        now.append(replace(found, total=row.total, ended=True) if counted else found)
    return Continuation(now, unfinished, spans, frozenset(verify))


def _compare_account(accounts: Accounts, mode: Mode, account_id: str | None) -> None:
    began_as = accounts.get("mode")
    if began_as != mode:
        remedy = "begin a new run for another mode"
        raise ResumeRefused("this run", f"began in mode {began_as}, not {mode}", remedy)
    began_with = accounts.get("account_id")
    if mode is not Mode.EMULATOR and began_with != account_id and accounts.anything_sent():
        why = f"is not {began_with}, which part of the input may have reached already"
        raise ResumeRefused(f"account {account_id}", why, "use the account the run began with")


def _changed(row: SourceRow, spec: SourceSpec) -> bool:
    """Whether the digests of a source have to decide; raises if it was cut."""
    if row.size is None or spec.size is None:
        return True  # a pipe is read again from its start
    if spec.size < row.size:
        why = f"was cut from {row.size:,} to {spec.size:,} bytes since the run began"
        raise ResumeRefused(spec.path, why, "bring back the file the run began with")
    return row.size != spec.size or row.mtime_ns != spec.mtime_ns


def mode_of(run_dir: Path) -> Mode:
    """The mode of a run; it never changes."""
    return mode_in(kept_settings(run_dir))


def unfinished(base: Path = rundir.DEFAULT_BASE) -> Path:
    """The newest run directory under ``base`` whose run is not complete, or has no report of it.

    Raises:
        ResumeRefused: there is none.
    """
    for run_dir in rundir.all_runs(base):
        try:
            with Accounts.of(run_dir) as accounts:
                state, begun = accounts.get("state"), accounts.get("settings") is not None
        except RunDirectoryError:  # a broken one must not hide the others
            continue
        ended = state == RunState.COMPLETE and _is_reported(run_dir)
        if begun and not ended and not rundir.is_locked(run_dir):
            return run_dir
    raise ResumeRefused(str(base), "holds no unfinished run", "name a run directory")


def _is_reported(run_dir: Path) -> bool:
    """Whether the report in a run directory is that of its end: a kill may have come before."""
    try:
        written = Report.from_json((run_dir / REPORT_NAME).read_bytes())
    except (OSError, InputError):
        return False
    return written.state is RunState.COMPLETE


def sources_again(run_dir: Path) -> Sequence[SourceSpec]:
    """The inputs that a run began with, as they are now: by their names, since more files may match
    a pattern now. Blocks.

    Raises:
        InputError: one is missing or unreadable.
    """
    with Accounts.of(run_dir) as accounts:
        paths = [row.path for row in accounts.sources()]
    try:
        return expand(paths)
    except InputError as error:
        if error.remedy or Path(error.path).is_absolute():
            raise
        remedy = "resume from the directory in which the run began: its name is relative to that"
        raise replace(error, remedy=remedy) from None


def kept_settings(run_dir: Path) -> dict[str, Any]:
    """The settings that a run recorded."""
    with Accounts.of(run_dir) as accounts:
        kept = accounts.get("settings")
    if not isinstance(kept, dict):
        remedy = "nothing of it was sent: begin a new run"
        raise ResumeRefused(str(run_dir), "ended before it had begun", remedy)
    return kept


def mode_in(kept: Mapping[str, Any]) -> Mode:
    """The mode that recorded settings stand for."""
    for mode in (Mode.DRY_RUN, Mode.EMULATOR, Mode.SERVER_DRY_RUN, Mode.PLAINTEXT):
        if kept[mode.value]:
            return mode
    return Mode.SEALED
