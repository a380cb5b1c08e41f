"""The live block on a terminal: a line of what is done, a bar with the facts, and what the run was
bound by in the last seconds and where their time went; messages scroll above it.

The only importer of rich's live display, so that nothing else waits for it to load.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live as LiveBlock
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ctbatch.cli.faces import Message
from ctbatch.cli.pace import Pace, describe, share_done
from ctbatch.notices import Live

__all__ = ["Block"]

REFRESH_PERIOD_S = 0.125


class Block:
    """A block that is redrawn in place and vanishes at the end."""

    period_s: float | None = REFRESH_PERIOD_S

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._pace = Pace()
        # The display's own thread refreshes; nothing else may write, so nothing is redirected.
        self._block = LiveBlock(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def begin(self, live: Live) -> None:
        """Take note."""
        self._pace.sample(self._clock(), live)

    def show(self, live: Live) -> None:
        """Draw the run as it stands."""
        self._pace.sample(self._clock(), live)
        if not self._block.is_started:
            self._block.start()
        self._block.update(_drawn(live, self._pace), refresh=True)

    def say(self, message: Message) -> None:
        """Print above the block."""
        self._console.print(Text(message.text, style=_style(message.level)), soft_wrap=True)

    def close(self) -> None:
        """Wipe the block and show the cursor again."""
        self._block.stop()


def _drawn(live: Live, pace: Pace) -> Group:
    phase, done, *facts = describe(live, pace)
    share = share_done(live)
    bar = ProgressBar(total=None if share is None else 1.0, completed=share or 0.0, width=40)
    below = Table.grid(padding=(0, 1))
    below.add_row(bar, Text(" · ".join(facts)))
    bound, *times = pace.account(live) or [""]
    rows = (bound, ", ".join(times))
    account = [Text(row, style="dim", overflow="ellipsis", no_wrap=True) for row in rows if row]
    return Group(Text(f"{phase}: {done}", style="bold"), below, *account)


def _style(level: int | None) -> str:
    if level is None or level < logging.WARNING:
        return ""
    return "yellow" if level < logging.ERROR else "bold red"
