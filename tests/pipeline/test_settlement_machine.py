"""A batch, any weather, and a naive service: what must hold after every answer, and at the end."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ctbatch.models import State
from ctbatch.settings import OnAmbiguous
from tests.pipeline.settling import Desk, counter, event_of, make_batch, names_of, user

NAMES = st.sampled_from("abc")
LINES = st.lists(
    st.one_of(
        st.builds(user, NAMES),
        st.builds(user, NAMES, objectId=NAMES),
        st.builds(user, NAMES, objectId=NAMES),
        st.builds(counter, NAMES),
        st.builds(event_of, NAMES),
        st.sampled_from([b"", b"{"]),
    ),
    min_size=1,
    max_size=9,
)
CODES = st.sampled_from([515, 515, 555])


def _numbered(place: int) -> str:
    return f"No. Skipped record number : {place}"


def _mute(place: int) -> str:
    return "No."


def _beyond(place: int) -> str:
    return "No. Skipped record number : 1001"


class Weather(RuleBasedStateMachine):
    """Scripted replies against one settlement, and what a naive onlooker knows of each record.

    ``exposed`` are the records that may have been stored, by what their sender can know; ``final``
    what the service said of a record last; ``refused_at`` when a record was first in a refused
    request, ``accepted`` which records each accepted request held, and when.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exposed: set[int] = set()
        self.final: dict[int, str] = {}
        self.refused_at: dict[int, int] = {}
        self.accepted: list[tuple[int, frozenset[int]]] = []
        self.now = 0
        self.seen = 0

    @initialize(lines=LINES, policy=st.sampled_from([*OnAmbiguous, OnAmbiguous.AUTO]))
    def begin(self, lines: list[bytes], policy: OnAmbiguous) -> None:
        self.desk = Desk(*make_batch(lines), policy)
        self.seen = len(self.desk.refusals)

    # -- what is sent ----------------------------------------------------------------------------

    def _going(self) -> bool:
        return self.desk.settlement.piece is not None

    def _post(self) -> tuple[int, ...]:
        """Look at what goes out now: only pending records, and none that must not."""
        desk, records = self.desk, self.desk.next()
        self.now += 1
        assert list(records) == sorted(set(records))
        assert {desk.checked.positions[r] for r in records} <= desk.settlement.pending
        if desk.policy is not OnAmbiguous.RESEND:
            repeated = desk.checked.unsafe & self.exposed & set(records)
            assert not repeated, "sent twice, and it counts twice"
        return records

    def _stored(self, records: set[int] | tuple[int, ...]) -> None:
        self.exposed.update(records)

    @precondition(_going)
    @rule(
        data=st.data(),
        words=st.sampled_from([_numbered, _numbered, _mute, _beyond]),
        echo=st.booleans(),
    )
    def answer(self, data: st.DataObject, words: Callable[[int], str], echo: bool) -> None:
        records = self._post()
        refused = data.draw(st.sets(st.sampled_from(records)))
        codes = {r: data.draw(CODES) for r in sorted(refused)}
        self._stored(set(records) - refused)
        self.final.update({r: "refused" if r in refused else "ok" for r in records})
        self.accepted.append((self.now, frozenset(records)))
        self.desk.answer(codes, words, echo=echo)

    @precondition(_going)
    @rule(stored=st.booleans())
    def lose(self, stored: bool) -> None:
        self._stored(self._post())
        self.desk.lose(stored=stored)

    @precondition(_going)
    @rule(times=st.integers(1, 3))
    def refuse(self, times: int) -> None:
        for _ in range(times):
            if not self._going():
                break
            for record in self._post():
                self.refused_at.setdefault(record, self.now)
            self.desk.refuse(canary=not self.desk.accepted)
            self._look_at_blame()

    @precondition(_going)
    @rule()
    def too_large(self) -> None:
        self._post()
        self.desk.too_large()

    @precondition(_going)
    @rule()
    def throttle(self) -> None:
        self._post()
        self.desk.throttle()

    @precondition(_going)
    @rule(records=st.integers(1, 3))
    def cut(self, records: int) -> None:
        if records < len(self.desk.next()):
            self.desk.settlement.cut(records)

    @rule()
    def others_are_accepted(self) -> None:
        self.now += 1
        self.desk.accepted += 1
        self.accepted.append((self.now, frozenset()))

    @precondition(_going)
    @rule(sent=st.booleans(), stored=st.booleans())
    def crash(self, sent: bool, stored: bool) -> None:
        if sent:
            records = self._post()
            self._stored(records)
            self.desk.post()
            if stored:
                self.desk.store(records)
        self.desk.crash()

    # -- what must hold ----------------------------------------------------------------------------

    @invariant()
    def each_line_is_in_one_state(self) -> None:
        self.desk.balance()
        pieces = [r for piece in self.desk.settlement._work for r in piece.records]
        assert len(pieces) == len(set(pieces)), "a record is in two pieces"
        assert {self.desk.checked.positions[r] for r in pieces} == self.desk.settlement.pending

    @invariant()
    def nothing_that_may_have_arrived_is_forgotten(self) -> None:
        """A pending record that is stored is known as maybe stored: a stop counts it right."""
        positions = self.desk.checked.positions
        stored = {positions[r] for r in self.desk.stored}
        assert self.desk.settlement.pending & stored <= self.desk.maybe

    def _look_at_blame(self) -> None:
        """Whoever is blamed for a refused request was not in one that was accepted since."""
        index_of = {p: r for r, p in enumerate(self.desk.checked.positions)}
        for refusal, _ in self.desk.refusals[self.seen :]:
            if refusal.code == 400:
                record = index_of[refusal.index]
                assert any(
                    when > self.refused_at[record] and record not in records
                    for when, records in self.accepted
                ), "blamed without evidence"
        self.seen = len(self.desk.refusals)

    def teardown(self) -> None:
        """The weather clears up: all is settled soon, right, and in order."""
        if hasattr(self, "desk"):
            self.desk.serve(self._clear, most=200)
            self.desk.balance()
            assert not self.desk.settlement.pending
            self._ended_right()
            self._ended_in_order()

    def _clear(self, desk: Desk) -> None:
        records = self._post()
        self._stored(records)
        self.final.update(dict.fromkeys(records, "ok"))
        desk.answer()

    def _ended_right(self) -> None:
        states = self.desk.final()
        codes = {refusal.index: refusal.code for refusal, _ in self.desk.refusals}
        for record, index in enumerate(self.desk.checked.positions):
            if states[index] is State.PROCESSED:
                assert self.desk.stored[record]
                assert self.final[record] == "ok"
            elif states[index] is State.UNPROCESSED and codes[index] not in {400, 413}:
                assert self.final[record] == "refused"

    def _ended_in_order(self) -> None:
        """Whoever was processed was applied last after every earlier record of its user."""
        desk, states = self.desk, self.desk.final()
        for later, index in enumerate(desk.checked.positions):
            if states[index] is not State.PROCESSED:
                continue
            for earlier in range(later):
                if not names_of(desk.checked, earlier).isdisjoint(names_of(desk.checked, later)):
                    applied = desk.stored.get(earlier, [0])[-1]
                    assert applied <= desk.stored[later][-1], "an earlier record was applied last"


TestWeather = Weather.TestCase
TestWeather.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)
