"""``ctbatch tune``: find the best concurrency and batch size for a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import orjson
import typer

from ctbatch.cli import streams
from ctbatch.cli.groups import spread
from ctbatch.cli.options import Connection
from ctbatch.cli.trying import INPUTS, Ground, attempt, progress
from ctbatch.cli.values import workers_in
from ctbatch.cli.wording import count, named_results
from ctbatch.errors import ExitCode, SettingsError
from ctbatch.pipeline.report.bottleneck import Cause
from ctbatch.settings import MAX_BATCH_LINES, MAX_CONCURRENCY, Batching, Delivery
from ctbatch.tuning.figures import Figures, Setting
from ctbatch.tuning.trials import Trials
from ctbatch.tuning.tuner import Bounds, End, Seen, Verdict, search

__all__ = ["tune"]

TRY_S = 60.0
"""A try is bounded by its requests; this is for a service that hardly answers."""

_ENDS = {
    End.FOUND: "more requests at a time, or smaller batches, bring no more",
    End.THROTTLED: "the service began to refuse requests (429), so nothing more was tried",
    End.FAILED: (
        "a request failed ({failures}), so nothing more was tried: try again once the service"
        " answers every time; `ctbatch check` may say what is wrong"
    ),
    End.BUDGET: "another try would take more requests than are allowed: --requests allows more",
    End.INPUT: "the input, or --limit, is too short to measure more requests at a time",
}

_OURS = {
    Cause.CPU: "this machine's processors",
    Cause.SEALING: "sealing on this machine",
    Cause.READING: "reading the input",
    Cause.ORDER: "the order of records (identities repeat)",
    Cause.LEDGER: "recording on this machine",
}
"""What is narrower than the service and not its doing, in words."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the search came to."""

    verdict: Verdict
    workers: int | None
    tried: list[Figures]

    @property
    def setting(self) -> Setting | None:
        """The setting to use."""
        best = self.verdict.best
        return None if best is None else Setting(best.concurrency, best.batch_size, self.workers)


@spread
def tune(
    *,
    inputs: Annotated[list[str], INPUTS],
    ground: Ground,
    connection: Connection,
    requests: Annotated[
        int, typer.Option(help="Requests in all, at most, repetitions included.")
    ] = 500,
    max_concurrency: Annotated[
        int, typer.Option(help="Requests at a time, at most.")
    ] = MAX_CONCURRENCY,
    max_batch_size: Annotated[
        int, typer.Option(help="Records in a request, at most.")
    ] = MAX_BATCH_LINES,
    workers: Annotated[
        str, typer.Option(help="Sealing processes; auto: as `run` would.", metavar="N|auto")
    ] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="The result as JSON on standard output.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Find the concurrency and the batch size that settle most lines per second.

    It begins with one request at a time, and stops at the first sign of throttling, or at the first
    request that fails (exit code 4, if nothing was measured by then). Against the bundled emulator:

        ctbatch tune users.ndjson --latency 0.5

    Against the account; nothing is stored:

        ctbatch tune users.ndjson --live --limit 500000
    """
    try:
        Delivery(concurrency=max_concurrency)
        Batching(batch_size=max_batch_size)
    except SettingsError as error:
        option = error.option.replace("--", "--max-")
        raise SettingsError(option, error.why, error.remedy) from None
    sealing = workers_in(workers)
    Delivery(workers=sealing)
    if requests < 1:
        raise SettingsError("--requests", "must be at least 1")
    config = ground.config()
    settings = ground.settings(inputs, connection, os.environ)

    async def work(trials: Trials) -> _Found:
        bounds = Bounds(max_concurrency, max_batch_size, requests)
        return await _search(trials, bounds, sealing, ground.limit, quiet=quiet)

    found = attempt(settings, config, work, quiet=quiet)
    if as_json:
        streams.out_bytes(_json(found, ground))
    else:
        streams.out("\n".join(_told(found, ground)))
    if found.setting is None and found.verdict.end in {End.FAILED, End.THROTTLED}:
        raise typer.Exit(ExitCode.STOPPED)


async def _search(
    trials: Trials, bounds: Bounds, workers: int | None, limit: int | None, *, quiet: bool
) -> _Found:
    """Try what the search asks for, until it has its verdict or the limit is reached."""
    searching, tried = search(bounds), list[Figures]()
    try:
        wanted = next(searching)
        while True:
            setting = Setting(wanted.concurrency, wanted.batch_size, workers)
            lines = wanted.requests * wanted.batch_size
            if limit is not None:
                lines = min(lines, limit - sum(found.lines for found in tried))
            if lines < 1:
                wanted = searching.send(Seen(0.0, 0, certain=False))
                continue
            figures = await trials.measure(
                setting, lines=lines, seconds=TRY_S, requests=wanted.requests
            )
            tried.append(figures)
            progress(f"{setting.options}: {_outcome(figures)}", quiet=quiet)
            wanted = searching.send(_seen(figures))
    except StopIteration as end:
        return _Found(end.value, workers, tried)


def _seen(figures: Figures) -> Seen:
    return Seen(
        figures.lines_per_s,
        figures.requests,
        throttled=figures.throttled > 0,
        failed=figures.failed,
        certain=figures.certain,
    )


def _outcome(figures: Figures) -> str:
    if figures.throttled:
        return "429"
    if figures.failed:
        return _failures(figures)
    return f"{'' if figures.certain else '~'}{count(figures.lines_per_s)} lines/s"


def _failures(figures: Figures) -> str:
    """What came instead of answers."""
    return named_results(figures.failures) or "an answer that could not be used"


def _json(found: _Found, ground: Ground) -> bytes:
    setting = found.setting
    told = {
        "schema": 1,
        "where": ground.name,
        "expected_ms": ground.expected_ms,
        "ended": found.verdict.end,
        "requests": found.verdict.requests,
        "trials": [asdict(figures) for figures in found.tried],
        "use": None if setting is None else {**asdict(setting), "options": setting.options},
    }
    return orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _told(found: _Found, ground: Ground) -> Iterator[str]:
    number = found.verdict.requests
    why = _ENDS[found.verdict.end]
    if found.tried:
        why = why.format(failures=_failures(found.tried[-1]))
    yield f"After {count(number)} request{'' if number == 1 else 's'}: {why}."
    setting = found.setting
    counted = [figures for figures in found.tried if setting in {None, figures.setting}]
    if (busy := ground.too_busy(counted)) is not None:
        yield busy
    if setting is None:
        if found.tried and not number:
            yield "Nothing was sent, so nothing is recommended: `ctbatch run --dry-run` says why."
        else:
            yield "Nothing could be measured, so nothing is recommended."
        return
    best = counted[0]
    many = "1 request" if setting.concurrency == 1 else f"{setting.concurrency} requests"
    bound = f", bound by {_OURS[best.cause]}, not by the service" if best.cause in _OURS else ""
    yield f"{count(best.lines_per_s)} lines/s with {many} at a time{bound}:"
    yield f"Use {setting.options}"
