"""Every record ends in one state; what may have been stored is repeated only if it is safe."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from ctbatch.models import Counts, Span, State
from ctbatch.pipeline.checker.check import Rules, check
from ctbatch.pipeline.ledger.accounts import Recorded
from ctbatch.pipeline.settlement import MAX_AMBIGUOUS, MAX_AMBIGUOUS_HALF, Settlement
from ctbatch.settings import OnAmbiguous
from tests.pipeline.lines import ACCEPTED
from tests.pipeline.settling import Desk, counter, event_of, make_batch, user, users

PROCESSED, UNPROCESSED, UNKNOWN = State.PROCESSED, State.UNPROCESSED, State.UNKNOWN


# -- the ordinary course ---------------------------------------------------------------------------


def test_a_batch_goes_out_as_one_piece() -> None:
    """One request, all accepted, nothing left."""
    desk = Desk.of(*users(3))
    assert desk.next() == (0, 1, 2)
    desk.answer()
    assert desk.settlement.piece is None
    assert desk.settlement.counts == Counts(processed=3)


def test_invalid_and_blank_lines_are_settled_from_the_start() -> None:
    """They are never sent, keep their original, and count."""
    desk = Desk.of(user("a"), b"", b"{", user("b"), b" ")
    assert desk.settlement.counts == Counts(invalid=1, blank=2)
    assert desk.settlement.pending == desk.settlement.on_wire == {0, 3}
    assert [(r.index, r.state, line) for r, line in desk.refusals] == [(2, State.INVALID, b"{")]
    desk.answer({1: 515})
    assert desk.codes()[3] == 515
    desk.balance()


def test_a_batch_without_records_has_nothing_to_send() -> None:
    """No piece, no request."""
    desk = Desk.of(b"", b"{")
    assert desk.settlement.piece is None
    desk.balance()


def test_the_original_and_cleaned_words_come_with_a_refusal() -> None:
    """Byte for byte as it stood in the input; the words lose the record's values."""
    line = user("u0") + b" \r"
    desk = Desk.of(user("u1"), line)
    desk.answer({1: 515}, lambda place: f"n-u0 is bad.Skipped record number : {place}")
    [(refusal, original)] = desk.refusals
    assert original == line
    assert (refusal.index, refusal.code, refusal.error) == (1, 515, "… is bad.")


def test_a_throttled_piece_is_the_same_again() -> None:
    """Only its pause grows."""
    desk = Desk.of(*users(2))
    for tries in range(3):
        assert desk.settlement.piece is not None
        assert desk.settlement.piece.tries == tries
        desk.throttle()
    assert desk.next() == (0, 1)


def test_a_piece_can_be_cut_for_a_probe() -> None:
    """Its first records go out alone, the others after them."""
    desk = Desk.of(*users(3))
    desk.settlement.cut(1)
    assert desk.next() == (0,)
    desk.answer()
    assert desk.next() == (1, 2)
    desk.settlement.cut(2)
    assert desk.next() == (1, 2)


def test_every_accepted_line_can_be_refused() -> None:
    """Whatever the checker lets through, its words can be cleaned by its values."""
    desk = Desk.of(*(line.replace(b"\n", b"") for line in ACCEPTED))
    desk.answer(dict.fromkeys(desk.next(), 515))
    assert set(desk.states()) == {UNPROCESSED}
    desk.balance()


# -- ambiguous answers -----------------------------------------------------------------------------


def test_what_may_have_been_stored_is_repeated_only_if_it_is_safe() -> None:
    """One batch is split by the policy: a profile that sets values goes again, the others not."""
    desk = Desk.of(user("a"), counter("b"), event_of("c"), user("d"))
    assert not desk.settlement.is_safe
    desk.lose(stored=True)
    assert desk.next() == (0, 3)
    assert desk.settlement.is_safe
    desk.answer()
    assert desk.states() == [PROCESSED, UNKNOWN, UNKNOWN, PROCESSED]
    assert "no answer" in desk.refusals[0][0].error


