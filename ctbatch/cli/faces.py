"""The faces of progress that need no terminal, and what a face is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TextIO

from ctbatch.cli.pace import Pace, describe
from ctbatch.notices import Live

__all__ = ["Face", "Lines", "Message", "Quiet"]

LINE_PERIOD_S = 5.0
"""Between two lines of progress: enough for a log file, few enough to read."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message to a person; ``level`` as in :mod:`logging`, ``None`` is always shown."""

    text: str
    level: int | None = None


class Face(Protocol):
    """How progress looks. All calls come from one thread."""

    period_s: float | None
    """Seconds between two calls of :meth:`show`; ``None``: never."""

    def begin(self, live: Live) -> None:
        """A run begins, as it stands."""
        ...

    def show(self, live: Live) -> None:
        """Show the run as it stands."""
        ...

    def say(self, message: Message) -> None:
        """Show a message."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class Quiet:
    """Errors only."""

    period_s: float | None = None

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def begin(self, live: Live) -> None:
        """Show nothing."""

    def show(self, live: Live) -> None:
        """Show nothing."""

    def say(self, message: Message) -> None:
        """Show an error."""
        if message.level is not None and message.level >= logging.ERROR:
            print(message.text, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing to close."""


class Lines:
    """A line every few seconds."""

    period_s: float | None = LINE_PERIOD_S

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._pace = Pace()

    def begin(self, live: Live) -> None:
        """Take note: the first line has a rate, too."""
        self._pace.sample(self._clock(), live)

    def show(self, live: Live) -> None:
        """Write one line."""
        self._pace.sample(self._clock(), live)
        facts = describe(live, self._pace) + self._pace.account(live)[:1]
        print(f"ctbatch: {', '.join(facts)}", file=self._stream, flush=True)

    def say(self, message: Message) -> None:
        """Write the message."""
        print(message.text, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing to close."""
