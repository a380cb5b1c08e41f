"""The ledger against a dictionary: whatever happens in whatever order, they agree."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ctbatch.models import Counts, Span, State
from ctbatch.pipeline.ledger.accounts import Accounts, SourceRow
from ctbatch.pipeline.ledger.writer import Ledger
from tests.pipeline.ledgers import DIGEST, line, nothing, read, rows, settle, span

LINES = 4
NUMBERS = st.integers(0, 4)
STATES = st.sampled_from([State.PROCESSED, State.UNPROCESSED, State.INVALID, State.UNKNOWN])


class _Expected:
    """What must be known of one span."""

    def __init__(self) -> None:
        self.states: dict[int, State] = {}
        self.settled = False
        self.maybe = frozenset(range(LINES))

    @property
    def pending(self) -> frozenset[int]:
        return frozenset(range(LINES)) - self.states.keys()

    @property
    def counts(self) -> Counts:
        states = list(self.states.values())
        return Counts(
            processed=states.count(State.PROCESSED),
            unprocessed=states.count(State.UNPROCESSED),
            invalid=states.count(State.INVALID),
            unknown=states.count(State.UNKNOWN),
        )


class LedgerMachine(RuleBasedStateMachine):
    """Five spans of four lines over two sources, and a process that comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.run_dir = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.expected: dict[int, _Expected] = {}

    @initialize()
    def begin(self) -> None:
        """A new run."""
        self._open(create=True)
        sources = [SourceRow("users.ndjson"), SourceRow("more.ndjson")]
        self.runner.run(self.ledger.put_sources(sources))

    def _open(self, *, create: bool = False) -> None:
        self.ledger = Ledger(self.run_dir, create=create)
        self.runner.run(self.ledger.__aenter__())

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "ledger"):
            self.runner.run(self.ledger.__aexit__(None))
        self.runner.close()
        shutil.rmtree(self.run_dir)

    @rule(number=NUMBERS, which=st.frozensets(st.integers(0, LINES - 1), min_size=1))
    def admit(self, number: int, which: frozenset[int]) -> None:
        """What is pending of a span goes out, or a part of it."""
        item = self.expected.setdefault(number, _Expected())
        maybe = which & item.pending
        if not maybe:
            return
        item.maybe = maybe
        pending = item.pending if item.settled else None

        async def write() -> None:
            await self.ledger.admit(
                _span(number), digest=DIGEST, key_id=1, pending=pending, maybe=maybe
            )

        self.runner.run(write())

    @rule(number=NUMBERS, index=st.integers(0, LINES - 1), state=STATES, more=STATES)
    def settle(self, number: int, index: int, state: State, more: State) -> None:
        """Some of its lines get their states; the rest may have arrived or not."""
        item = self.expected.setdefault(number, _Expected())
        new = {i: s for i, s in ((index, state), (LINES - 1, more)) if i in item.pending}
        if not new:
            return
        item.states |= new
        item.settled = True
        item.maybe = item.pending & frozenset({0, 1})
        refused = {i: s for i, s in new.items() if s is not State.PROCESSED}
        self.runner.run(
            settle(
                self.ledger,
                _span(number),
                refused,
                counts=item.counts,
                pending=item.pending,
                maybe=item.maybe,
            )
        )

    @rule(number=NUMBERS)
    def withdraw(self, number: int) -> None:
        """Nothing of it is on the wire after all."""
        item = self.expected.get(number)
        if item is None or not item.pending:
            return
        self.runner.run(self.ledger.withdraw(_span(number)))
        item.maybe = frozenset()
        if not item.settled:
            del self.expected[number]

    @rule()
    def reopen(self) -> None:
        """Another process goes on."""
        self.runner.run(self.ledger.__aexit__(None))
        self._open()

    @rule()
    def publish(self) -> None:
        """The files are put in input order."""
        self.runner.run(self.ledger.publish_files(nothing))
        for kind in ("rejected", "unknown"):
            assert rows(self.run_dir, kind) == self._rows(kind)

    @invariant()
    def agrees(self) -> None:
        """Spans, sums, reasons and files are those of the model."""
        if not hasattr(self, "ledger"):
            return
        for source in (0, 1):
            found = read(self.run_dir, partial(Accounts.recorded, source=source))
            known = {number: item for number, item in self.expected.items() if number % 2 == source}
            assert [item.span for item in found] == sorted(map(_span, known))
            for item in found:
                expected = next(e for n, e in known.items() if _span(n) == item.span)
                assert item.counts == expected.counts
                assert item.done is not bool(expected.pending)
                assert item.pending == (expected.pending if expected.settled else None)
                everything = frozenset(range(LINES)) if item.maybe is None else item.maybe
                assert everything == expected.maybe
        for kind in ("rejected", "unknown"):
            assert sorted(rows(self.run_dir, kind)) == self._rows(kind)

    def _rows(self, kind: str) -> list[tuple[int, int, bytes]]:
        states = {State.UNKNOWN} if kind == "unknown" else {State.UNPROCESSED, State.INVALID}
        return sorted(
            (of.source, of.first_line + index, line(of.first_line + index, of.source))
            for of, item in ((_span(n), item) for n, item in self.expected.items())
            for index, state in item.states.items()
            if state in states
        )


def _span(number: int) -> Span:
    return span(number // 2 * LINES + 1, LINES, number % 2)


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=12,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
