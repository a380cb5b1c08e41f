"""Runs: begin one, go on with one, tell how one stands.

Opens what the flow needs (inputs, keys, connections, run directory, ledger), lets it flow, and
closes with a report. Everything that can be refused is refused before anything is made or sent.

Invariant: once a run directory exists, every way to end leaves a ledger from which :func:`report`
and :func:`resume` know the state of every line.
"""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ctbatch import shell
from ctbatch.errors import (
    CtbatchError,
    InputBroke,
    InputChanged,
    InputError,
    LedgerFailed,
    ReportFailed,
    ResumeRefused,
    RunDirectoryError,
    UsageError,
)
from ctbatch.models import Counts, Mode
from ctbatch.notices import Level, Live, Notice, Phase, Silent, Watcher
from ctbatch.pipeline.breaker import Tally
from ctbatch.pipeline.closing import balanced, draw_up, ending, now, write_report
from ctbatch.pipeline.continuing import (
    Continuation,
    continue_from,
    kept_settings,
    mode_in,
    sources_again,
)
from ctbatch.pipeline.delivery import Delivery
from ctbatch.pipeline.equipment import Backoff, Equipment
from ctbatch.pipeline.flow import Flow
from ctbatch.pipeline.keyring import Keyring, load_keys
from ctbatch.pipeline.ledger import rundir
from ctbatch.pipeline.ledger.accounts import Accounts, SourceRow, legible
from ctbatch.pipeline.ledger.writer import Ledger
from ctbatch.pipeline.naming import Naming
from ctbatch.pipeline.places import places_for
from ctbatch.pipeline.rehearsal import Rehearsal
from ctbatch.pipeline.report.document import (
    REPORT_NAME,
    Measurements,
    Reason,
    Report,
    RunState,
    public_settings,
    restore_settings,
)
from ctbatch.pipeline.source.reader import Reader, SourceSpec, count_rest, expand, lines_again
from ctbatch.pipeline.stopping import Stop
from ctbatch.pipeline.threads import take
from ctbatch.settings import Account, Endpoint, KeyFiles, Settings

__all__ = ["report", "resume", "run"]


async def run(
    settings: Settings,
    *,
    watcher: Watcher | None = None,
    stop: Stop | None = None,
    backoff: Backoff | None = None,
) -> Report:
    """Upload the inputs and account for every line. ``backoff`` replaces the usual pauses.

    Raises:
        UsageError: something on this machine has to be mended first; nothing was made or sent.
    """
    specs = await asyncio.to_thread(expand, settings.inputs)
    keys = await asyncio.to_thread(load_keys, settings)
    execution = _Execution(
        settings, specs, keys, watcher=watcher or Silent(), stop=stop or Stop(), backoff=backoff
    )
    return await execution.begin()


async def resume(
    run_dir: Path,
    *,
    account: Account | None,
    endpoint: Endpoint | None,
    keys: KeyFiles | None,
    tuning: Mapping[str, Any],
    resume_flags: Sequence[str] = (),
    watcher: Watcher | None = None,
    stop: Stop | None = None,
    backoff: Backoff | None = None,
) -> Report:
    """Go on with a run: what is done is skipped, what may have arrived follows the policy.

    ``tuning`` are fields of ``Batching`` and ``Delivery`` that differ from what the run recorded;
    account, endpoint and keys never come from the run directory.

    Raises:
        UsageError: the run cannot go on like this; nothing was sent.
    """
    kept = await asyncio.to_thread(kept_settings, run_dir)
    began_with = kept["max_line_bytes"]
    if tuning.get("max_line_bytes", began_with) != began_with:
        why = f"was {began_with} when the run began, and which lines are too long is recorded"
        raise ResumeRefused("--max-line-bytes", why, "leave it out, or begin a new run")
    settings = restore_settings(
        kept,
        run_dir=run_dir,
        account=account,
        endpoint=endpoint,
        keys=keys,
        tuning=tuning,
        resume_flags=tuple(resume_flags),
    )
    specs = await asyncio.to_thread(sources_again, run_dir)
    loaded = await asyncio.to_thread(load_keys, settings)
    execution = _Execution(
        settings, specs, loaded, watcher=watcher or Silent(), stop=stop or Stop(), backoff=backoff
    )
    return await execution.go_on(run_dir)


