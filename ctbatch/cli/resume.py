"""``ctbatch resume``: go on with a run that ended early."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated

import typer

from ctbatch.cli.execution import execute
from ctbatch.cli.groups import spread
from ctbatch.cli.options import Connection, Output, Tuning, as_flags
from ctbatch.cli.targets import Target, connect
from ctbatch.cli.values import path_of
from ctbatch.models import Mode
from ctbatch.notices import Watcher
from ctbatch.pipeline.report.document import Report
from ctbatch.pipeline.stopping import Stop

__all__ = ["resume"]


@spread
def resume(
    connection: Connection,
    tuning: Tuning,
    output: Output,
    run_dir: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN_DIR]",
            help="A run directory; the newest unfinished one unless given.",
            parser=path_of("RUN_DIR"),
        ),
    ] = None,
) -> None:
    """Go on with a run that was interrupted, stopped or killed: what is done is skipped.

        ctbatch resume

    Gentler than before:

        ctbatch resume RUN_DIR --concurrency 4
    """
    from ctbatch.pipeline import continuing, runs  # noqa: PLC0415  # heavy: --help does not wait

    found = run_dir if run_dir is not None else continuing.unfinished()
    mode, given = continuing.mode_of(found), tuning.given()

    def begin(target: Target, watcher: Watcher, stop: Stop) -> Awaitable[Report]:
        return runs.resume(
            found,
            account=target.account,
            endpoint=target.endpoint,
            keys=target.keys,
            tuning=given,
            resume_flags=as_flags(connection),
            watcher=watcher,
            stop=stop,
        )

    target = connect(connection, os.environ, mode, plaintext=mode is Mode.PLAINTEXT)
    raise typer.Exit(execute(begin, target, output, os.environ))
