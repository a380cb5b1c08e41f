"""``ctbatch report``: what a run came to, or how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctbatch.cli import streams
from ctbatch.cli.summary import summary
from ctbatch.cli.values import path_of

__all__ = ["report"]


def report(
    run_dir: Annotated[
        Path,
        typer.Argument(metavar="RUN_DIR", help="A run directory.", parser=path_of("RUN_DIR")),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="The report as JSON on standard output.")
    ] = False,
) -> None:
    """Show what became of every line of a run, finished or not.

        ctbatch report ctbatch-runs/20260131T120000Z-users

    How many lines were refused:

        ctbatch report RUN_DIR --json | jq .lines.unprocessed
    """
    from ctbatch.pipeline import runs  # noqa: PLC0415  # heavy: --help does not wait for it

    found = runs.report(run_dir)
    if as_json:
        streams.out_bytes(found.to_json())
    else:
        streams.out(summary(found))
