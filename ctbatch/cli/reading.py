"""What the commands that read share: their options, and asking with a person watching."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, TypeVar

import typer

from ctbatch.api.asking import Patience
from ctbatch.api.client import Client
from ctbatch.cli import loop
from ctbatch.cli.execution import header
from ctbatch.cli.logs import logging_to
from ctbatch.cli.options import Connection, Environment, Output, as_flags
from ctbatch.cli.progress import Display, choose_face
from ctbatch.cli.targets import Target, connect
from ctbatch.errors import InputError, Interrupted, SettingsError
from ctbatch.models import Mode
from ctbatch.settings import Account, Endpoint

__all__ = ["Reader", "Reading", "read_input", "value_of"]

MAX_INPUT_BYTES = 64 << 20
"""More than any body or query, and less than the memory of a small machine."""

_T = TypeVar("_T")

_READING: Final = "How it is read"


def _option(help_text: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=_READING, metavar=metavar)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How it is asked and what is shown meanwhile."""

    plaintext: Annotated[bool, _option("Without end-to-end encryption.", "--plaintext")] = False
    timeout: Annotated[
        float, _option("Seconds for one attempt, connect to last byte.", "--timeout")
    ] = 60.0
    give_up_after: Annotated[
        float, _option("Stop after so many seconds without a usable answer.", "--give-up-after")
    ] = 900.0
    wait: Annotated[
        float, _option("Seconds to wait while the service works on a query.", "--wait")
    ] = 1800.0
    quiet: Annotated[bool, _option("No progress and no warnings; errors only.", "--quiet")] = False
    log_level: Annotated[
        str | None,
        _option(
            "debug, info, warning (default) or error. Variable: CTBATCH_LOG_LEVEL.",
            "--log-level",
            metavar="LEVEL",
        ),
    ] = None


class Reader:
    """Settings that are complete, ready to ask. Raises :class:`SettingsError` if they are not."""

    def __init__(self, connection: Connection, reading: Reading, env: Environment) -> None:
        mode = Mode.PLAINTEXT if reading.plaintext else Mode.SEALED
        target = connect(connection, env, mode, plaintext=reading.plaintext)
        self.account, self.endpoint = _needed(target, plaintext=reading.plaintext)
        self._target = target
        self._reading = reading
        self._env = env
        self._level = Output(quiet=reading.quiet, log_level=reading.log_level).level(env)
        self.flags = as_flags(connection, reading)
        """What was given, to be repeated in a command that goes on."""
        self._patience = Patience(give_up_after_s=reading.give_up_after, in_progress_s=reading.wait)
        if not 0.1 <= reading.timeout <= 3600:
            raise SettingsError("--timeout", f"must be from 0.1 to 3600, not {reading.timeout:g}")
        self.client = Client(
            account=self.account,
            endpoint=self.endpoint,
            keys=target.keys,
            timeout_s=reading.timeout,
            patience=self._patience,
        )

    def run(self, work: Callable[[Client, Display], Awaitable[_T]]) -> _T:
        """Run ``work`` with an open client. A signal ends it: :class:`Interrupted`."""
        face = choose_face(quiet=self._reading.quiet, env=self._env)
        with Display(face, level=self._level) as display, logging_to(display, self._level):
            display.say(header(self._target))
            return loop.run(self._interruptible(work, display))

    async def _interruptible(
        self, work: Callable[[Client, Display], Awaitable[_T]], display: Display
    ) -> _T:
        task = asyncio.current_task()
        assert task is not None
        signals: list[int] = []

        def stop(number: int) -> None:
            signals.append(number)
            task.cancel()

        with loop.signals_to(stop):
            try:
                async with self.client as client:
                    return await work(client, display)
            except asyncio.CancelledError:
                if not signals:
                    raise
        raise Interrupted(signals[0])


def _needed(target: Target, *, plaintext: bool) -> tuple[Account, Endpoint]:
    if target.account is None:
        remedy = "set CLEVERTAP_ACCOUNT_ID and CLEVERTAP_PASSCODE, or pass --account-id"
        raise SettingsError("--account-id", "is missing", remedy)
    if target.keys is None and not plaintext:
        remedy = "make yours with `ctbatch keys generate --out DIR`; fetch the vendor's from the"
        raise SettingsError("--server-key and --client-key", "are missing", f"{remedy} dashboard")
    assert target.endpoint is not None, "there is a default region"
    return target.account, target.endpoint


def value_of(option: str, given: str) -> str:
    """A value, from the first line of standard input where it is ``-``: there no process list
    shows it. May block.
    """
    if given != "-":
        return given
    try:
        line = _stdin(option).readline().decode()
    except UnicodeDecodeError:
        raise SettingsError(option, "on standard input is not text (UTF-8)") from None
    value = line.removesuffix("\n").removesuffix("\r")
    if not value:
        raise SettingsError(option, "is missing on standard input")
    return value


def read_input(path: Path) -> bytes:
    """A whole file, or standard input for ``-``, of at most 64 MiB. May block; raises
    :class:`InputError`.
    """
    try:
        if str(path) == "-":
            read = _stdin(str(path)).read(MAX_INPUT_BYTES + 1)
        else:
            with path.open("rb") as file:
                read = file.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})") from None
    if len(read) > MAX_INPUT_BYTES:
        raise InputError(str(path), f"is larger than {MAX_INPUT_BYTES:,} bytes")
    return read


def _stdin(what: str) -> BinaryIO:
    if sys.stdin is None:
        raise InputError(what, "was to come from standard input, which is closed")
    return sys.stdin.buffer
