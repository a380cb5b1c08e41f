"""``ctbatch run``: upload files, and account for every line."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from dataclasses import replace
from typing import Annotated

import typer

from ctbatch.cli.execution import execute
from ctbatch.cli.groups import spread
from ctbatch.cli.handed import check_descriptors
from ctbatch.cli.options import Connection, Kind, Output, Tuning
from ctbatch.cli.targets import Target, run_settings
from ctbatch.notices import Watcher
from ctbatch.pipeline.report.document import Report
from ctbatch.pipeline.stopping import Stop

__all__ = ["run"]


@spread
def run(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="NDJSON files, globs, or - for standard input; .gz and .zst are read as they are.",
            show_default=False,
        ),
    ],
    connection: Connection,
    kind: Kind,
    tuning: Tuning,
    output: Output,
) -> None:
    """Upload every line of the inputs, end-to-end encrypted, and account for each.

    Try it without an account:

        ctbatch run users.ndjson --emulator

    Check a file before anything is sent:

        ctbatch run users.ndjson --dry-run

    Upload an export, compressed, at most 1 % refused:

        ctbatch run 'export/*.ndjson.gz' --region in1 --max-refused 1%

    From another program:

        zcat users.gz | ctbatch run -
    """
    check_descriptors(inputs)
    settings = run_settings(inputs, connection, tuning, kind, os.environ)
    from ctbatch.pipeline import runs  # noqa: PLC0415  # heavy: --help and bad options do not wait

    def begin(target: Target, watcher: Watcher, stop: Stop) -> Awaitable[Report]:
        told = replace(settings, account=target.account, endpoint=target.endpoint, keys=target.keys)
        return runs.run(told, watcher=watcher, stop=stop)

    target = Target(kind.mode, settings.account, settings.endpoint, settings.keys)
    raise typer.Exit(execute(begin, target, output, os.environ))
