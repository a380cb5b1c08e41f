"""``ctbatch call``: any endpoint, sealed and opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ctbatch.api.client import Answer, Client
from ctbatch.api.queries import encode_query
from ctbatch.cli import streams
from ctbatch.cli.groups import spread
from ctbatch.cli.options import Connection
from ctbatch.cli.outputs import Stdout, on_thread
from ctbatch.cli.progress import Display
from ctbatch.cli.reading import Reader, Reading, read_input, value_of
from ctbatch.cli.values import path_of
from ctbatch.errors import ExitCode, SettingsError

__all__ = ["call"]


@spread
def call(
    *,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="GET or POST.")],
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="Such as /1/counts/events.json; what follows a ? is sent as it is."
        ),
    ],
    connection: Connection,
    reading: Reading,
    data: Annotated[
        Path | None,
        typer.Option(
            help="File with the body; - for standard input.",
            metavar="FILE",
            parser=path_of("--data"),
        ),
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Option(
            help="Percent-encoded for you; may be repeated. - as V reads it from standard input.",
            metavar="K=V",
        ),
    ] = None,
) -> None:
    """Send a request sealed and show the opened reply, byte for byte as the service wrote it.

        ctbatch call POST /1/counts/events.json --data query.json

    What follows a ? goes out as it is, such as a cursor, which is encoded already:

        ctbatch call GET "/1/events.json?cursor=$CURSOR"
    """
    path, _, verbatim = path.partition("?")
    whole = "&".join(part for part in (verbatim, _query(query or [], data)) if part)
    body = None if data is None else read_input(data)

    async def work(client: Client, display: Display) -> Answer:
        answer = await client.call(method, path, body=body, query=whole)
        sink = Stdout()
        await on_thread(sink, sink.put, answer.body.removesuffix(b"\n") + b"\n")
        return answer

    answer = Reader(connection, reading, os.environ).run(work)
    if not answer.ok:
        # Not its words: they are on standard output, and may quote what was sent.
        streams.err(f"ctbatch: the service did not accept it (HTTP {answer.status}): see its reply")
        raise typer.Exit(ExitCode.REFUSED)


def _query(given: list[str], data: Path | None) -> str:
    """The query string; one value may come from standard input, where the body does not."""
    pairs = []
    typed = str(data) == "-"
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise SettingsError("--query", "must be K=V")
        if value == "-":
            if typed:
                raise SettingsError("--query", "only one thing can come from standard input")
            typed = True
        pairs.append((name, value_of(f"--query {name}", value)))
    return encode_query(pairs)
