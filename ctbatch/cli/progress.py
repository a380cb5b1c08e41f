"""What a person sees of a run while it goes on, on standard error.

One thread writes everything: progress, notices and log lines. The event loop only puts messages
into a queue, so a terminal that is stopped or a pipe that nobody reads never holds up a delivery.

How it looks is a :class:`~ctbatch.cli.faces.Face`: a live block on a terminal (messages scroll
above it), a line every few seconds elsewhere, nothing but errors with ``--quiet``. A face that
fails (its terminal went
away) is not asked again; the run goes on.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from ctbatch.cli.faces import Face, Lines, Message, Quiet
from ctbatch.cli.wording import clean
from ctbatch.notices import Level, Live, Notice

__all__ = ["Display", "choose_face"]

_LEVELS = {Level.INFO: logging.INFO, Level.WARNING: logging.WARNING, Level.ERROR: logging.ERROR}


class Display:
    """The watcher of a run, and the sink of its log; a context manager that owns the thread.

    ``level`` is the lowest level of notices that is shown.
    """

    def __init__(self, face: Face, *, level: int = logging.WARNING) -> None:
        self._face = face
        self._level = level
        self._queue: queue.SimpleQueue[Message | Live | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ctbatch-display", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._queue.put(None)
        self._thread.join()

    def watch(self, live: Live) -> None:
        """Show this run from now on."""
        self._queue.put(live)

    def tell(self, notice: Notice) -> None:
        """Show a notice if its level is high enough."""
        level = _LEVELS[notice.level]
        if level >= self._level:
            self.say(f"{notice.level}: {clean(notice.text)}", level)

    def say(self, text: str, level: int | None = None) -> None:
        """Show a message, whatever its level."""
        self._queue.put(Message(text, level))

    def _run(self) -> None:
        try:
            self._show_all()
            self._face.close()
        except (OSError, ValueError):
            # The terminal is gone. Keep taking messages, so that nobody waits for us.
            while self._queue.get() is not None:
                pass

    def _show_all(self) -> None:
        due, live = _due(self._face), None
        while True:
            try:
                told = self._queue.get(timeout=_left(due))
            except queue.Empty:
                if live is not None:
                    self._face.show(live)
                due = _due(self._face)
                continue
            if told is None:
                return
            if isinstance(told, Message):
                self._face.say(told)
            else:
                live = told
                self._face.begin(live)


def _due(face: Face) -> float | None:
    return None if face.period_s is None else time.monotonic() + face.period_s


def _left(due: float | None) -> float | None:
    return None if due is None else max(0.0, due - time.monotonic())


def choose_face(*, quiet: bool, env: Mapping[str, str] | None = None) -> Face:
    """The face for this process's standard error."""
    env = os.environ if env is None else env
    if quiet:
        return Quiet(sys.stderr)
    if sys.stderr is not None and sys.stderr.isatty() and env.get("TERM") != "dumb":
        from ctbatch.cli.block import Block  # noqa: PLC0415  # rich is needed on terminals only

        return Block()
    return Lines(sys.stderr)
