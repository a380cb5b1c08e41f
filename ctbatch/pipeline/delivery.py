"""One batch on its way: seal, admit, send, open, record, until every record is settled.

The order of things is here, the decisions are not: what a reply means is
:mod:`ctbatch.api.wire`'s, what follows for the batch :class:`Settlement`'s, what it says of the
service :class:`Breaker`'s, how many requests may be on the wire the limiter's.

Invariants:

1. Nothing goes on the wire before its admission is durable, and a slot is held only for a request
   on the wire and for what is left of that wait; never for a pause.
2. However a delivery ends, the ledger says which lines may have arrived: an admission that is
   known to have come to nothing is withdrawn.
3. A delivery that is cancelled while it is not on the wire loses nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson

from ctbatch.api.explain import explain_refusal, explain_status
from ctbatch.api.limiter import Slot
from ctbatch.api.transport import Reply
from ctbatch.api.wire import Meaning, Verdict
from ctbatch.api.words import clean_words
from ctbatch.errors import CtbatchError, LedgerFailed, NotSent, TransportError
from ctbatch.models import Batch, Counts, Names, SealedBatch
from ctbatch.notices import Level, Notice
from ctbatch.pipeline.checker.check import record_bytes
from ctbatch.pipeline.ledger.accounts import Recorded
from ctbatch.pipeline.report.measurements import Stopwatch, is_failure
from ctbatch.pipeline.settlement import Piece, Settlement
from ctbatch.pipeline.stages import Stages
from ctbatch.pipeline.threads import see_through

__all__ = ["Delivery"]

_NOTHING: frozenset[int] = frozenset()

_NO_SIGN = {Meaning.THROTTLED, Meaning.AMBIGUOUS}
"""Replies that do not tell that the service had room for one more request."""

_NO_ANSWER = {Meaning.AMBIGUOUS, Meaning.UNOPENED}
"""Replies that fail whatever their status says."""

_MAY_BE_STORED = {Meaning.BELIEVED, *_NO_ANSWER}
"""Of what was sent with any other reply nothing was stored."""

CALM_TRIES = 3
"""Pauses grow further under throttling only: outages are spaced elsewhere, the rest is bad luck."""


class Delivery:
    """The delivery of one batch, numbered ``seq`` in input order."""

    def __init__(
        self, stages: Stages, seq: int, batch: Batch, recorded: Recorded | None = None
    ) -> None:
        self._s = stages
        self._seq = seq
        self._batch = batch
        self._recorded = recorded
        self._counted = Counts() if recorded is None else recorded.counts
        self._settled = recorded is not None and recorded.pending is not None
        self._admitted = recorded is not None
        self._maybe = _NOTHING
        if recorded is not None:
            everything = frozenset(range(batch.span.lines))
            self._maybe = everything if recorded.maybe is None else recorded.maybe
        self._written = self._maybe
        """What the ledger has for ``maybe``: no less, and in between more."""
        self._permit = self._announced = self._late = self._throttled = False
        self._retry_after: str | None = None
        self._key_id: int | None = None
        self._accepted = 0
        self._settlement: Settlement
        self._slot: Slot
        self._watch = Stopwatch(stages.measured, stages.clock)
        self.on_wire = False
        """Whether a request is on the wire or its outcome is being recorded; a delivery of which
        neither is true may be cancelled."""

    async def run(self) -> None:
        """Deliver the batch; returns when each record is settled, or the run is to end."""
        try:
            await self._seal()
            while (piece := self._settlement.piece) is not None and not self._s.stop.draining:
                await self._back_off(piece)
                while not self._s.stop.draining:
                    sealed, admission = await self._admit()
                    if (outcome := await self._send(sealed, admission)) is not None:
                        await self._open(outcome, sealed.records)
                        await self._record()
                        self.on_wire = False
                        break
                    if not self._maybe:  # in bad weather those who wait may be many
                        await self._withdraw()
        except CtbatchError as error:
            self._s.stop.fail(error)
        finally:
            await self._leave()

    # -- seal ---------------------------------------------------------------------------------

    async def _seal(self) -> None:
        """Check and seal; take up what the ledger knows; wait for earlier batches of its users."""
        self._sealed_under = self._s.keys.generation
        sealed = await self._s.sealer.prepare(self._batch)
        self._watch.sealed(sealed.seconds)
        self._sealed, checked = sealed, sealed.checked
        self._settlement = Settlement(self._batch, checked, self._s.on_ambiguous, self._recorded)
        names = checked.identities
        if checked.aliases:
            further = (name for more in checked.aliases.values() for name in more)
            names = Names([*names, *further])
        self._announced = True
        await self._s.turns.wait(self._seq, names)
        self._watch.lap("waiting_for_turn")
        if self._recorded is not None or self._settlement.piece is None:
            await self._record()

    async def _reseal(self, piece: Piece) -> SealedBatch:
        """A piece of the batch; sealed anew unless it is the whole, under the keys of now."""
        self._under = self._s.keys.generation
        whole = len(piece.records) == self._sealed.batch.records
        if whole and self._sealed_under == self._under:
            return self._sealed.batch
        lines, positions = self._batch.lines(), self._sealed.checked.positions
        records = [record_bytes(lines[positions[r]]) for r in piece.records]
        sealed = await self._s.sealer.seal(records)
        self._watch.lap("sealing")
        if whole:
            self._sealed, self._sealed_under = replace(self._sealed, batch=sealed), self._under
        return sealed

    # -- admit --------------------------------------------------------------------------------

    async def _back_off(self, piece: Piece) -> None:
        """Pause before another try; in an outage the turnstile spaces the tries instead."""
        if not piece.tries:
            return
        s = self._s
        s.tally.live.retries += 1
        s.measured.retry()
        if not s.breaker.in_outage or self._retry_after is not None:
            calm = not self._throttled or s.breaker.accepted > self._accepted
            tries = min(piece.tries, CALM_TRIES) if calm else piece.tries
            pause = min(s.backoff(tries, self._retry_after), s.breaker.patience_s)
            await s.sleep(pause)
            self._watch.lap("backing_off")

    async def _admit(self) -> tuple[SealedBatch, asyncio.Future[None] | None]:
        """Wait until the weather allows the next piece, and have its admission written, which is
        under way when this returns.
        """
        piece = await self._pass()
        self._watch.admitted()
        sealed = await self._reseal(piece)
        lines = self._settlement.on_wire
        if lines <= self._maybe and sealed.key_id == self._key_id:
            return sealed, None  # it is admitted already, since it may have arrived
        self._key_id = sealed.key_id
        return sealed, self._note(_also(self._maybe, lines))

    def _note(self, maybe: frozenset[int]) -> asyncio.Future[None]:
        """Have the ledger say which lines may have arrived."""
        self._admitted, self._written = True, maybe
        return self._s.ledger.admit(
            self._batch.span,
            digest=self._sealed.digest,
            key_id=self._key_id,
            pending=self._settlement.pending if self._settled else None,
            maybe=maybe,
        )

    async def _pass(self) -> Piece:
        """Get the permit and the weather's leave to go out with the piece that is returned.

        Who is not let through keeps no permit (unless part of it may have arrived): otherwise
        those who may go could be left without one.
        """
        turnstile, settlement = self._s.turnstile, self._settlement
        while True:
            piece = settlement.piece
            assert piece is not None, "asked for while something is left to send"
            safe, records = settlement.is_safe, len(piece.records)
            await turnstile.wait(self._seq, safe=safe, records=records)
            self._watch.lap("waiting_for_weather")
            if not self._permit:
                await self._s.admissions.acquire()
                self._watch.lap("waiting_for_slot")
                self._permit = True
            allowed = turnstile.reserve(self._seq, safe=safe, records=records)
            if allowed:
                if allowed < records:
                    settlement.cut(allowed)
                return settlement.piece or piece
            if not self._maybe:
                await self._withdraw()

    # -- send ---------------------------------------------------------------------------------

    async def _send(
        self, sealed: SealedBatch, admission: asyncio.Future[None] | None
    ) -> Reply | TransportError | CtbatchError | None:
        """One attempt in a slot; ``None`` if the weather or a stop came between."""
        s, safe = self._s, self._settlement.is_safe
        if admission is not None:
            await admission
            self._watch.lap("ledger")
        async with s.slots.take() as self._slot:
            self._watch.lap("waiting_for_slot")
            if s.stop.draining or not s.turnstile.enter(
                self._seq, safe=safe, records=sealed.records
            ):
                return None
            s.breaker.trying(isolating=self._settlement.isolating)
            on_wire = self._settlement.on_wire
            self._before, self._maybe = self._maybe, _also(self._maybe, on_wire)
            self._accepted = s.breaker.accepted
            self.on_wire = True
            try:
                return await s.sender.post(sealed, fresh=not safe)
            except CtbatchError as error:
                return error
            finally:
                self._wire_s = self._watch.lap("on_the_wire")

    # -- open ---------------------------------------------------------------------------------

    async def _open(self, outcome: Reply | CtbatchError, records: int) -> None:
        """Say what an attempt meant, to the settlement and to the breaker."""
        self._retry_after, self._throttled = None, False
        if isinstance(outcome, Reply):
            self._s.breaker.reached()
            verdict = await self._s.opener.open(outcome, records)
            if verdict.meaning not in _MAY_BE_STORED:  # known before anything else is waited for
                self._maybe = self._before
            self._count(verdict.result, failed=verdict.meaning in _NO_ANSWER)
            if verdict.too_many or verdict.meaning not in _NO_SIGN:
                self._slot.answered(throttled=verdict.too_many)
            said = await self._clean(verdict)
            problem = self._judged(verdict, said)
        elif isinstance(outcome, TransportError):
            self._count(outcome.result, failed=True)
            problem = self._broken(outcome)
        else:  # a certificate or a redirect: nothing was acted on
            self._maybe = self._before
            problem = outcome
        self._watch.lap("opening")
        self._s.turnstile.exit(self._seq)
        if problem is not None:
            self._s.stop.fail(problem)

    def _count(self, result: str, *, failed: bool) -> None:
        """An attempt ended so."""
        self._s.measured.attempt(result, self._wire_s)
        self._s.tally.live.failed += failed or is_failure(result)

    def _judged(  # noqa: PLR0911  # the reply table: one return a row
        self, verdict: Verdict, said: str
    ) -> CtbatchError | None:
        """Act on a reply; returns the reason to end the run, if it is one."""
        s, settlement = self._s, self._settlement
        what = f"{verdict.result} {said}".strip()
        match verdict.meaning:
            case Meaning.BELIEVED:
                sent = settlement.on_wire
                s.breaker.believed()
                s.budget.succeeded()
                refused = settlement.believed(verdict.entries) - self._before
                self._maybe = (self._before - sent) | (sent & (settlement.pending - refused))
                return None
            case Meaning.AMBIGUOUS:
                return self._ambiguous(what, s.breaker.failed(what))
            case Meaning.UNOPENED:
                return self._ambiguous(what, s.breaker.unopened(what))
            case Meaning.REFUSED | Meaning.FATAL if self._under != s.keys.generation:
                settlement.again()  # the server key was replaced since it was sealed
                return s.breaker.waited(what)
            case Meaning.THROTTLED:
                self._retry_after, self._throttled = verdict.retry_after, True
                s.tally.live.throttled += verdict.too_many
                settlement.again()
                return s.breaker.waited(what)
            case Meaning.TOO_LARGE:
                settlement.too_large(verdict.code or 413, said)
                return None
            case Meaning.REFUSED:
                return self._refused(verdict, said)
        return explain_status(verdict.code or int(verdict.result[:3]), said)

    def _refused(self, verdict: Verdict, said: str) -> CtbatchError | None:
        s, settlement = self._s, self._settlement
        code = verdict.code or int(verdict.result[:3])
        single = settlement.piece is not None and len(settlement.piece.records) == 1
        canary = s.turnstile.is_canary(self._seq)
        known = settlement.isolating
        counts = settlement.refused(code, said, accepted=s.breaker.accepted, canary=canary)
        self._tell(Level.WARNING, "send.refused", f"a batch was refused ({code} {said})")
        if settlement.isolating and not known:
            s.measured.isolated()
        if settlement.hopeless:
            return explain_refusal(said, sealed=s.breaker.sealed)
        problem = s.breaker.refused(said, single=single) if counts else None
        if problem is not None and self._is_the_rest() and s.breaker.presume():
            settlement.blame(code, said)
            return None
        if problem is None and settlement.isolating:
            problem = s.breaker.overspent(said, lines=s.tally.live.lines_read)
        return problem

    def _is_the_rest(self) -> bool:
        """Whether one record of this batch is all that is left of the run."""
        live = self._s.tally.live
        return live.input_ended and live.in_progress == 1 and len(self._settlement.pending) == 1

    def _broken(self, error: TransportError) -> CtbatchError | None:
        """Act on an attempt without a reply."""
        s = self._s
        self._tell(Level.INFO, "send.failed", f"an attempt failed: {error.result}")
        if isinstance(error, NotSent):
            self._maybe = self._before
            self._settlement.again()
            return s.breaker.failed(error.why)
        s.breaker.reached()
        if error.result == "timeout":
            self._late = True
            s.measured.late()
        return self._ambiguous(error.result, s.breaker.failed(error.why))

    def _ambiguous(self, what: str, problem: CtbatchError | None) -> CtbatchError | None:
        words = f"sent, but no answer came that can be believed ({what})"
        self._settlement.ambiguous(words, accepted=self._s.breaker.accepted)
        return problem

    async def _clean(self, verdict: Verdict) -> str:
        """The words of a reply that concerns the whole batch, without anything of its records.

        To look at all these takes as long as ten batches do, so it is done on a thread, and not for
        each refusal of a request too many.
        """
        if not verdict.words or verdict.meaning is Meaning.THROTTLED:
            return ""
        return await asyncio.to_thread(self._cleaned, verdict.words)

    def _cleaned(self, words: str) -> str:
        lines, positions = self._batch.lines(), self._sealed.checked.positions
        return clean_words(words, *(orjson.loads(record_bytes(lines[p])) for p in positions))

    # -- record -------------------------------------------------------------------------------

    async def _record(self) -> None:
        """Write down what has been settled; withdraw an admission that came to nothing."""
        settlement = self._settlement
        counts, pending = settlement.counts, settlement.pending
        self._maybe &= pending
        if counts != self._counted or not pending:
            written = self._s.ledger.settle(
                self._batch.span,
                digest=self._sealed.digest,
                counts=counts,
                refusals=settlement.take_refusals(),
                pending=pending,
                maybe=self._maybe,
            )
            self._settled, self._admitted = True, bool(self._maybe)
            self._written = self._maybe
            if not self._maybe:  # now, since what is written later is never durable earlier
                self._give_permit_back()
            await written
            self._watch.lap("ledger")
            if not pending:
                self._watch.settled()
            problem = self._s.tally.add(self._counted, counts)
            self._counted = counts
            if problem is not None:
                self._s.stop.fail(problem)
        if not pending:
            self._warn()
        if not self._maybe:
            await self._withdraw()

    def _warn(self) -> None:
        """Count what is odd about accepted lines, once for each line of the run."""
        span = self._batch.span
        for index, text in self._sealed.checked.warnings:
            line = span.first_line + index
            if self._s.measured.warned(text, span.source, line):
                self._tell(Level.WARNING, "line.warning", f"line {line}: {text}")

    async def _withdraw(self) -> None:
        """Nothing of the batch is on the wire, nor may have arrived unsettled."""
        if self._admitted:
            self._admitted, self._written = False, _NOTHING
            await self._s.ledger.withdraw(self._batch.span)
            self._watch.lap("ledger")
        self._give_permit_back()

    def _give_permit_back(self) -> None:
        if self._permit:
            self._permit = False
            self._s.admissions.release()

    async def _leave(self) -> None:
        """Leave everything as the next process, and the other batches, need it."""
        try:
            if self._has_changed:
                await see_through(self._write_change())
        finally:
            self._let_go()

    @property
    def _has_changed(self) -> bool:
        """Whether the ledger has more as perhaps arrived than there is: it was refused since."""
        return self._maybe != self._written if self._maybe else self._admitted

    async def _write_change(self) -> None:
        """Have the ledger say what has arrived, as far as that is known."""
        try:
            if self._maybe:
                await self._note(self._maybe)
            else:
                await self._withdraw()
        except LedgerFailed as error:
            self._s.stop.fail(error)

    def _let_go(self) -> None:
        """Make way for other batches."""
        self._give_permit_back()
        if self._announced:
            self._s.turns.release(self._seq, after_s=self._s.late_s if self._late else 0.0)
        self._s.turnstile.leave(self._seq)

    def _tell(self, level: Level, event: str, text: str) -> None:
        span = self._batch.span
        fields = {"source": span.source, "first_line": span.first_line, "lines": span.lines}
        self._s.watcher.tell(Notice(level, event, text, fields))


def _also(these: frozenset[int], those: frozenset[int]) -> frozenset[int]:
    """All of them; without a copy where the first are none, as of nearly every batch."""
    return these | those if these else those