def test_the_policy_can_be_to_send_again() -> None:
    """The person asked for it; a fresh connection is wanted all the same."""
    desk = Desk.of(user("a"), counter("b"), policy=OnAmbiguous.RESEND)
    assert not desk.settlement.is_safe
    desk.lose(stored=True)
    assert desk.next() == (0, 1)


def test_the_policy_can_be_to_hold_everything() -> None:
    """Nothing goes twice, not even what could."""
    desk = Desk.of(user("a"), counter("b"), policy=OnAmbiguous.HOLD)
    assert not desk.settlement.is_safe
    desk.lose(stored=False)
    assert desk.states() == [UNKNOWN, UNKNOWN]
    assert not Desk.of(*users(2), policy=OnAmbiguous.HOLD).settlement.is_safe


def test_an_outage_is_nobodys_fault() -> None:
    """However long it lasts, no record is unknown for it; all go when it is over."""
    desk = Desk.of(*users(4))
    for _ in range(10 * MAX_AMBIGUOUS):
        desk.lose(stored=False)
    assert len(desk.settlement.pending) == 4
    desk.serve(Desk.answer)
    assert desk.states() == [PROCESSED] * 4


def _choking_on(*culprits: int) -> Callable[[Desk], None]:
    """A service that never answers a request with one of these records in it."""

    def step(desk: Desk) -> None:
        if set(culprits).isdisjoint(desk.next()):
            desk.answer()
        else:
            desk.lose(stored=False)

    return step


@pytest.mark.parametrize("culprits", [(0,), (20,), (63,), (62, 63)])
def test_what_the_service_chokes_on_is_found_where_nothing_else_is_left(
    culprits: tuple[int, ...],
) -> None:
    """No other batch is there to be believed: parts of this one are."""
    desk = Desk.of(*users(64)).serve(_choking_on(*culprits))
    unsettled = {n: s for n, s in desk.final().items() if s is not PROCESSED}
    assert unsettled == dict.fromkeys(culprits, UNKNOWN)


def test_what_follows_a_record_that_was_put_off_is_found_as_well() -> None:
    """It is of the batch that was cut: what was believed since then counts for it, too."""
    desk = Desk.of(user("a"), user("a"), user("b")).serve(_choking_on(0, 1))
    assert desk.states() == [UNKNOWN, UNKNOWN, PROCESSED]


def test_a_half_is_cut_at_once_where_nothing_at_all_is_believed() -> None:
    """Its batch was as patient as it has to be; only a part can show what is wrong."""
    desk = Desk.of(*users(4))
    for _ in range(1 + MAX_AMBIGUOUS):
        assert desk.next() == (0, 1, 2, 3)
        desk.lose(stored=False)
    assert desk.next() == (0, 1)
    desk.lose(stored=False)
    assert desk.next() == (0,)


def test_a_batch_that_keeps_getting_no_answer_is_isolated() -> None:
    """The record that the service chokes on is unknown in the end, the others processed."""
    desk = Desk.of(*users(64))

    def step(desk: Desk) -> None:
        desk.accepted += 1  # other batches go on
        if 37 in desk.next():
            desk.lose(stored=False)
        else:
            desk.answer()

    desk.serve(step)
    assert {n: s for n, s in desk.final().items() if s is not PROCESSED} == {37: UNKNOWN}
    assert desk.requests <= MAX_AMBIGUOUS + 6 * (MAX_AMBIGUOUS_HALF + 1)
    assert not desk.settlement.isolating


def test_a_half_has_its_own_bound() -> None:
    """It is as innocent as its batch was, and is not cut at the first unlucky answer."""
    desk = Desk.of(*users(4))
    for _ in range(MAX_AMBIGUOUS):
        assert desk.next() == (0, 1, 2, 3)
        desk.lose(stored=False)
        desk.accepted += 1
    for _ in range(MAX_AMBIGUOUS_HALF):
        assert desk.next() == (0, 1)
        desk.lose(stored=False)
        desk.accepted += 1
    assert desk.next() == (0,)


