"""``ctbatch profile``: one user, or many by a file of identities."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import orjson
import typer

from ctbatch.api.client import Client
from ctbatch.api.lookups import Found
from ctbatch.api.queries import LOOKUP_KINDS, Lookup
from ctbatch.cli import streams
from ctbatch.cli.groups import spread
from ctbatch.cli.options import Connection
from ctbatch.cli.outputs import Sink, on_thread, open_sink
from ctbatch.cli.progress import Display
from ctbatch.cli.reading import Reader, Reading, read_input, value_of
from ctbatch.cli.values import path_of
from ctbatch.cli.wording import count
from ctbatch.errors import ExitCode, InputError, SettingsError

__all__ = ["profile"]

Work = Callable[[Client, Display], Awaitable[ExitCode]]

_PARAMETERS = {"email": "email", "identity": "identity", "objectId": "object_id"}
_WORDS = {"email": "e-mail address", "identity": "identity", "objectId": "object id"}


@spread
def profile(
    *,
    connection: Connection,
    reading: Reading,
    email: Annotated[
        str | None, typer.Option(help="The user's e-mail address; - reads it from standard input.")
    ] = None,
    identity: Annotated[
        str | None, typer.Option(help="The user's identity; - reads it from standard input.")
    ] = None,
    object_id: Annotated[
        str | None, typer.Option(help="CleverTap's id; - reads it from standard input.")
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option(
            help='Many users: an identity a line, or JSON such as {"email": "…"}; - for'
            " standard input.",
            metavar="PATH",
            parser=path_of("--from-file"),
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A new file, for its owner only; .gz and .zst are compressed.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Show a user's profile as JSON, as the service wrote it; exit code 3 if there is none.

    Other users of this machine see command lines, so let a person's data come another way:

        echo 'alice@example.com' | ctbatch profile --email -

    Many users, in the order of the file, one a line: `{"identity": …, "record": …}`; the record is
    null where there is none.

        ctbatch profile --from-file identities.txt -o users.ndjson
    """
    named = {"email": email, "identity": identity, "objectId": object_id}
    given = [(kind, value) for kind, value in named.items() if value is not None]
    if len(given) + (from_file is not None) != 1:
        raise SettingsError(
            "--email, --identity, --object-id or --from-file", "give exactly one of them"
        )
    reader = Reader(connection, reading, os.environ)
    if from_file is not None:
        lookups = list(_lookups(str(from_file), read_input(from_file)))
        raise typer.Exit(_save(output, lambda sink: reader.run(_many(lookups, sink))))
    kind, value = given[0]
    lookup = Lookup(kind, value_of(f"--{_PARAMETERS[kind].replace('_', '-')}", value))
    raise typer.Exit(_save(output, lambda sink: reader.run(_one(lookup, sink))))


def _save(output: Path | None, run: Callable[[Sink], ExitCode]) -> ExitCode:
    sink = open_sink(output)
    try:
        return run(sink)
    finally:
        sink.close()


def _one(lookup: Lookup, sink: Sink) -> Work:
    async def work(client: Client, display: Display) -> ExitCode:
        record = await client.profile(**{_PARAMETERS[lookup.kind]: lookup.value})
        if record is None:
            # Not who: this may end in a log.
            streams.err(f"ctbatch: there is no profile with this {_WORDS[lookup.kind]}")
            return ExitCode.SOME_REFUSED
        await on_thread(sink, sink.put, record + b"\n")
        await on_thread(sink, sink.finish)
        return ExitCode.OK

    return work


def _many(lookups: list[Lookup], sink: Sink) -> Work:
    async def work(client: Client, display: Display) -> ExitCode:
        found = missing = refused = 0
        async with aclosing(client.look_up(lookups)) as results:
            async for result in results:
                await on_thread(sink, sink.put, _row(result))
                found += result.record is not None
                refused += result.refusal is not None
                missing += result.record is None and result.refusal is None
                if sink.gone:
                    break
        await on_thread(sink, sink.finish)
        said = f"ctbatch: {count(found)} found, {count(missing)} not found"
        if refused:
            said += f", {count(refused)} refused by the service"
        bad = missing or refused
        display.say(said, logging.ERROR if bad else None)
        return ExitCode.SOME_REFUSED if bad else ExitCode.OK

    return work


def _row(found: Found) -> bytes:
    """One line: who was looked up, and the record as it came."""
    key = orjson.dumps({found.lookup.kind: found.lookup.value}).removesuffix(b"}")
    error = b""
    if found.refusal is not None:
        error = b',"error":' + orjson.dumps(found.refusal.what)
    return key + b',"record":' + (found.record or b"null") + error + b"}\n"


def _lookups(path: str, text: bytes) -> Iterator[Lookup]:
    """The look-ups of a file, blank lines left out. Raises :class:`InputError`."""
    for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield _lookup(line.removesuffix(b"\r"))
        except (ValueError, SettingsError):
            why = f"line {number} names nobody"
            remedy = 'write an identity, or JSON such as {"email": "…"}'
            raise InputError(path, why, remedy) from None


def _lookup(line: bytes) -> Lookup:
    if not line.lstrip().startswith(b"{"):
        return Lookup("identity", line.decode())
    named = orjson.loads(line)
    given = [(kind, named[kind]) for kind in LOOKUP_KINDS if kind in named]
    if len(given) != 1:
        raise ValueError("one way to name a user")
    kind, value = given[0]
    if type(value) not in {str, int}:  # isinstance would take false for a number
        raise ValueError("a name or a number")
    return Lookup(kind, str(value))
