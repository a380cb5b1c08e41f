"""One run or resume with everything a person sees of it: the first line, progress, the result.

The run itself is a function that is handed in; where it goes is a :class:`Target`, completed here
when the bundled emulator takes the service's place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ctbatch import __version__
from ctbatch.cli import loop, streams
from ctbatch.cli.logs import logging_to
from ctbatch.cli.options import Environment, Output
from ctbatch.cli.progress import Display, choose_face
from ctbatch.cli.summary import summary
from ctbatch.cli.targets import Target
from ctbatch.cli.wording import clean
from ctbatch.errors import OutputBroke
from ctbatch.models import Mode
from ctbatch.notices import Watcher
from ctbatch.pipeline.report.document import Report
from ctbatch.pipeline.stopping import Stop
from ctbatch.settings import Account, Endpoint, KeyFiles

if TYPE_CHECKING:
    from ctbatch.emulator.state import Config

__all__ = ["Begin", "execute", "header", "reached", "render"]

Begin = Callable[[Target, Watcher, Stop], Awaitable[Report]]
"""Begins or resumes a run and sees it through."""

_KINDS = {
    Mode.SEALED: "end-to-end encrypted",
    Mode.PLAINTEXT: "PLAINTEXT, no end-to-end encryption",
    Mode.EMULATOR: "EMULATOR, nothing leaves this machine",
    Mode.DRY_RUN: "dry run, nothing is sent",
    Mode.SERVER_DRY_RUN: "server dry run, nothing is stored",
}


def execute(begin: Begin, target: Target, output: Output, env: Environment) -> int:
    """Run, show, and return the exit code."""
    level = output.level(env)
    with (
        Display(choose_face(quiet=output.quiet, env=env), level=level) as display,
        logging_to(display, level),
    ):
        report = loop.run(_run(begin, target, display))
    try:
        render(report, as_json=output.json)
    except OutputBroke as error:
        streams.err(f"ctbatch: {error}")
        return report.exit_code or error.exit_code
    return report.exit_code


def render(report: Report, *, as_json: bool) -> None:
    """Show a report: the result on standard output; why it ended early and how to go on, on
    standard error.
    """
    try:
        if as_json:
            streams.out_bytes(report.to_json())
        else:
            streams.out(summary(report))
    finally:
        if report.problem:
            streams.err(f"ctbatch: {report.problem}")
        if report.resume:
            streams.err(f"ctbatch: go on with\n{report.resume}")


def header(target: Target) -> str:
    """The first line: where the records are about to go."""
    facts = [_KINDS[target.mode]]
    if target.account is not None and target.endpoint is not None:
        facts.append(f"account {clean(target.account.id)} at {clean(target.endpoint.host)}")
    return f"ctbatch {__version__}: {', '.join(facts)}"


@asynccontextmanager
async def reached(target: Target, config: Config | None = None) -> AsyncIterator[Target]:
    """The target, completed by the bundled emulator (as ``config`` says) where that takes the
    service's place.
    """
    if target.mode is not Mode.EMULATOR:
        yield target
        return
    from ctbatch.emulator.server import EmulatorProcess  # noqa: PLC0415  # only if asked for

    async with EmulatorProcess(config) as emulator:
        yield replace(
            target,
            account=Account(id=emulator.account_id, passcode=emulator.passcode),
            endpoint=Endpoint(base_url=emulator.base_url),
            keys=KeyFiles(server=emulator.server_key, client=emulator.client_key),
        )


async def _run(begin: Begin, target: Target, display: Display) -> Report:
    stop = Stop()
    with loop.signals_to(stop.request), loop.hangup_to(stop.read_keys, stop.request):
        async with reached(target) as complete:
            display.say(header(complete))
            return await begin(complete, display, stop)
