"""What a run tells its watchers while it goes on: a live tally to sample, and notices to show.

The flow is the only writer of a :class:`Live`; a watcher reads it whenever it likes (numbers and
short strings only, replaced as a whole, so that reading from another thread is safe). Neither holds
personal data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

__all__ = ["Level", "Live", "Notice", "Phase", "Silent", "Watcher"]


class Level(StrEnum):
    """INFO: for the curious. WARNING: nothing lost. ERROR: data lost or a person must act."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Phase(StrEnum):
    """What the run is doing now."""

    CANARY = "canary"
    UPLOADING = "uploading"
    OUTAGE = "outage"
    DRAINING = "draining"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Notice:
    """One message: ``event`` is a dotted name, ``text`` a sentence, ``fields`` its facts."""

    level: Level
    event: str
    text: str
    fields: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(slots=True)
class Live:
    """The run as it stands now.

    ``bytes_total`` is the size of all inputs as stored, where every one is a file, else ``None``;
    ``bytes_read`` counts in the same terms, so their ratio is the share done, unless no more than
    ``most_lines`` are to be read. ``throttled`` counts 429s, ``failed`` the attempts with neither
    these nor an answer that something was accepted. ``spent_s`` is where the time of batches went
    so far, by kind (its keys never change); ``slots_s`` the seconds slots are counted for, and the
    sums of those made use of and of those open; ``cpu_s`` what the event loop's thread used of its
    core, without sealing and with it, and how long it waited for one.
    """

    phase: Phase = Phase.CANARY
    bytes_total: int | None = None
    most_lines: int | None = None
    bytes_read: int = 0
    lines_read: int = 0
    input_ended: bool = False
    processed: int = 0
    unprocessed: int = 0
    invalid: int = 0
    unknown: int = 0
    blank: int = 0
    in_progress: int = 0
    in_flight: int = 0
    limit: int = 0
    attempts: int = 0
    retries: int = 0
    throttled: int = 0
    failed: int = 0
    concurrency: int = 0
    spent_s: Mapping[str, float] = field(default_factory=dict)
    slots_s: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cpu_s: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def settled(self) -> int:
        """Lines whose state is final."""
        return self.processed + self.unprocessed + self.invalid + self.unknown + self.blank


class Watcher(Protocol):
    """Whoever looks at a run: a progress display, a logger, a test."""

    def watch(self, live: Live) -> None:
        """Called once, before anything is sent, with the tally to sample from then on."""
        ...

    def tell(self, notice: Notice) -> None:
        """Called on the event loop for each notice; must not block."""
        ...


class Silent:
    """A watcher that looks away."""

    def watch(self, live: Live) -> None:
        """Look away."""

    def tell(self, notice: Notice) -> None:
        """Say nothing."""
