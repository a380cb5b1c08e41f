"""``ctbatch profiles``: all users that a query finds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ctbatch.api.client import Client
from ctbatch.api.cursors import Download
from ctbatch.api.queries import PROFILES_PATH, event_query
from ctbatch.cli.downloading import Saving, Task, download
from ctbatch.cli.groups import spread
from ctbatch.cli.options import Connection
from ctbatch.cli.reading import Reader, Reading, read_input
from ctbatch.cli.values import path_of
from ctbatch.errors import SettingsError

__all__ = ["profiles"]


@spread
def profiles(
    saving: Saving,
    connection: Connection,
    reading: Reading,
    query: Annotated[
        Path | None,
        typer.Option(
            help="JSON file with the query; - for standard input.",
            show_default=False,
            metavar="PATH",
            parser=path_of("--query"),
        ),
    ] = None,
) -> None:
    """Download the profiles of all users that a query finds, as NDJSON.

        echo '{"event_name": "App Launched", "from": 20240101, "to": 20240131}' > query.json

        ctbatch profiles --query query.json -o users.ndjson.zst

    Go on after a stop:

        ctbatch profiles --continue users.ndjson.zst
    """
    if query is None and saving.continue_file is None:
        raise SettingsError("--query", "is missing", "name a JSON file with the query")
    body = None if query is None else event_query(None, None, None, read_input(query))

    def begin(client: Client, cursor: str | None) -> Download:
        return client.profiles(body, batch_size=saving.batch_size, cursor=cursor)

    reader = Reader(connection, reading, os.environ)
    download(Task("profiles", PROFILES_PATH, body, begin), reader, saving)
