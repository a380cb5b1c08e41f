"""The command line as a whole: finding the command, and ending well.

Invariants:

1. Whatever happens, the user reads one clear message, never a traceback, and the exit code is the
   documented one. A bug shows its traceback only at ``CTBATCH_LOG_LEVEL=DEBUG``, without local
   variables and without the texts of errors: they hold records.
2. Only the command that was asked for is imported.

What a command does lives in a file of its own.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from ctbatch import __version__
from ctbatch.cli import streams
from ctbatch.errors import CtbatchError, ExitCode

__all__ = ["build", "main"]

_HELP = """Upload user profiles to CleverTap in bulk, end-to-end encrypted, and account for
every line.

Try it now, without an account; nothing leaves this machine:

    ctbatch run users.ndjson --emulator

Upload for real:

    ctbatch keys generate --out ctbatch-keys

    export CLEVERTAP_ACCOUNT_ID=... CLEVERTAP_PASSCODE=...

    export CTBATCH_SERVER_KEY=server.json CTBATCH_CLIENT_KEY=ctbatch-keys/client-private.json

    ctbatch run users.ndjson --region in1

See what became of every line, and go on after a stop:

    ctbatch report RUN_DIR

    ctbatch resume RUN_DIR
"""

_EPILOG = (
    "Exit codes: 0 all accepted · 2 mend something here first · 3 some lines not accepted · "
    "4 stopped, can be resumed · 5 refused by the service · 130, 143 interrupted, can be resumed"
)


@dataclass(frozen=True, slots=True)
class _Command:
    """A module of this package with a function, or a group of commands named ``app``."""

    module: str
    group: bool = False


_COMMANDS = {
    "run": _Command("ctbatch.cli.run"),
    "resume": _Command("ctbatch.cli.resume"),
    "report": _Command("ctbatch.cli.report"),
    "events": _Command("ctbatch.cli.events"),
    "profile": _Command("ctbatch.cli.profile"),
    "profiles": _Command("ctbatch.cli.profiles"),
    "call": _Command("ctbatch.cli.call"),
    "keys": _Command("ctbatch.cli.keys", group=True),
    "check": _Command("ctbatch.cli.check"),
    "emulator": _Command("ctbatch.cli.emulator"),
    "bench": _Command("ctbatch.cli.bench"),
    "tune": _Command("ctbatch.cli.tune"),
}


def build(args: Sequence[str]) -> typer.Typer:
    """The application with the command that ``args`` asks for, or with all of them."""
    app = typer.Typer(
        name="ctbatch",
        help=_HELP,
        epilog=_EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    app.callback()(_callback)
    asked = next((arg for arg in args if arg in _COMMANDS), None)
    for name in _COMMANDS if asked is None else [asked]:
        command = _COMMANDS[name]
        module = importlib.import_module(command.module)
        if command.group:
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    streams.prepare()
    return streams.finish(_run(sys.argv[1:] if argv is None else list(argv)))


def _callback(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True)
    ] = False,
) -> None:
    if version:
        streams.out(f"ctbatch {__version__}")
        raise typer.Exit


def _run(args: list[str]) -> int:
    try:
        command = get_command(build(args))
        _show_plainly(command)
        command.main(args=args, prog_name="ctbatch")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.SIGINT
    except BaseException as error:
        return _failed(error)
    return ExitCode.OK


def _show_plainly(command: Any) -> None:
    """Have the help show flags without a value: newer typer has ``<bool>`` after each of them."""
    for option in command.get_params(typer.Context(command)):
        if getattr(option, "is_flag", False):
            option.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        _show_plainly(inner)


def _failed(error: BaseException) -> int:
    """Say what went wrong; returns the exit code."""
    leaves = list(_leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return ExitCode.SIGINT
    ours = [leaf for leaf in leaves if isinstance(leaf, CtbatchError)]
    bugs = [leaf for leaf in leaves if not isinstance(leaf, CtbatchError)]
    if not bugs:
        streams.err(f"ctbatch: {ours[0]}")
        return ours[0].exit_code
    if (wanting := _wanting(bugs[0])) is not None:
        streams.err(wanting)
        return ExitCode.STOPPED
    streams.err(_bug(bugs[0]))
    if _debugging():
        streams.err("".join(_trace(error)))
    return ExitCode.BUG


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group of groups, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _wanting(error: BaseException) -> str | None:
    """The message for what this machine has too little of, if it is that."""
    if isinstance(error, MemoryError):
        why = "no more memory"
    elif isinstance(error, OSError) and error.errno in _TOO_LITTLE:
        why = os.strerror(error.errno).lower()
    else:
        return None
    return (
        f"ctbatch: the system has too little for it ({why}): see `ulimit -a`. What was recorded "
        "stands; `ctbatch resume` goes on with a run that had begun."
    )


_TOO_LITTLE = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM}
"""Too many open files, here or in all; processes or threads; memory."""


def _bug(error: BaseException) -> str:
    # Not its text: that might quote a record.
    where = ""
    frames = traceback.extract_tb(error.__traceback__)
    if frames:
        where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}"
    return (
        f"ctbatch: this is a bug in ctbatch {__version__}: {type(error).__name__}{where}. "
        "What was recorded stands; `ctbatch report RUN_DIR` shows it. Please report it with what "
        "CTBATCH_LOG_LEVEL=DEBUG adds to this message (no record is in it)."
    )


def _trace(error: BaseException) -> Iterator[str]:
    """Where it happened and what came before it: types and lines of code, no text of an error."""
    for leaf in _leaves(error):
        if (before := leaf.__cause__ or leaf.__context__) is not None:
            yield from _trace(before)
            yield "and then:\n"
        yield "Traceback (most recent call last):\n"
        yield from traceback.format_tb(leaf.__traceback__)
        yield f"{type(leaf).__name__}\n"


def _debugging() -> bool:
    level = os.environ.get("CTBATCH_LOG_LEVEL", "").strip().upper()
    return level == "DEBUG" or logging.getLogger("ctbatch").level == logging.DEBUG
