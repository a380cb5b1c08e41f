"""When requests may go out at all: the canary, an outage, and when to stop trying.

:class:`Breaker` is the pure judgement, :class:`Turnstile` lets batches through by it;
:class:`Tally` stops a run of which too much is refused.

Invariants:

1. Until one reply was believed, only the canary batch may be on the wire, through all its retries.
2. In an outage (three failures with nothing believed between them, the canary's too) one request is
   on the wire at a time, spaced by back-off whatever the answer; replay-safe batches go first, any
   other is cut to one record.
3. Batches with unsafe records that failed since the last belief, and those on the wire, are never
   more than the service takes at a time: so many an outage can cost.
4. What speaks against the service as a whole stops the run and blames no record.

Concurrency in ordinary weather is not decided here (:mod:`ctbatch.api.limiter`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ctbatch.api.explain import explain_refusal, explain_unopened
from ctbatch.errors import CtbatchError, ServiceUnavailable, TooManyRefused
from ctbatch.models import Counts
from ctbatch.notices import Live, Phase
from ctbatch.settings import MAX_CONCURRENCY

__all__ = ["Breaker", "Tally", "Turnstile"]

OUTAGE_AFTER = 3
"""Failures in a row that are no coincidence any more."""

MAX_UNOPENED = 3
MAX_UNOPENED_LATER = 6
"""Answers in a row that do not open before our keys are to blame; twice as many once a reply did
open in this process. Then a gateway is likelier, and with one answer in twenty cut short, three in
a row come up in a few thousand requests; with fifteen on the wire the six are here at once.
"""

UNREACHABLE_AFTER_S = 30.0
"""How long a host that never answered is tried: a typo should not wait for --give-up-after."""

MAX_REFUSED_BATCHES = 3
MAX_REFUSED_SINGLES = 8
REQUESTS_PER_10_000_LINES = 200
"""The isolation budget: about 2·log2(1000) requests find one culprit, so ten in 10,000 lines."""


class Breaker:
    """What the recent replies say about the service; times are seconds of the given clock."""

    def __init__(
        self,
        clock: Callable[[], float],
        backoff: Callable[[int], float],
        *,
        give_up_after_s: float,
        sealed: bool,
    ) -> None:
        self._clock = clock
        self._backoff = backoff
        self._give_up_after_s = give_up_after_s
        self.sealed = sealed
        self._trying_since: float | None = None
        self._reached = False
        self.failures = 0
        """Failures since the last belief."""
        self._probes = 0
        """Probes since the last belief that were not believed."""
        self._unopened = 0
        self._refused_batches = 0
        self._refused_singles = 0
        self._isolations = 0
        self._presumed = False
        self.phase = Phase.CANARY
        self.resumed = False
        """Whether an earlier process sent of this run, perhaps into an outage that goes on."""
        self.accepted = 0
        """Requests accepted so far."""
        self.next_probe_at = 0.0

    @property
    def in_outage(self) -> bool:
        """Whether too much has failed in a row for more than one careful request at a time."""
        return self.failures >= OUTAGE_AFTER

    def trying(self, *, isolating: bool = False) -> None:
        """A request goes out; ``isolating``: to find out which record a batch is refused for."""
        self._isolations += isolating
        if self._trying_since is None:
            self._trying_since = self._clock()

    def idle(self) -> None:
        """Nothing is left to send for now: the time until there is does not count."""
        self._trying_since = None

    def reached(self) -> None:
        """A request went out whole, so there is somebody at this address."""
        self._reached = True

    def believed(self) -> None:
        """A reply was believed."""
        self.phase = Phase.UPLOADING
        self.accepted += 1
        self._trying_since = None
        self.failures = self._unopened = self._refused_batches = self._refused_singles = 0
        self._probes = 0

    def failed(self, what: str) -> CtbatchError | None:
        """A request was not sent, or its outcome is ambiguous; returns the reason to stop.

        However many were on the wire when the weather turned, together they cost one short pause.
        """
        self.failures += 1
        if self.failures <= OUTAGE_AFTER:
            self._space_probes()
        if self.in_outage and self.phase is Phase.UPLOADING:
            self.phase = Phase.OUTAGE
        return self.waited(what)

    def _space_probes(self) -> None:
        pause = min(self._backoff(self._probes + 1), self.patience_s)
        self.next_probe_at = self._clock() + pause

    def probed(self) -> None:
        """A probe came back; one that was not believed, for whatever reason, puts off the next."""
        if self.in_outage:
            self._probes += 1
            self._space_probes()

    def unopened(self, what: str) -> CtbatchError | None:
        """A 2xx came that does not open; as :meth:`failed`; several in a row mean wrong keys."""
        self._unopened += 1
        if self._unopened >= (MAX_UNOPENED_LATER if self.accepted else MAX_UNOPENED):
            return explain_unopened(self._unopened, sealed=self.sealed)
        return self.failed(what)

    def waited(self, what: str) -> CtbatchError | None:
        """The reason to stop if nothing was believed for too long."""
        if self.patience_s > 0:
            return None
        return ServiceUnavailable(self._clock() - (self._trying_since or 0.0), what)

    @property
    def patience_s(self) -> float:
        """Seconds until the run gives up if nothing is believed; no pause may be longer."""
        if self._trying_since is None:
            self._trying_since = self._clock()
        limit = self._give_up_after_s
        if not self._reached:
            limit = min(limit, UNREACHABLE_AFTER_S)
        return max(0.0, self._trying_since + limit - self._clock())

    def refused(self, what: str, *, single: bool) -> CtbatchError | None:
        """A batch was refused twice, or a single record; returns the reason to stop, if any."""
        if single:
            self._refused_singles += 1
        else:
            self._refused_batches += 1
        too_many = (
            self._refused_batches >= MAX_REFUSED_BATCHES
            or self._refused_singles >= MAX_REFUSED_SINGLES
        )
        if not too_many:
            return None
        return explain_refusal(what, sealed=self.sealed, others_pass=single and self.accepted > 0)

    def presume(self) -> bool:
        """Whether a record that is refused again and again may be blamed though no other request
        was accepted since: if others were before, and once in a process. It is asked where nothing
        else is left to send: else the last line of a file could never be finished.
        """
        if self._presumed or not self.accepted:
            return False
        self._presumed = True
        self._refused_singles = 0
        return True

    def overspent(self, what: str, *, lines: int) -> CtbatchError | None:
        """The reason to stop if isolation has cost too many requests for so many lines read."""
        if self._isolations <= REQUESTS_PER_10_000_LINES * max(1, -(-lines // 10_000)):
            return None
        return explain_refusal(what, sealed=self.sealed, others_pass=True)


class Turnstile:
    """Lets the pieces of batches through as the breaker's phase allows.

    A batch calls :meth:`wait` until its piece may go, and :meth:`reserve` when nothing but a slot
    is missing; with the slot it calls :meth:`enter`, and :meth:`exit` after the attempt. Both may
    refuse, since the weather can have changed meanwhile. :meth:`leave` is for the end of the batch.
    """

    def __init__(
        self, breaker: Breaker, clock: Callable[[], float], concurrency: int = MAX_CONCURRENCY
    ) -> None:
        self._breaker = breaker
        self._clock = clock
        self._concurrency = concurrency
        self._inside: set[int] = set()
        self._canary: int | None = None
        self._probing: int | None = None
        self._waiting: dict[int, bool] = {}
        self._changed = asyncio.Event()

    def allowed(self, seq: int, *, safe: bool, records: int) -> int:
        """How many records of a piece may go out now; 0: it has to wait."""
        breaker = self._breaker
        if breaker.phase is Phase.CANARY and self._canary not in {None, seq}:
            return 0
        if not breaker.in_outage:
            number = self._allowed_in_fair_weather(seq, safe=safe, records=records)
            if number is not None:
                return number
        if self._probing not in {None, seq} or self._clock() < breaker.next_probe_at:
            return 0
        if safe:
            return records
        # Safe batches go first, but nobody may go in the place of the canary.
        return 0 if any(self._waiting.values()) and not self.is_canary(seq) else 1

    def _allowed_in_fair_weather(self, seq: int, *, safe: bool, records: int) -> int | None:
        """The same where nothing says that there is an outage; ``None``: unless one begins."""
        breaker = self._breaker
        if breaker.phase is Phase.CANARY and breaker.resumed and not safe:
            return 1  # or each resume would cost another batch of such records
        inside = len(self._inside - {seq})
        if safe or not breaker.failures or inside + breaker.failures < self._concurrency:
            return records
        return 0 if inside else None  # one of these may be believed

    async def wait(self, seq: int, *, safe: bool, records: int) -> None:
        """Wait until records of a piece may go out."""
        if self.allowed(seq, safe=safe, records=records):
            return
        self._waiting[seq] = safe
        try:
            while not self.allowed(seq, safe=safe, records=records):
                await self._pause()
        finally:
            del self._waiting[seq]
            self.changed()  # who let this one go first may go now, if it waits for something else

    def reserve(self, seq: int, *, safe: bool, records: int) -> int:
        """Claim the next passage, where only one may pass, before others prepare for it in vain;
        returns how many records may go out, 0: wait again.
        """
        number = self.allowed(seq, safe=safe, records=records)
        if number:
            self._claim(seq)
        return number

    async def _pause(self) -> None:
        """Wait for a change, or until the next probe is due."""
        due = self._breaker.next_probe_at - self._clock()
        timed = self._probing is None and due > 0
        try:
            async with asyncio.timeout(due + 0.001 if timed else None):
                await self._changed.wait()
        except TimeoutError:
            pass

    def enter(self, seq: int, *, safe: bool, records: int) -> bool:
        """Go through with so many records, if that is still allowed."""
        if self.allowed(seq, safe=safe, records=records) < records:
            if self._probing == seq:
                self._probing = None
                self.changed()
            return False
        self._claim(seq)
        self._inside.add(seq)
        return True

    def _claim(self, seq: int) -> None:
        if self._breaker.phase is Phase.CANARY:
            self._canary = seq
        if self._breaker.in_outage:
            self._probing = seq

    def exit(self, seq: int) -> None:
        """The attempt is over and the breaker knows its result."""
        self._inside.discard(seq)
        if self._probing == seq:
            self._probing = None
            self._breaker.probed()
        self.changed()

    def leave(self, seq: int) -> None:
        """The batch is finished."""
        if self._canary == seq:
            self._canary = None
        self.exit(seq)

    def is_canary(self, seq: int) -> bool:
        """Whether a batch is the canary, with nothing believed yet."""
        return self._breaker.phase is Phase.CANARY and self._canary == seq

    def changed(self) -> None:
        """Wake whoever waits, to look again."""
        if self._waiting:
            event, self._changed = self._changed, asyncio.Event()
            event.set()


class Tally:
    """Counts settled lines for the watchers, and stops a run in which too many are refused: of
    those settled, or in a dry run, which settles none of the good ones, of those read.
    """

    FIRST = 10_000
    """Lines after which a wrong column mapping has shown itself."""

    def __init__(
        self, live: Live, max_refused_percent: float | None, *, dry_run: bool = False
    ) -> None:
        self.live = live
        self._limit = max_refused_percent
        self._dry_run = dry_run

    def add(self, before: Counts, after: Counts) -> CtbatchError | None:
        """Count what a batch has settled since ``before``; returns the reason to stop, if any."""
        live = self.live
        live.processed += after.processed - before.processed
        live.unprocessed += after.unprocessed - before.unprocessed
        live.invalid += after.invalid - before.invalid
        live.unknown += after.unknown - before.unknown
        live.blank += after.blank - before.blank
        return self.judge(at_least=self.FIRST)

    def judge(self, *, at_least: int = 1) -> CtbatchError | None:
        """Whether too many are refused of the lines so far, or of ``at_least`` so many."""
        live = self.live
        refused, lines = live.unprocessed + live.invalid, live.settled
        if self._dry_run:
            lines = live.lines_read
        if self._limit is None or refused * 100 <= self._limit * max(lines, at_least):
            return None
        return TooManyRefused(refused, lines, self._limit)
