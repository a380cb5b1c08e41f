"""A download as a command does it: page after page to its place, with a note of how to go on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ctbatch import shell
from ctbatch.api.client import Client
from ctbatch.api.cursors import Download
from ctbatch.api.queries import DEFAULT_PAGE, Page
from ctbatch.cli import streams
from ctbatch.cli.notes import SUFFIX, Note
from ctbatch.cli.outputs import OutputFile, Sink, note_of, on_thread, open_sink
from ctbatch.cli.progress import Display
from ctbatch.cli.reading import Reader
from ctbatch.cli.wording import count
from ctbatch.errors import CtbatchError, CursorExpired, CursorRefused, SettingsError

__all__ = ["Saving", "Task", "download"]

_SAVING: Final = "Where it goes"

_LOST: Final = (CursorExpired, CursorRefused)
"""With these there is nothing to go on with."""

PROGRESS_S: Final = 5.0
"""Between two lines of progress: as often as a run writes one."""


def _option(help_text: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=_SAVING, metavar=metavar)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """Where the records go."""

    output: Annotated[
        Path | None,
        _option(
            "A new file, for its owner only; .gz and .zst are compressed. Default: standard"
            " output.",
            "--output",
            "-o",
            metavar="FILE",
        ),
    ] = None
    continue_file: Annotated[
        Path | None,
        _option(
            "Go on with this file, which an earlier download could not complete.",
            "--continue",
            metavar="FILE",
        ),
    ] = None
    batch_size: Annotated[
        int,
        _option("Records in a page, at most 5000; a multiple of 23 suits the service."),
    ] = DEFAULT_PAGE

    def place(self) -> Path | None:
        """The file, however it was named; ``None`` is standard output."""
        place = self.output
        if self.continue_file is not None:
            place = _file("--continue", self.continue_file, note=True)
            if self.output not in {None, place}:
                why = "names another file than --continue"
                raise SettingsError("--output", why, "leave it out")
            return place
        return None if place is None or str(place) == "-" else _file("--output", place)


def _file(option: str, path: Path, *, note: bool = False) -> Path:
    """The file of records that an option names, by itself or, for ``note``, by its note."""
    name = path.name
    if note:
        name = name.removesuffix(SUFFIX)
    elif name.endswith(SUFFIX):
        why = f"{path} would be taken for the note of how to go on with another file"
        raise SettingsError(option, why, "choose a name that ends otherwise")
    if name in {"", "-"}:
        raise SettingsError(option, "names no file", "name the one that records are to be in")
    return path.with_name(name)


@dataclass(frozen=True, slots=True)
class Task:
    """What is downloaded. ``body`` is the query, ``None`` where only a file to go on with is given;
    ``begin`` makes the download, from a cursor if there is one.
    """

    command: str
    path: str
    body: bytes | None
    begin: Callable[[Client, str | None], Download]


def download(task: Task, reader: Reader, saving: Saving) -> None:
    """See it through. Where it ends early and can go on, the command for it is said on standard
    error.
    """
    place, note = saving.place(), _note(task, reader)
    goes_on = saving.continue_file is not None
    if goes_on:
        assert place is not None
        note = _going_on(note_of(place), note, asked=task.body is not None)
    sink = open_sink(place, note, goes_on=goes_on)
    try:
        reader.run(_Transfer(task, sink, note if goes_on else None).run)
    except CtbatchError as error:
        if isinstance(sink, OutputFile) and not isinstance(error, _LOST):
            _say_how_to_go_on(task, sink, reader)
        raise
    finally:
        sink.close()


class _Transfer:
    """One download on its way to a sink."""

    def __init__(self, task: Task, sink: Sink, goes_on: Note | None) -> None:
        self._task = task
        self._sink = sink
        self._cursor = None if goes_on is None else goes_on.cursor
        self._records = 0 if goes_on is None else goes_on.records
        self._began = self._records
        self._pages = 0

    async def run(self, client: Client, display: Display) -> None:
        """Take page after page. What blocks does so on a thread."""
        found = self._task.begin(client, self._cursor)
        started = told = time.monotonic()
        cursor = await found.open()
        await on_thread(self._sink, self._sink.mark, cursor, self._records)
        async with aclosing(found.pages()) as pages:
            async for page in pages:
                await on_thread(self._sink, self._take, page)
                if self._sink.gone:
                    return
                if time.monotonic() - told >= PROGRESS_S:
                    told = time.monotonic()
                    display.say(self._progress(told - started))
        await on_thread(self._sink, self._sink.finish)
        display.say(self._progress(time.monotonic() - started))

    def _take(self, page: Page) -> None:
        self._sink.put(b"".join(record + b"\n" for record in page.records))
        self._records += len(page.records)
        self._pages += 1
        if page.next_cursor is not None:
            self._sink.mark(page.next_cursor, self._records)

    def _progress(self, elapsed_s: float) -> str:
        rate = (self._records - self._began) / max(elapsed_s, 1.0)
        noun = "record" if self._records == 1 else "records"
        pages = "1 page" if self._pages == 1 else f"{count(self._pages)} pages"
        return f"ctbatch: {count(self._records)} {noun} in {pages}, {count(rate)}/s"


def _note(task: Task, reader: Reader) -> Note:
    return Note(
        path=task.path,
        account_id=reader.account.id,
        host=reader.endpoint.host,
        # Its digest only: a query may name people.
        query=hashlib.sha256(task.body or b"").hexdigest(),
        cursor="",
    )


def _going_on(found: Note, now: Note, *, asked: bool) -> Note:
    """The note that was found, if it is of this very download."""
    for name, what in (("path", "endpoint"), ("account_id", "account"), ("host", "host")):
        if getattr(found, name) != getattr(now, name):
            why = f"was begun with another {what} ({getattr(found, name)})"
            raise SettingsError("--continue", why, "use the same, or start again")
    if asked and found.query != now.query:
        raise SettingsError(
            "--continue", "was begun with another query", "leave the query out, or start again"
        )
    return found


def _say_how_to_go_on(task: Task, sink: OutputFile, reader: Reader) -> None:
    if sink.note is None or not sink.note.cursor:
        return
    words = ["ctbatch", task.command, "--continue", str(sink.path), *reader.flags]
    streams.err(f"ctbatch: go on with\n{shell.command(words)}")
