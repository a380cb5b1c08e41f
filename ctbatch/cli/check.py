"""``ctbatch check``: can this account, these keys and this endpoint talk?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import orjson
import typer

from ctbatch.api.findings import Finding, Status, exit_code_of
from ctbatch.api.probe import Tell
from ctbatch.api.probe import check as probe
from ctbatch.cli import loop, streams
from ctbatch.cli.groups import spread
from ctbatch.cli.options import Connection
from ctbatch.cli.origins import settle
from ctbatch.cli.wording import clean
from ctbatch.errors import ExitCode
from ctbatch.paths import legible
from ctbatch.settings import Delivery

__all__ = ["check"]


@spread
def check(
    connection: Connection,
    timeout: Annotated[float, typer.Option(help="Seconds for each of the three requests.")] = 30.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="The findings as JSON on standard output.")
    ] = False,
) -> None:
    """Find out, step by step, whether uploads can work; change nothing.

        ctbatch check

    Settings, keys, permissions, name, connection, certificate, clock, credentials, encryption, and
    a sealed round trip: a query that only reads. What is wrong is told with its remedy.

    Exit codes: 0 all is well, 2 mend something here, 5 something with the account or the service.
    """
    timeout_s = Delivery(timeout_s=timeout).timeout_s  # knows the bounds of --timeout
    told: list[Finding] = []

    def tell(finding: Finding) -> None:
        told.append(finding)
        if not as_json:  # at once: a step may take seconds, and nothing else is on the loop
            streams.out(_lines(finding))

    code = _check(connection, timeout_s, tell, told)
    if as_json:
        streams.out_bytes(_document(told, code))
    else:
        streams.out(_conclusion(told))
    raise typer.Exit(code)


def _check(
    connection: Connection, timeout_s: float, tell: Tell, told: Sequence[Finding]
) -> ExitCode:
    settled = settle(connection, os.environ)
    for finding in settled.findings:
        tell(finding)
    loop.run(
        probe(
            account=settled.account,
            endpoint=settled.endpoint,
            keys=settled.keys,
            tell=tell,
            timeout_s=timeout_s,
        )
    )
    return exit_code_of(told)


_MARKS = {Status.OK: "ok", Status.LOCAL: "!!", Status.REMOTE: "!!", Status.SKIPPED: "--"}


def _lines(finding: Finding) -> str:
    """One line, and one more for each remedy."""
    head = f"{_MARKS[finding.status]}  {finding.step:<12} {clean(finding.text)}"
    return "\n".join([head, *(f"{'':17}-> {clean(remedy)}" for remedy in finding.remedies)])


def _conclusion(told: Sequence[Finding]) -> str:
    here = sum(finding.status is Status.LOCAL for finding in told)
    there = sum(finding.status is Status.REMOTE for finding in told)
    if here:
        return f"\n{_findings(here)} to be mended on this machine first; then check again."
    if there:
        return (
            f"\nThe way from this machine is clear; {_findings(there)} to be mended with the "
            "account, its keys or the service."
        )
    return "\nAll is well: account, keys and endpoint can talk."


def _findings(number: int) -> str:
    return "one thing is" if number == 1 else f"{number} things are"


def _document(told: Sequence[Finding], code: ExitCode) -> bytes:
    """``schema`` 1: keys may be added, never renamed."""
    document = {
        "schema": 1,
        "ok": code is ExitCode.OK,
        "exit_code": int(code),
        "findings": [
            {
                name: legible(value) if isinstance(value, str) else value
                for name, value in asdict(finding).items()
            }
            for finding in told
        ],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
