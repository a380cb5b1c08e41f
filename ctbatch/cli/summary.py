"""The end of a run in words, so that it can be sent to somebody who was not there.

Pure: a report in, text out. Nothing here is personal data, and whatever came from outside is made
harmless for a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ctbatch import shell
from ctbatch.cli.wording import clean, count, duration, lines, percent, shares, size
from ctbatch.models import Mode
from ctbatch.paths import is_file
from ctbatch.pipeline.report.document import Reason, Report, RunState

__all__ = ["MODES", "summary"]

MODES = {
    Mode.SEALED: "end-to-end encrypted",
    Mode.PLAINTEXT: "PLAINTEXT, without end-to-end encryption",
    Mode.EMULATOR: "EMULATOR, nothing left this machine",
    Mode.DRY_RUN: "dry run, nothing was sent",
    Mode.SERVER_DRY_RUN: "server dry run, nothing was stored",
}

_TOP_REASONS = 3
_PLACES = 3
_TOP_TIMES = 5

_FILES = (
    ("report.json", "this report"),
    ("rejected.ndjson", "the refused and invalid lines, as they stand in the input"),
    ("rejected.reasons.ndjson", "why, row by row"),
    ("unknown.ndjson", "the lines that may or may not have arrived"),
    ("unknown.reasons.ndjson", "why, row by row"),
)
"""The files of a run directory that people look for: design of the run directory."""

_HEADLINES = {
    RunState.RUNNING: "is still running",
    RunState.STOPPED: "stopped before its end",
    RunState.REFUSED: "was refused by the service",
    RunState.INTERRUPTED: "was interrupted",
    RunState.KILLED: "was killed before its end",
}

_NOT_CLOSED = {RunState.RUNNING, RunState.KILLED}
"""A report that is there all the same is of an earlier process."""

_STATES = (
    ("processed", "accepted by the service"),
    ("unprocessed", "refused by the service"),
    ("invalid", "not sent: the line itself is wrong"),
    ("unknown", "sent, but no usable answer; not repeated"),
    ("unsent", "not sent yet"),
    ("blank", "empty lines"),
)


def summary(report: Report) -> str:
    """The whole text, without a newline at its end."""
    return "\n".join(_all(report))


def _all(report: Report) -> Iterator[str]:
    yield _headline(report)
    if report.problem:
        yield from (f"  {clean(row)}" for row in report.problem.splitlines())
    yield ""
    yield from _went_in(report)
    yield ""
    yield from _became(report)
    yield from _reasons(report)
    yield from _warnings(report)
    yield ""
    yield from _took(report)
    if report.run_dir:
        yield from _files(report)
        yield from _next_steps(report)


def _headline(report: Report) -> str:
    run = f"Run {clean(report.run_id)}"
    if report.state is RunState.STOPPED and report.counted_to_end and not report.lines.unsent:
        return f"{run} ended with a problem."
    if report.state is not RunState.COMPLETE:
        return f"{run} {_HEADLINES[report.state]}."
    if not report.lines.total:
        return f"{run} is complete, but the input was empty."
    bad = report.lines.unprocessed + report.lines.invalid + report.lines.unknown
    if bad:
        return f"{run} is complete; {lines(bad)} {'needs' if bad == 1 else 'need'} a look."
    if report.mode is Mode.DRY_RUN:
        return f"{run} is complete: every line is fit to be sent."
    return f"{run} is complete: every line was accepted."


def _went_in(report: Report) -> Iterator[str]:
    known = [source.bytes for source in report.sources if source.bytes is not None]
    names = [clean(source.path) for source in report.sources]
    what = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    total = f"{'' if report.counted_to_end else 'at least '}{lines(report.lines.total)}"
    yield _row(
        "Went in",
        f"{total} from {what or 'nothing'}"
        + (f" ({size(sum(known))})" if known and len(known) == len(names) else ""),
    )
    if report.account_id:
        at = f" at {clean(report.host)}" if report.host else ""
        yield _row("Account", f"{clean(report.account_id)}{at}")
    yield _row("Mode", MODES[report.mode])


def _became(report: Report) -> Iterator[str]:
    counts = report.lines
    width = len(count(counts.total))
    yield "What became of the lines"
    for name, meaning in _STATES:
        number: int = getattr(counts, name)
        if not number and name != "processed":
            continue
        share = percent(number, counts.total)
        words = _unsent(report, meaning) if name == "unsent" else meaning
        yield f"  {name:<11}  {count(number):>{width}}  {share:>9}  {words}"


def _unsent(report: Report, meaning: str) -> str:
    if report.mode is Mode.DRY_RUN:
        return "fit to be sent"
    if report.lines.maybe_sent:
        return f"{meaning}; {count(report.lines.maybe_sent)} of them may have arrived"
    return meaning


def _reasons(report: Report) -> Iterator[str]:
    if not report.reasons:
        return
    more = len(report.reasons) - _TOP_REASONS
    yield ""
    yield "Most frequent reasons" + (f" ({more} more in report.json)" if more > 0 else "")
    for number, reason in enumerate(report.reasons[:_TOP_REASONS], 1):
        yield f"  {number}. {_reason(reason)}"
        places = ", ".join(f"{clean(path)}:{line}" for path, line in reason.first_lines[:_PLACES])
        if places:
            rest = reason.count - min(len(reason.first_lines), _PLACES)
            yield f"     {places}{', …' if rest > 0 else ''}"


def _warnings(report: Report) -> Iterator[str]:
    if report.warnings:
        yield ""
        yield "Accepted, but worth a look"
    for warned in report.warnings:
        path, line = warned.first_line
        yield f"  {lines(warned.count)}: {clean(warned.text)}, first at {clean(path)}:{line}"


def _reason(reason: Reason) -> str:
    code = "" if reason.code is None else f" ({clean(str(reason.code))})"
    return f"{lines(reason.count)} {reason.state}{code}: {clean(reason.error)}"


def _took(report: Report) -> Iterator[str]:
    if report.state in {RunState.RUNNING, RunState.KILLED}:
        # A process tells its time at its end; that of those before it is not the whole.
        yield _row("Began", clean(report.started_at))
    else:
        speed = report.throughput.lines_per_s
        rate = f", {count(speed)} lines/s" if speed else ""
        yield _row("Took", duration(report.elapsed_s) + rate)
    attempts, latency = report.attempts, report.latency_ms
    if attempts.total and latency.p50 is not None and latency.p99 is not None:
        retries = f", {count(attempts.retries)} of them retries" if attempts.retries else ""
        yield _row(
            "Requests",
            f"{count(attempts.total)}{retries}; half were answered within "
            f"{duration(latency.p50 / 1000)}, 99 % within {duration(latency.p99 / 1000)}",
        )
    batches = report.batch_latency_ms
    if batches.p50 is not None and batches.p99 is not None:
        yield _row(
            "Batches",
            f"half were settled {duration(batches.p50 / 1000)} after their admission, "
            f"99 % within {duration(batches.p99 / 1000)}",
        )
    if where := shares(asdict(report.time_s)):
        yield _row("Time", ", ".join(where[:_TOP_TIMES]))
    if report.bound_by is not None:
        yield _row("Bound", report.bound_by.text.removeprefix("bound "))
    if attempts.late_possible:
        yield _row(
            "Late",
            f"{count(attempts.late_possible)} timed out; what the service applies of them later is"
            " beyond our sight",
        )


def _files(report: Report) -> Iterator[str]:
    directory = Path(report.run_dir)
    counts = report.lines
    wanted = {
        "report.json": report.state not in _NOT_CLOSED and is_file(directory / "report.json"),
        "rejected": counts.unprocessed + counts.invalid > 0,
        "unknown": counts.unknown > 0,
    }
    rows = [
        (name, meaning)
        for name, meaning in _FILES
        if wanted.get(name, False) or wanted.get(name.split(".")[0], False)
    ]
    rows += [(Path(name).name, "edited since, so moved out of the way") for name in report.moved]
    if not rows:
        return
    shown = [(clean(str(directory / name)), meaning) for name, meaning in rows]
    width = max(len(path) for path, _ in shown)
    yield ""
    yield "Files"
    yield from (f"  {path:<{width}}  {meaning}" for path, meaning in shown)


def _next_steps(report: Report) -> Iterator[str]:
    """What to do with the lines that need a look."""
    counts = report.lines
    if not counts.unprocessed + counts.invalid + counts.unknown:
        return
    dry = report.mode in {Mode.DRY_RUN, Mode.SERVER_DRY_RUN}
    yield ""
    yield "What to do"
    if dry:
        yield "  Nothing was stored, and what follows stores nothing either."
    if counts.unprocessed + counts.invalid:
        yield f"  Mend the lines in rejected.ndjson, then {'check' if dry else 'upload'} that file:"
        yield f"    {_again(report, 'rejected.ndjson')}"
        if any(reason.code == "line_too_long" for reason in report.reasons):
            yield "  A line that was too long is an empty row there; where it is in the input is in"
            yield "  rejected.reasons.ndjson, as offset and length."
    if counts.unknown:
        yield from _UNKNOWN_DRY if dry else _UNKNOWN
        yield f"    {_again(report, 'unknown.ndjson')}"


_UNKNOWN = (
    "  Look up the lines in unknown.ndjson (dashboard, ctbatch profile, ctbatch events),",
    "  delete those that did arrive, since they would count twice, then upload the rest:",
)

_UNKNOWN_DRY = ("  No answer came for the lines in unknown.ndjson; have them checked again:",)

_KINDS = ("dry_run", "server_dry_run", "emulator", "plaintext", "strict")
"""Options of ``run`` that say what is done with a line; the modes are named like theirs."""


def _again(report: Report, name: str) -> str:
    """The command that does with a file of the run directory what the run did: at the same place,
    in the same mode.
    """
    path = str(Path(report.run_dir) / name)
    kinds = [kind for kind in _KINDS if report.mode == kind or report.settings.get(kind)]
    options = [f"--{kind.replace('_', '-')}" for kind in kinds]
    return shell.command(["ctbatch", "run", path, *options, *report.flags])


def _row(name: str, text: str) -> str:
    return f"{name:<9} {text}"
