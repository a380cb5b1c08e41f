"""What a thread used of its processor, and how long it waited for one.

Looking at these clocks costs up to a tenth of a millisecond: do so a few times a second. The waits
are Linux's (``schedstat``, its documentation: "time spent waiting on a runqueue"); where they are
not told there are none.
"""

from __future__ import annotations

import time
from pathlib import Path

__all__ = ["Processor"]

_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class Processor:
    """The clocks of the thread that makes it and looks at it; both begin at zero, in seconds."""

    def __init__(self, schedstat: Path = _SCHEDSTAT) -> None:
        self._schedstat = schedstat
        self._used_s, self._waited_s = time.thread_time(), self._told()

    @property
    def used_s(self) -> float:
        """CPU time."""
        return time.thread_time() - self._used_s

    @property
    def waited_s(self) -> float:
        """How long it was ready to run and was not let: others had the processor, or the container
        had used up its share.
        """
        return self._told() - self._waited_s

    def _told(self) -> float:
        try:
            # The kernel makes it up as it is read: no disk is waited for.
            with self._schedstat.open("rb", buffering=0) as file:
                return int((file.read(100) or b"").split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0
