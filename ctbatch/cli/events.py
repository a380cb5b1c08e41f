"""``ctbatch events``: the events of a name between two dates."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ctbatch.api.client import Client
from ctbatch.api.cursors import Download
from ctbatch.api.queries import EVENTS_PATH, event_query
from ctbatch.cli.downloading import Saving, Task, download
from ctbatch.cli.groups import spread
from ctbatch.cli.options import Connection
from ctbatch.cli.reading import Reader, Reading, read_input
from ctbatch.cli.values import path_of

__all__ = ["events"]


@spread
def events(
    *,
    saving: Saving,
    connection: Connection,
    reading: Reading,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="The event's name, or in --query.", show_default=False
        ),
    ] = None,
    from_date: Annotated[
        int | None, typer.Option("--from", help="First day.", metavar="YYYYMMDD")
    ] = None,
    to_date: Annotated[
        int | None, typer.Option("--to", help="Last day.", metavar="YYYYMMDD")
    ] = None,
    query: Annotated[
        Path | None,
        typer.Option(
            help="JSON file with the whole query, or its filters; - for standard input.",
            metavar="PATH",
            parser=path_of("--query"),
        ),
    ] = None,
) -> None:
    """Download events as NDJSON, one a line, each as the service wrote it.

        ctbatch events 'App Launched' --from 20240101 --to 20240131 -o launched.ndjson.gz

    Go on after a stop:

        ctbatch events --continue launched.ndjson.gz

    With filters (event_properties, common_profile_properties, …) from a file:

        ctbatch events Charged --from 20240101 --to 20240131 --query filters.json
    """
    given = None if query is None else read_input(query)
    body = None
    if saving.continue_file is None or (name, from_date, to_date, given) != (None,) * 4:
        body = event_query(name, from_date, to_date, given)

    def begin(client: Client, cursor: str | None) -> Download:
        return client.events(query=body, batch_size=saving.batch_size, cursor=cursor)

    reader = Reader(connection, reading, os.environ)
    download(Task("events", EVENTS_PATH, body, begin), reader, saving)