# -- taking up what a ledger recorded --------------------------------------------------------------


def _recorded(
    pending: set[int] | None, maybe: set[int] | None, lines: int = 4, **counts: int
) -> Recorded:
    return Recorded(
        span=Span(source=0, first_line=1, lines=lines, offset=0, size=0),
        done=False,
        digest=b"",
        counts=Counts(**counts),
        pending=None if pending is None else frozenset(pending),
        maybe=None if maybe is None else frozenset(maybe),
    )


def test_an_admitted_batch_is_ambiguous_as_a_whole() -> None:
    """Nothing is known of it but that it may have been on the wire."""
    lines = [user("a"), counter("b"), b"{", user("c")]
    desk = Desk(*make_batch(lines), ledger=_recorded(None, None))
    assert desk.next() == (0, 2)
    assert [(r.index, r.state) for r, _ in desk.refusals] == [(2, State.INVALID), (1, UNKNOWN)]
    desk.answer()
    desk.balance()


def test_only_what_was_on_the_wire_is_ambiguous() -> None:
    """An unsafe record that was never sent is sent; what was settled stays so."""
    lines = [counter("a"), counter("b"), counter("c"), user("d")]
    desk = Desk(*make_batch(lines), ledger=_recorded({1, 2, 3}, {1}, processed=1))
    assert desk.next() == (2, 3)
    desk.answer()
    assert desk.settlement.counts == Counts(processed=3, unknown=1)


def test_nothing_on_the_wire_leaves_everything_to_be_sent() -> None:
    """In order, as one piece, whatever was put off."""
    desk = Desk(*make_batch(users(4)), ledger=_recorded({1, 3}, set(), processed=2))
    assert desk.next() == (1, 3)


def test_what_may_go_together_goes_together() -> None:
    """What may have arrived goes again with what has not: the order of a user is kept."""
    desk = Desk(*make_batch(users(4)), ledger=_recorded({0, 1, 2, 3}, {2, 3}))
    assert desk.next() == (0, 1, 2, 3)


def test_a_line_that_is_not_valid_any_more_is_invalid_now() -> None:
    """The checker was made strict between two processes: the line still ends in one state."""
    batch, _ = make_batch([user("a"), b'{"type":"event","identity":"b","evtName":"Stayed"}'])
    checked = check(batch, Rules(strict=True))
    settlement = Settlement(batch, checked, OnAmbiguous.AUTO, _recorded({0, 1}, set(), lines=2))
    assert settlement.pending == {0}
    assert settlement.counts == Counts(invalid=1)
    [(refusal, line)] = settlement.take_refusals()
    assert (refusal.index, refusal.state) == (1, State.INVALID)
    assert line is not None
    assert orjson.loads(line)["evtName"] == "Stayed"


@pytest.mark.parametrize("crash_after", range(12))
def test_an_interrupted_batch_ends_as_an_uninterrupted_one(crash_after: int) -> None:
    """Killed after any number of requests, answered or not, and taken up from the ledger."""

    def step(desk: Desk) -> None:
        if 5 in desk.next():
            desk.refuse()
        else:
            desk.answer({r: 516 for r in desk.next() if r in {3, 11}})

    whole = Desk.of(*users(16), b"", b"{").serve(step)
    broken = Desk.of(*users(16), b"", b"{")

    def crash(desk: Desk) -> None:
        if desk.requests == crash_after:
            desk.post()
            desk.store([r for r in desk.next() if r not in {3, 5, 11}])
            desk.crash()
        else:
            step(desk)

    broken.serve(crash)
    assert broken.final() == whole.final()
    assert broken.settlement.counts == whole.settlement.counts
    assert broken.codes() == whole.codes() == {3: 516, 5: 400, 11: 516, 17: "cut_short"}