def report(run_dir: Path) -> Report:
    """How a run stands, drawn up from its ledger; also while it runs, or after it was killed.

    Raises:
        RunDirectoryError: it is not a run directory.
    """
    with Accounts.of(run_dir) as accounts:
        return draw_up(accounts, run_dir, running=rundir.is_locked(run_dir))


class _Execution:
    """One process's share of a run."""

    def __init__(
        self,
        settings: Settings,
        specs: Sequence[SourceSpec],
        keys: Keyring | None,
        *,
        watcher: Watcher,
        stop: Stop,
        backoff: Backoff | None,
    ) -> None:
        self._settings = settings
        self._specs = specs
        self._keys = keys
        self._watcher = Naming(watcher, [spec.path for spec in specs])
        self._stop = stop
        self._backoff = backoff
        self._mode = mode_in(public_settings(settings))
        self._measured = Measurements()
        self._void = self._unverified = False
        sizes = [spec.size for spec in specs]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        self._live = Live(
            bytes_total=total,
            most_lines=settings.limit,
            limit=settings.delivery.concurrency,
            concurrency=settings.delivery.concurrency,
            spent_s=self._measured.spent_s,
        )

    async def begin(self) -> Report:
        """Run from the start, in a new run directory."""
        rows = [SourceRow(s.path, s.size, s.mtime_ns, s.fingerprint) for s in self._specs]
        async with AsyncExitStack() as stack:
            equipment = await self._equip(stack)
            first = str(self._settings.inputs[0])
            run_dir = await asyncio.to_thread(rundir.create, self._settings.run_dir, first)
            ledger = await self._begun(stack, run_dir, rows)
            start = Continuation(rows, {}, {}, frozenset())
            return await self._execute(equipment, ledger, run_dir, start)

    async def go_on(self, run_dir: Path) -> Report:
        """Run on from where an earlier process ended."""
        async with AsyncExitStack() as stack:
            equipment = await self._equip(stack)
            await self._lock(stack, run_dir)
            opened = await take(partial(Ledger, run_dir), undo=Ledger.close)
            ledger = await stack.enter_async_context(opened)
            account = self._settings.account
            with legible(run_dir):
                start = await asyncio.to_thread(
                    continue_from,
                    ledger.accounts,
                    self._specs,
                    mode=self._mode,
                    account_id=account.id if account else None,
                )
            for aside in ledger.files.moved_aside:
                text = f"{aside.name} holds what somebody edited; it was moved out of the way"
                self._tell(Level.WARNING, "files.moved", text)
            return await self._execute(equipment, ledger, run_dir, start)

    async def _begun(
        self, stack: AsyncExitStack, run_dir: Path, rows: Sequence[SourceRow]
    ) -> Ledger:
        """A ledger that says what is about to be run; if it cannot be written, nothing is left."""
        await self._lock(stack, run_dir)
        stack.push_async_callback(self._tidy, run_dir)
        self._void = True
        try:
            made = await take(partial(Ledger, run_dir, create=True), undo=Ledger.close)
            ledger = await stack.enter_async_context(made)
            await ledger.put_sources(rows)
            await ledger.put({
                "run_id": uuid.uuid4().hex,
                "mode": self._mode,
                "started_at": now(),
                "settings": public_settings(self._settings),
            })  # fmt: skip
        except LedgerFailed as error:
            remedy = "make room, or name another with --run-dir"
            why = f"cannot be written ({error.why})"
            raise RunDirectoryError(str(run_dir), why, remedy) from None
        self._void = False
        return ledger

    async def _tidy(self, run_dir: Path) -> None:
        """Leave no directory of a run that never began."""
        if self._void:
            await asyncio.to_thread(shutil.rmtree, run_dir, ignore_errors=True)

    async def _equip(self, stack: AsyncExitStack) -> Equipment:
        equipment = Equipment(
            self._settings,
            self._keys,
            live=self._live,
            measured=self._measured,
            watcher=self._watcher,
            stop=self._stop,
            backoff=self._backoff,
        )
        return await stack.enter_async_context(equipment)

    async def _lock(self, stack: AsyncExitStack, run_dir: Path) -> None:
        """Hold the run directory for this process."""
        lock, held = rundir.locked(run_dir), ExitStack()
        await take(partial(held.enter_context, lock), undo=lambda _: held.close())
        stack.push(held)

    async def _execute(
        self, equipment: Equipment, ledger: Ledger, run_dir: Path, start: Continuation
    ) -> Report:
        """Let it flow, then close with a report."""
        settings, began = self._settings, time.monotonic()
        await asyncio.to_thread(self._count_recorded, ledger.accounts, len(start.rows))
        settled = self._live.settled
        try:
            await ledger.put({
                "state": "running",
                "account_id": settings.account.id if settings.account else None,
                "host": settings.endpoint.host if settings.endpoint else None,
                "flags": settings.resume_flags,
                "problem": None,
                "exit_code": None,
                "finished_at": None,
            })  # fmt: skip
        except LedgerFailed as error:
            return await self._unrecorded(ledger, run_dir, error)
        self._watcher.watch(self._live)
        reader = Reader(
            self._specs,
            settings.batching,
            limit=settings.limit,
            recorded=start.spans,
            verify=start.verify,
        )
        places = places_for(settings.delivery.concurrency)
        make = Rehearsal if self._mode is Mode.DRY_RUN else Delivery
        drain_s = settings.delivery.drain_s
        async with reader:
            stages = equipment.stages(ledger)
            stages.breaker.resumed = bool(start.spans)
            flow = Flow(reader, places, stages, start.unfinished, drain_s=drain_s, make=make)
            await flow.run()
            stages.turns.close()
            rows = await self._final_rows(reader, start.rows)
            read = reader.statistics()
            self._unverified = any(not read[index].ended for index in start.verify)
        problem = self._stop.reason
        if isinstance(problem, UsageError) and not start.spans and not self._live.lines_read:
            self._void = True  # the first words of a pipe showed that it is no input
            raise problem
        self._measured.ran(time.monotonic() - began, self._live.settled - settled)
        self._live.phase = Phase.DONE
        return await self._close(ledger, run_dir, rows)

    def _count_recorded(self, accounts: Accounts, sources: int) -> None:
        """Begin the live tally with what earlier processes settled."""
        counts = sum((accounts.totals(i).counts for i in range(sources)), Counts())
        live = self._live
        live.processed, live.unprocessed = counts.processed, counts.unprocessed
        live.invalid, live.unknown, live.blank = counts.invalid, counts.unknown, counts.blank
        live.lines_read = counts.accounted

    async def _final_rows(self, reader: Reader, rows: Sequence[SourceRow]) -> list[SourceRow]:
        """What is known of the sources at the end; the rest of a seekable one is counted."""
        deadline = time.monotonic() + self._settings.delivery.drain_s
        left = self._settings.limit
        final: list[SourceRow] = []
        for spec, row, seen in zip(self._specs, rows, reader.statistics(), strict=True):
            total, ended = seen.lines, seen.ended
            if not ended and not self._stop.at_once:
                counted = await asyncio.to_thread(
                    count_rest, spec, seen.bytes, seen.lines, deadline, left
                )
                total, ended = (total, False) if counted is None else (counted, True)
            if not ended and row.ended:  # by an earlier process; what changed since is refused
                total, ended = max(total, row.total), True
            if left is not None:
                left = max(0, left - total)
            final.append(
                SourceRow(
                    row.path, row.size, row.mtime_ns, row.fingerprint, seen.stored, total, ended
                )
            )
        return final

    async def _close(self, ledger: Ledger, run_dir: Path, rows: Sequence[SourceRow]) -> Report:
        """Record how the run ended, put its files in order, and draw up the report.

        Putting in order may take minutes: whoever asks twice, and now again, does not wait for it.
        """
        stop, enough = self._stop, max(2, self._stop.requests + 1)
        try:
            await ledger.add_measured(self._measured.encode())
            if not isinstance(stop.reason, ResumeRefused):  # or the input as it was is forgotten
                await ledger.put_sources(rows)
            with lines_again(self._specs) as original:
                in_order = await ledger.publish_files(original, lambda: stop.requests >= enough)
            await ledger.put({"moved": [aside.name for aside in ledger.files.moved_aside]})
            drawn = await self._draw_up(ledger, run_dir, in_order=in_order)
        except LedgerFailed as error:
            return await self._unrecorded(ledger, run_dir, error)
        try:
            await asyncio.to_thread(write_report, run_dir, drawn)
        except OSError as error:
            failed = ReportFailed(str(run_dir / REPORT_NAME), error.strerror or "it failed")
            return drawn if drawn.problem else self._stopped(drawn, failed)
        return drawn

    async def _unrecorded(self, ledger: Ledger, run_dir: Path, error: LedgerFailed) -> Report:
        """The report of a run of which no more can be recorded."""
        return self._stopped(await asyncio.to_thread(_read, ledger, run_dir), error)

    def _stopped(self, drawn: Report, error: CtbatchError) -> Report:
        """The report of a run whose end could not be recorded, or reported."""
        command = ["ctbatch", "resume", drawn.run_dir, *self._settings.resume_flags]
        return replace(
            drawn,
            state=RunState.STOPPED,
            problem=str(error),
            exit_code=int(error.exit_code),
            resume=shell.command(command),
        )

    async def _draw_up(self, ledger: Ledger, run_dir: Path, *, in_order: bool) -> Report:
        """Decide how the run ended, record it, and draw up its report; unless its files are
        ``in_order`` it is not complete.
        """
        drawn = await asyncio.to_thread(_read, ledger, run_dir)
        problem = self._stop.reason or self._too_many_refused()
        if self._live.attempts:  # it is too late for "nothing was sent"
            if isinstance(problem, ResumeRefused):
                problem = InputChanged(str(problem))
            elif isinstance(problem, InputError):
                problem = InputBroke(problem.path, 0, problem.why)
        unbalanced = balanced(drawn)
        settled = drawn.lines.unsent == 0 and drawn.counted_to_end and in_order
        settled = settled and not self._unverified
        state, exit_code = ending(unbalanced or problem, settled=settled)
        if exit_code is None:
            problem, exit_code = None, drawn.worst_exit
        await ledger.put({
            "state": state,
            "problem": str(unbalanced or problem) if unbalanced or problem else None,
            "exit_code": int(exit_code),
            "finished_at": now(),
        })  # fmt: skip
        if not drawn.lines.total and problem is None:
            self._tell(Level.WARNING, "input.empty", "the input is empty: there was nothing to do")
        return await asyncio.to_thread(_read, ledger, run_dir, drawn.reasons)

    def _too_many_refused(self) -> CtbatchError | None:
        """What ``--max-refused`` says of the run as a whole."""
        percent = self._settings.delivery.max_refused_percent
        return Tally(self._live, percent, dry_run=self._settings.dry_run).judge()

    def _tell(self, level: Level, event: str, text: str) -> None:
        self._watcher.tell(Notice(level, event, text))


def _read(ledger: Ledger, run_dir: Path, reasons: tuple[Reason, ...] | None = None) -> Report:
    """The report as the ledger has it now, after its last write; also where its directory was moved
    or taken away meanwhile.
    """
    return draw_up(ledger.accounts, run_dir, running=False, reasons=reasons)
