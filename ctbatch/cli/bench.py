"""``ctbatch bench``: measure one's own file at a grid of settings."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from ctbatch import paths
from ctbatch.cli import streams
from ctbatch.cli.groups import spread
from ctbatch.cli.options import Connection
from ctbatch.cli.trying import INPUTS, Ground, attempt, progress
from ctbatch.cli.values import path_of, workers_in
from ctbatch.cli.wording import count, duration, named_results
from ctbatch.errors import ExitCode, SettingsError
from ctbatch.settings import Batching, Delivery
from ctbatch.tuning.advice import choose, is_undecided, knee
from ctbatch.tuning.bench import Grid, sweep
from ctbatch.tuning.figures import Figures, shown
from ctbatch.tuning.picture import picture
from ctbatch.tuning.trials import Trials

__all__ = ["bench"]

_PICTURE = b"<svg"

MAX_LINES = 10**12
MIN_S, MAX_S = 0.1, 3600.0


@spread
def bench(
    *,
    inputs: Annotated[list[str], INPUTS],
    ground: Ground,
    connection: Connection,
    concurrency: Annotated[
        str, typer.Option(help="Requests at a time to try, with commas.")
    ] = "1,4,8,15",
    batch_size: Annotated[
        str, typer.Option(help="Records in a request to try, with commas.")
    ] = "250,1000",
    workers: Annotated[
        str, typer.Option(help="Sealing processes to try, with commas; auto: as `run` would.")
    ] = "0,auto",
    lines: Annotated[int, typer.Option(help="Lines of the input for each at most.")] = 200_000,
    seconds: Annotated[
        float,
        typer.Option(
            help="Seconds for each, once all its slots are open; more where calls are slow."
        ),
    ] = 1.2,
    svg: Annotated[
        Path | None,
        typer.Option(
            help="Draw the curves into this file.",
            show_default=False,
            metavar="PATH",
            parser=path_of("--svg"),
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The figures as JSON on standard output.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Measure a file at a grid of settings, and name the one to use (exit code 4, if no request
    was accepted).

    Against the bundled emulator, within a minute:

        ctbatch bench users.ndjson --svg curves.svg

    As fast or slow as the service is for you:

        ctbatch bench users.ndjson --latency 0.5 --concurrency 5,10,15

    Against the account; nothing is stored:

        ctbatch bench users.ndjson --live --limit 300000 --concurrency 8,15 --workers auto
    """
    grid = _grid(concurrency, batch_size, workers)
    _check_size(lines, seconds)
    config = ground.config()
    settings = ground.settings(inputs, connection, os.environ)
    if svg is not None:
        _refuse_other_than_a_picture(svg)
    total = len(grid.settings())
    done = 0

    def tell(found: Figures) -> None:
        nonlocal done
        done += 1
        rate = f"{count(found.lines_per_s)} lines/s"
        progress(f"{done} of {total}: {found.setting.options}: {rate}", quiet=quiet)

    async def work(trials: Trials) -> list[Figures]:
        return await sweep(
            trials, grid, lines=lines, seconds=seconds, limit=ground.limit, tell=tell
        )

    figures = attempt(settings, config, work, quiet=quiet)
    if as_json:
        streams.out_bytes(_json(figures, ground))
    else:
        streams.out("\n".join(_told(figures, ground)))
    if svg is not None:
        _draw(svg, figures, f"ctbatch bench, {ground.name}")
    if any(found.requests for found in figures) and not any(map(_has_success, figures)):
        raise typer.Exit(ExitCode.STOPPED)


def _has_success(found: Figures) -> bool:
    return found.requests > found.throttled + sum(found.failures.values())


def _grid(concurrency: str, batch_size: str, workers: str) -> Grid:
    """Raises :class:`SettingsError` for what no run would take."""
    grid = Grid(
        _numbers("--concurrency", concurrency),
        _numbers("--batch-size", batch_size),
        [workers_in(part.strip()) for part in workers.split(",")],
    )
    for setting in grid.settings():
        Delivery(concurrency=setting.concurrency, workers=setting.workers)
        Batching(batch_size=setting.batch_size)
    return grid


def _check_size(lines: int, seconds: float) -> None:
    if not 1 <= lines <= MAX_LINES:
        raise SettingsError("--lines", f"must be from 1 to {count(MAX_LINES)}")
    if not MIN_S <= seconds <= MAX_S:
        raise SettingsError("--seconds", f"must be from {MIN_S} to {count(MAX_S)}")


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        why = f"must be numbers with commas between them, not {text!r}"
        raise SettingsError(option, why) from None


