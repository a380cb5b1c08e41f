"""The log on standard error: above the progress block, through the display's queue.

Only ``ctbatch``'s own loggers follow ``--log-level``; libraries are heard from WARNING on, because
what they write in detail is theirs to decide and might show records.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ctbatch.cli.progress import Display

__all__ = ["logging_to"]

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _ToDisplay(logging.Handler):
    def __init__(self, display: Display) -> None:
        super().__init__()
        self._display = display
        self.setFormatter(logging.Formatter(_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record; never blocks."""
        try:
            self._display.say(self.format(record), record.levelno)
        except Exception:  # the documented way of a handler to fail
            self.handleError(record)


@contextmanager
def logging_to(display: Display, level: int) -> Iterator[None]:
    """While this is open, the log goes to the display."""
    root, ours = logging.getLogger(), logging.getLogger("ctbatch")
    handler = _ToDisplay(display)
    before = ours.level
    root.addHandler(handler)
    ours.setLevel(level)
    try:
        yield
    finally:
        ours.setLevel(before)
        root.removeHandler(handler)
