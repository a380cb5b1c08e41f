"""``ctbatch report``: what a run came to, or how far it is."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ctbatch.cli import streams
from ctbatch.cli.summary import summary

__all__ = ["report"]


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run directory.")],
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

    found = replace(runs.report(run_dir), run_dir=str(run_dir))
    if as_json:
        streams.out_bytes(found.to_json())
    else:
        streams.out(summary(found, _flags(run_dir)))


def _flags(run_dir: Path) -> list[str]:
    """The flags that say where the run went, of the process that worked on it last."""
    from ctbatch.pipeline.ledger.accounts import Accounts  # noqa: PLC0415  # as above

    accounts = Accounts.open(run_dir)
    try:
        resume = accounts.get("resume")
    finally:
        accounts.close()
    # The ledger has them at the end of the command that resumes: ctbatch resume RUN_DIR …
    return shlex.split(str(resume or ""))[3:]