def _refuse_other_than_a_picture(path: Path) -> None:
    """``--svg *.ndjson`` names an input, and what is there is overwritten."""
    if paths.is_directory(path) or not paths.is_directory(path.parent):
        raise SettingsError("--svg", f"{path} is not a file in a directory that exists")
    if not paths.is_file(path):
        return
    try:
        with path.open("rb") as file:
            start = file.read(len(_PICTURE))
    except OSError as error:
        raise SettingsError("--svg", f"{path} cannot be read ({error.strerror})") from None
    if start not in {b"", _PICTURE}:
        raise SettingsError("--svg", f"{path} is there and is no picture", "name another file")


def _draw(path: Path, figures: Sequence[Figures], title: str) -> None:
    best = choose(figures)
    if best is not None and is_undecided(figures, best):
        best = None
    try:
        path.write_text(
            picture(figures, None if best is None else best.setting, title), encoding="utf-8"
        )
    except OSError as error:
        raise SettingsError("--svg", f"{path} cannot be written ({error.strerror})") from None


def _json(figures: Sequence[Figures], ground: Ground) -> bytes:
    best = choose(figures)
    told: dict[str, Any] = {
        "schema": 1,
        "where": ground.name,
        "expected_ms": ground.expected_ms,
        "trials": [asdict(found) for found in figures],
        "use": None,
        "knee": None,
    }
    if best is not None and not is_undecided(figures, best):
        told["use"] = {**asdict(best.setting), "options": best.setting.options}
        bend = knee(figures, best)
        told["knee"] = None if bend is None else asdict(bend)
    return orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


_ROW = "{:>11}  {:>6}  {:>7}  {:>9}  {:>8}  {:>8}  {:>9}  {:>5}  {:>6}  {:>5}  {:>9}  {}"


def _told(figures: Sequence[Figures], ground: Ground) -> Iterator[str]:
    yield _ROW.format(
        *("concurrency", "batch", "workers", "lines/s", "p50", "p99", "batch p99"),
        *("429", "failed", "CPU", "in flight", "bound by"),
    ).rstrip()
    for found in figures:
        yield _row(found)
    yield ""
    yield (
        "p50 and p99 are of attempts, on the wire only; batch p99 is from admission to settlement,"
        " waits included."
    )
    if any(found.requests and not found.certain for found in figures):
        yield "~ ended before three rounds of all slots were seen: try a longer file or more time."
    if failures := sum((Counter(found.failures) for found in figures), Counter[str]()):
        yield (
            f"{count(failures.total())} of {count(sum(found.requests for found in figures))}"
            f" requests failed ({named_results(failures)}): the figures are of a service that was"
            " not well. `ctbatch check` may say what is wrong."
        )
    if (busy := ground.too_busy(figures)) is not None:
        yield f"{busy} What is bound by the service is bound by that."
    yield from _advice(figures, limited=ground.limit is not None)


def _advice(figures: Sequence[Figures], *, limited: bool) -> Iterator[str]:
    if not any(found.requests for found in figures):
        yield "Nothing was sent, so nothing is recommended: `ctbatch run --dry-run` says why."
        return
    if not any(map(_has_success, figures)):
        yield (
            "No request was accepted, so nothing is recommended: where all were too many (429), try"
            " fewer at a time (--concurrency)."
        )
        return
    best = choose(figures)
    if best is None or is_undecided(figures, best):
        more = ", a larger --limit or fewer settings" if limited else ""
        what = "Nothing was" if best is None else "What looks fastest (~) was not"
        yield (
            f"{what} measured for long enough, so nothing is recommended:"
            f" try a longer file, or more --lines and --seconds{more}."
        )
        return
    if (bend := knee(figures, best)) is not None:
        yield f"With batches of {count(best.setting.batch_size)}, {bend.text}."
    yield f"Use {best.setting.options}"


def _row(found: Figures) -> str:
    setting, failed = found.setting, sum(found.failures.values())
    return _ROW.format(
        setting.concurrency,
        setting.batch_size,
        shown(setting.workers),
        f"{'' if found.certain else '~'}{count(found.lines_per_s)}",
        *(_ms(value) for value in (found.p50_ms, found.p99_ms, found.batch_p99_ms)),
        *(_share(part, found.requests) for part in (found.throttled, failed)),
        f"{100 * found.cpu:.0f} %" if found.requests else "",
        f"{found.in_flight:.1f}",
        found.cause or "",
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else ""


def _ms(value: float | None) -> str:
    return "" if value is None else duration(value / 1000)
