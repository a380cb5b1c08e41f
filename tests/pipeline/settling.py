"""A batch to settle and a naive service to settle it with: it says what it was told to say, and
remembers what it stored.

The service is asked for replies in the documented form, which go through :func:`judge` as any.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ctbatch.api.wire import Entry, Meaning, judge
from ctbatch.models import Batch, Checked, Counts, Refusal, Span, State
from ctbatch.pipeline.checker.check import Rules, check
from ctbatch.pipeline.ledger.accounts import Recorded
from ctbatch.pipeline.settlement import Settlement
from ctbatch.settings import OnAmbiguous
from tests.pipeline.lines import event, profile

__all__ = ["Desk", "counter", "event_of", "make_batch", "names_of", "user", "users"]


def user(name: str, **fields: str) -> bytes:
    """A profile that only sets values, so that it may be sent twice."""
    return profile({"Name": f"n-{name}"}, identity=name, **fields)


def users(count: int) -> list[bytes]:
    """Profiles of that many users, u0, u1, …, that may be sent twice."""
    return [user(f"u{n}") for n in range(count)]


def counter(name: str) -> bytes:
    """A profile that must not be applied twice."""
    return profile({"Visits": {"$incr": 1}}, identity=name)


def event_of(name: str) -> bytes:
    """An event, which must not be applied twice."""
    return event({}, identity=name)


def make_batch(lines: Iterable[bytes]) -> tuple[Batch, Checked]:
    """A batch of these lines, as the reader makes it, and what the checker says of it."""
    data = b"".join(line + b"\n" for line in lines)
    span = Span(source=0, first_line=1, lines=data.count(b"\n"), offset=0, size=len(data))
    batch = Batch(span, data)
    return batch, check(batch, Rules())


def names_of(checked: Checked, record: int) -> frozenset[str]:
    """All identities of a record."""
    return frozenset((checked.identities[record], *checked.aliases.get(record, ())))


@dataclass
class Desk:
    """One batch between its settlement, its ledger and a service; does what a delivery does.

    ``stored[r]`` are the numbers of the requests in which the service applied record ``r``.
    """

    batch: Batch
    checked: Checked
    policy: OnAmbiguous = OnAmbiguous.AUTO
    accepted: int = 0
    requests: int = 0
    refusals: list[tuple[Refusal, bytes | None]] = field(default_factory=list)
    stored: dict[int, list[int]] = field(default_factory=dict)
    sent: dict[int, list[int]] = field(default_factory=dict)
    maybe: frozenset[int] = frozenset()
    ledger: Recorded | None = None

    def __post_init__(self) -> None:
        self.settlement = Settlement(self.batch, self.checked, self.policy, self.ledger)
        self.record()

    @classmethod
    def of(cls, *lines: bytes, policy: OnAmbiguous = OnAmbiguous.AUTO) -> Desk:
        """A desk for a fresh batch."""
        return cls(*make_batch(lines), policy)

    def next(self) -> tuple[int, ...]:
        """The records of the next request."""
        assert self.settlement.piece is not None
        return self.settlement.piece.records

    # -- what a delivery does ------------------------------------------------------------------

    def post(self) -> frozenset[int]:
        """The next piece goes out; returns what may have been stored before it."""
        self.requests += 1
        for record in self.next():
            self.sent.setdefault(record, []).append(self.requests)
        before, self.maybe = self.maybe, self.maybe | self.settlement.on_wire
        self.admit()
        return before

    def record(self) -> None:
        """Write down what is settled."""
        self.maybe &= self.settlement.pending
        self.refusals += self.settlement.take_refusals()
        self.admit()

    def admit(self) -> None:
        """What the ledger of a run holds from now on."""
        self.ledger = Recorded(
            span=self.batch.span,
            done=not self.settlement.pending,
            digest=b"",
            counts=self.settlement.counts,
            pending=self.settlement.pending,
            maybe=self.maybe,
        )

    def crash(self) -> None:
        """The process ends, and another one takes up what the ledger has."""
        self.settlement = Settlement(self.batch, self.checked, self.policy, self.ledger)
        self.record()

    # -- what the service does -----------------------------------------------------------------

    def store(self, records: Collection[int]) -> None:
        """The service applies records of the current request, in order."""
        for record in sorted(records):
            self.stored.setdefault(record, []).append(self.requests)

    def answer(
        self,
        codes: Mapping[int, int] | None = None,
        words: Callable[[int], str] | None = None,
        *,
        echo: bool = True,
    ) -> None:
        """A reply that is believed: ``codes`` by refused record; ``words`` of one by its place."""
        codes = codes or {}
        before, sent, records = self.post(), self.settlement.on_wire, self.next()
        raw = [
            {
                "status": "fail",
                "code": codes[record],
                "error": words(place) if words else f"No.Skipped record number : {place}",
                "record": self._echo(record) if echo else None,
            }
            for place, record in enumerate(records, 1)
            if record in codes
        ]
        self.store([record for record in records if record not in codes])
        body = {"status": "any", "processed": len(records) - len(raw), "unprocessed": raw}
        verdict = judge(200, opened=True, body=body, records=len(records))
        assert verdict.meaning is Meaning.BELIEVED
        self.accepted += 1
        self._believe(verdict.entries, before, sent)

    def _believe(
        self, entries: tuple[Entry, ...], before: frozenset[int], sent: frozenset[int]
    ) -> None:
        self.settlement.believed(entries)
        self.maybe = (before - sent) | (sent & self.settlement.pending)
        self.record()

    def _echo(self, record: int) -> dict[str, str]:
        kinds = {"p": "profile", "e": "event", "t": "token"}
        echo = dict(name.split(":", 1) for name in names_of(self.checked, record))
        return echo | {"type": kinds[self.checked.types[record]]}

    def lose(self, *, stored: bool) -> None:
        """No answer comes, whether or not the service acted."""
        self.post()
        if stored:
            self.store(self.next())
        self.settlement.ambiguous("no answer", accepted=self.accepted)
        self.record()

    def refuse(self, *, canary: bool = False, code: int = 400) -> bool:
        """The request is refused as a whole; returns whether that speaks against the service."""
        self.maybe = self.post()
        against = self.settlement.refused(
            code, "Malformed request", accepted=self.accepted, canary=canary
        )
        self.record()
        return against

    def too_large(self) -> None:
        """The request is too large."""
        self.maybe = self.post()
        self.settlement.too_large(413, "")
        self.record()

    def throttle(self) -> None:
        """The service has no time for it."""
        self.maybe = self.post()
        self.settlement.again()
        self.record()

    # -- what came of it ---------------------------------------------------------------------------

    def final(self) -> dict[int, State]:
        """The final state of each line that is settled and not blank, by its index."""
        left = self.settlement.pending
        states = {p: State.PROCESSED for p in self.checked.positions if p not in left}
        return states | {refusal.index: refusal.state for refusal, _ in self.refusals}

    def states(self) -> list[State]:
        """The same in line order."""
        return [state for _, state in sorted(self.final().items())]

    def codes(self) -> dict[int, object]:
        """The codes of the refused lines."""
        return {refusal.index: refusal.code for refusal, _ in self.refusals}

    # -- until all is done ---------------------------------------------------------------------

    def serve(self, step: Callable[[Desk], None], *, most: int = 400) -> Desk:
        """Have every request answered by ``step`` until nothing is left."""
        start = self.requests
        while self.settlement.piece is not None:
            assert self.requests - start < most, "it never ends"
            step(self)
        return self

    def poisoned_by(self, *culprits: int) -> Callable[[Desk], None]:
        """A service that refuses every request with one of these records in it."""

        def step(desk: Desk) -> None:
            if set(culprits).isdisjoint(desk.next()):
                desk.answer()
            else:
                desk.refuse()

        return step

    def balance(self) -> None:
        """Each line is in one state or pending, and the counts say so."""
        lines = self.batch.span.lines
        counts, pending = self.settlement.counts, self.settlement.pending
        assert counts.accounted + len(pending) == lines
        indexes = [refusal.index for refusal, _ in self.refusals]
        assert len(indexes) == len(set(indexes)), "refused twice"
        assert pending.isdisjoint(indexes)
        said = Counts(
            unprocessed=self._count(State.UNPROCESSED),
            unknown=self._count(State.UNKNOWN),
            invalid=self._count(State.INVALID),
            blank=self.checked.blank,
            processed=lines - len(pending) - len(indexes) - self.checked.blank,
        )
        assert counts == replace(said, total=counts.total)

    def _count(self, state: State) -> int:
        return sum(refusal.state is state for refusal, _ in self.refusals)
