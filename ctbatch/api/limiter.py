"""How many requests may be on the wire: a pure :class:`Controller` and the :class:`Slots` it rules.

The service takes a fixed number of calls at a time and refuses the rest with 429. That number is
shared with everything else the account runs, so our part of it has to be found, and found again.

Invariants:

1. The limit is from 1 to the cap; requests in flight never exceed the cap, and exceed the limit
   only while it shrinks.
2. Only a 429 lowers the limit, and at most once for all requests sent before it was lowered.
   Latency, lost replies and other errors never do.
3. Slots are given first come, first served, and a waiter that is cancelled takes none along.

It does not begin with the full cap, as one might once the canary was believed: against a share of
5, 3, 2 or 1 that cost 14, 23, 35 or 54 % of the requests of the first 20 s (replies of a second;
the scenarios' simulation), doubling costs 7 % at most, and two round trips where all 15 are free.

When a refused batch tries again is not decided here (:mod:`ctbatch.api.retry`), nor is the canary.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

__all__ = ["Controller", "Slot", "Slots"]

HALVE: Final = 0.5
"""What a 429 leaves of a limit that is not proven: from 15 to a share of 3 in two steps."""

EASE: Final = 0.75
"""What it leaves of a proven one: a stray 429 (the service counts a call a little longer than we
do, a neighbour's short burst) costs a quarter for some seconds; if it was more than that, the next
one halves."""

HOLD_S: Final = 2.0
MAX_HOLD_S: Final = 8.0
"""Least time between probes; doubled by each probe that fails in a row, up to the maximum."""

ROUNDS: Final = 2
MAX_REPLIES: Final = 30
"""Replies between probes while they hold: two to each slot, 30 at most. With 30 whatever the
limit, climbing from 3 would take over half a minute where a call takes a second."""

SETTLED_REPLIES: Final = 45
"""Replies before the next probe after one failed: it cost one refusal, and 1 in 46 is 2.2 %."""


class Controller:
    """Finds how many requests the service takes at a time; times are seconds of any clock.

    From ``start`` it doubles with each round of replies that holds: a full burst of 15 against a
    shared cap of 5 would be refused ten times, this way it is three, and the cap is reached four
    rounds later. The first 429 ends that. It goes down on 429s, then feels its way up: a step of 1
    each time enough was served, steps of 2, 4, … after two that held, back to the last limit that
    held when one fails.
    """

    def __init__(self, cap: int, start: int = 1) -> None:
        self.cap = cap
        self.limit = start
        """How many requests may be in flight now."""
        self._good = start
        """The last limit that held; lower than ``limit`` while a probe is under way."""
        self._doubling = start < cap
        self._changes = 0
        self._lowered = 0
        """What ``_changes`` was when the limit was last lowered."""
        self._since = float("-inf")
        self._replies = 0
        self._reached = False
        """Whether the limit was made use of since it was set; otherwise nothing was tried."""
        self._held = self._failed = 0
        """Probes in a row that held, or failed."""

    def sent(self, in_flight: int) -> int:
        """A request goes out, with ``in_flight`` now on the wire; returns its ticket."""
        self._reached = self._reached or in_flight >= self.limit
        return self._changes

    def served(self, now: float) -> None:
        """A reply came that shows that the service had room for the request."""
        self._replies += 1
        if self._good == self.cap or not self._is_due(now):
            return
        if self.limit > self._good:
            self._good = self.limit
            self._held += not self._doubling
            self._failed = 0
        step: int = self.limit if self._doubling else 2 ** max(0, self._held - 1)
        self._set(min(self.limit + step, self.cap), now)

    def throttled(self, now: float, ticket: int) -> None:
        """A 429 came for the request with this ticket."""
        if ticket < self._lowered:
            return
        if self.limit > self._good and (self._reached or ticket == self._changes):
            # Of requests that go out together with the one too many, any may be refused.
            self._failed += self.limit == self._good + 1 or not self._doubling
            lower = self._good
        else:
            proven = self._good == self.limit and self._replies >= SETTLED_REPLIES
            lower = max(1, int(self._good * (EASE if proven else HALVE)))
            self._failed = 0
        self._held = 0
        self._doubling = False
        self._good = lower
        self._set(lower, now)
        self._lowered = self._changes

    def _is_due(self, now: float) -> bool:
        """Whether the limit has held for long enough to try a higher one."""
        if self._doubling:
            return self._reached and self._replies >= self.limit
        hold_s, replies = HOLD_S, min(MAX_REPLIES, ROUNDS * self.limit)
        if self._failed and self.limit == self._good:
            hold_s, replies = min(HOLD_S * 2**self._failed, MAX_HOLD_S), SETTLED_REPLIES
        return self._reached and self._replies >= replies and now - self._since >= hold_s

    def _set(self, limit: int, now: float) -> None:
        self.limit = limit
        self._changes += 1
        self._since = now
        self._replies = 0
        self._reached = False

    def __repr__(self) -> str:
        return f"<Controller: {self.limit} of {self.cap}, {self._good} held>"


class Slot:
    """The right to have one request on the wire, from entering to leaving its context."""

    __slots__ = ("_slots", "_ticket")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._ticket = -1

    def answered(self, *, throttled: bool) -> None:
        """A reply came that tells whether the service had room (``throttled``: a 429, it had none);
        also after the slot was given back.
        """
        self._slots._answered(self._ticket, throttled=throttled)

    async def __aenter__(self) -> Self:
        self._ticket = await self._slots._acquire()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._slots._give_back()


class Slots:
    """Gives out as many slots as the controller allows; belongs to one event loop.

    ``clock`` counts seconds. Shrinking takes effect as slots are given back, growing at once.
    """

    def __init__(
        self, controller: Controller, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._controller = controller
        self._clock = clock
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._began: float | None = None
        self._counted_to = 0.0
        self._taken_s = self._open_s = 0.0
        self.in_flight = 0
        """Slots given out now."""

    @property
    def limit(self) -> int:
        """How many slots may be given out now."""
        return self._controller.limit

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    @property
    def usage(self) -> tuple[float, float, float]:
        """Seconds since the first slot was given out, and over them the sums of slots made use of
        and of slots open: the second by the third is how full they were.

        While the limit shrinks below what is in flight, slots beyond it count in neither.
        """
        if self._began is None:
            return 0.0, 0.0, 0.0
        self._count()
        return self._counted_to - self._began, self._taken_s, self._open_s

    def take(self) -> Slot:
        """A slot, to be entered with ``async with``, which waits for its turn."""
        return Slot(self)

    async def _acquire(self) -> int:
        """Wait for a slot; returns its ticket."""
        if not self._waiting and self.in_flight < self._controller.limit:
            return self._give()
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # a slot was given in the same turn of the loop
                self._give_back()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _give(self) -> int:
        """Give out a slot, and its ticket: counted from now on, and by the limit of now, even where
        its taker has yet to wake up.
        """
        self._count()
        self.in_flight += 1
        return self._controller.sent(self.in_flight)

    def _give_back(self) -> None:
        self._count()
        self.in_flight -= 1
        self._wake()

    def _answered(self, ticket: int, *, throttled: bool) -> None:
        self._count()  # at the limit that held until now
        if throttled:
            self._controller.throttled(self._clock(), ticket)
        else:
            self._controller.served(self._clock())
            self._wake()

    def _wake(self) -> None:
        """Give free slots to those who have waited longest."""
        while self._waiting and self.in_flight < self._controller.limit:
            turn = self._waiting.popleft()
            if not turn.done():  # done is who was cancelled and has yet to notice
                turn.set_result(self._give())

    def _count(self) -> None:
        """Add up the slot-seconds until now."""
        now = self._clock()
        if self._began is None:
            self._began = now
        else:
            passed_s, limit = now - self._counted_to, self._controller.limit
            self._taken_s += min(self.in_flight, limit) * passed_s
            self._open_s += limit * passed_s
        self._counted_to = now

    def __repr__(self) -> str:
        return f"<Slots: {self.in_flight} of {self.limit} in flight, {self.waiting} waiting>"
