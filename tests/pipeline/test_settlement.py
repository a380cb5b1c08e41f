"""Every record ends in one state, in order, blamed only with evidence, repeated only if safe."""

from __future__ import annotations

import math

import orjson
import pytest

from ctbatch.models import Counts, Span, State
from ctbatch.pipeline.accounts import Recorded
from ctbatch.pipeline.checker import Rules, check
from ctbatch.pipeline.settlement import MAX_AMBIGUOUS, MAX_AMBIGUOUS_HALF, MAX_TRANSIENT, Settlement
from ctbatch.settings import OnAmbiguous
from tests.pipeline.lines import ACCEPTED
from tests.pipeline.settling import Desk, counter, event_of, make_batch, state_of, user

AUTO, RESEND, HOLD = OnAmbiguous.AUTO, OnAmbiguous.RESEND, OnAmbiguous.HOLD
PROCESSED, UNPROCESSED, UNKNOWN = State.PROCESSED, State.UNPROCESSED, State.UNKNOWN


def _users(count: int) -> list[bytes]:
    return [user(f"u{n}") for n in range(count)]


def _states(desk: Desk) -> list[State]:
    states = state_of(desk)
    return [states[index] for index in sorted(states)]


def _codes(desk: Desk) -> dict[int, object]:
    return {refusal.index: refusal.code for refusal, _ in desk.refusals}


# -- the ordinary course --------------------------------------------------------------------------


def test_a_batch_goes_out_as_one_piece() -> None:
    """One request, all accepted, nothing left."""
    desk = Desk.of(*_users(3))
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
    assert _codes(desk)[3] == 515
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
    desk = Desk.of(*_users(2))
    for tries in range(3):
        assert desk.settlement.piece is not None
        assert desk.settlement.piece.tries == tries
        desk.throttle()
    assert desk.next() == (0, 1)


def test_a_piece_can_be_cut_for_a_probe() -> None:
    """Its first records go out alone, the others after them."""
    desk = Desk.of(*_users(3))
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
    assert set(_states(desk)) == {UNPROCESSED}
    desk.balance()


# -- ambiguous answers ----------------------------------------------------------------------------


def test_what_may_have_been_stored_is_repeated_only_if_it_is_safe() -> None:
    """One batch is split by the policy: a profile that sets values goes again, the others not."""
    desk = Desk.of(user("a"), counter("b"), event_of("c"), user("d"))
    assert not desk.settlement.is_safe
    desk.lose(stored=True)
    assert desk.next() == (0, 3)
    assert desk.settlement.is_safe
    desk.answer()
    assert _states(desk) == [PROCESSED, UNKNOWN, UNKNOWN, PROCESSED]
    assert "no answer" in desk.refusals[0][0].error


def test_the_policy_can_be_to_send_again() -> None:
    """The person asked for it; a fresh connection is wanted all the same."""
    desk = Desk.of(user("a"), counter("b"), policy=RESEND)
    assert not desk.settlement.is_safe
    desk.lose(stored=True)
    assert desk.next() == (0, 1)


def test_the_policy_can_be_to_hold_everything() -> None:
    """Nothing goes twice, not even what could."""
    desk = Desk.of(user("a"), counter("b"), policy=HOLD)
    assert not desk.settlement.is_safe
    desk.lose(stored=False)
    assert _states(desk) == [UNKNOWN, UNKNOWN]


def test_ambiguous_answers_count_only_while_others_are_believed() -> None:
    """An outage, however long, is nobody's fault: the batch stays whole."""
    desk = Desk.of(*_users(4))
    for _ in range(10 * MAX_AMBIGUOUS):
        desk.lose(stored=False)
    assert desk.next() == (0, 1, 2, 3)


def test_a_batch_that_keeps_getting_no_answer_is_isolated() -> None:
    """The record that the service chokes on is unknown in the end, the others processed."""
    desk = Desk.of(*_users(64))

    def step(desk: Desk) -> None:
        desk.accepted += 1  # other batches go on
        if 37 in desk.next():
            desk.lose(stored=False)
        else:
            desk.answer()

    desk.serve(step)
    assert {n: s for n, s in state_of(desk).items() if s is not PROCESSED} == {37: UNKNOWN}
    assert desk.requests <= MAX_AMBIGUOUS + 6 * (MAX_AMBIGUOUS_HALF + 1)
    assert not desk.settlement.isolating


# -- refused as a whole ---------------------------------------------------------------------------


def test_a_refused_batch_has_one_more_try() -> None:
    """The vendor's own tool takes a 400 for possibly transient."""
    desk = Desk.of(*_users(4))
    assert not desk.refuse()
    assert desk.next() == (0, 1, 2, 3)
    assert not desk.settlement.isolating
    desk.answer()
    assert set(_states(desk)) == {PROCESSED}


def test_a_batch_refused_twice_is_halved_and_speaks_against_the_service() -> None:
    """Halves go one after the other; a further half does not count as another batch."""
    desk = Desk.of(*_users(4))
    desk.refuse()
    assert desk.refuse()
    assert desk.settlement.isolating
    assert desk.next() == (0, 1)
    assert not desk.refuse()
    assert desk.next() == (0,)
    assert desk.refuse()


@pytest.mark.parametrize("count", [2, 3, 7, 64, 1000])
@pytest.mark.parametrize("place", [0.0, 0.4, 0.999])
def test_a_culprit_costs_about_two_requests_a_halving(count: int, place: float) -> None:
    """Wherever it stands; everybody else is processed, once."""
    culprit = int(place * count)
    desk = Desk.of(*_users(count))
    desk.serve(desk.poisoned_by(culprit))
    assert _codes(desk) == {culprit: 400}
    assert desk.settlement.counts.processed == count - 1
    assert desk.requests <= 2 * math.ceil(math.log2(count)) + 3
    assert all(len(times) == 1 for times in desk.stored.values())


def test_several_culprits_are_each_found() -> None:
    """Neighbours, and those at both ends, share what they can."""
    culprits = (0, 1, 250, 600, 999)
    desk = Desk.of(*_users(1000))
    desk.serve(desk.poisoned_by(*culprits))
    assert _codes(desk) == dict.fromkeys(culprits, 400)
    assert desk.requests <= len(culprits) * (2 * 10 + 3)


def test_nobody_is_blamed_without_evidence() -> None:
    """While nothing at all is accepted, even a single record is only put off."""
    desk = Desk.of(*_users(2))
    for _ in range(50):
        desk.refuse()
    assert desk.settlement.pending == {0, 1}
    desk.accepted += 1  # another batch
    desk.serve(desk.poisoned_by(1))
    assert _codes(desk) == {1: 400}


def test_what_was_accepted_before_is_no_evidence() -> None:
    """Keys may have been rotated since."""
    desk = Desk.of(user("a"))
    desk.accepted = 1000
    for _ in range(5):
        desk.refuse()
    assert desk.settlement.pending == {0}


def test_being_accepted_oneself_is_no_evidence_against_oneself() -> None:
    """A request with the record in it was accepted (code 555): what is refused later is new."""
    desk = Desk.of(*_users(2))
    desk.refuse()
    desk.answer({0: 555})
    assert desk.next() == (0,)
    assert not desk.refuse()
    assert desk.refuse()
    assert desk.settlement.pending == {0}
    desk.accepted += 1
    desk.refuse()
    assert _codes(desk) == {0: 400}


def test_a_record_that_is_put_off_takes_its_followers_along() -> None:
    """Later records of the same user wait until it has been sent, whichever half they are in."""
    desk = Desk.of(
        user("a"), user("b"), user("c"), user("a", objectId="x"), user("d", objectId="x")
    )
    desk.refuse()
    desk.refuse()
    assert desk.next() == (0, 1, 2)
    desk.refuse()
    desk.refuse()
    assert desk.next() == (0,)
    desk.refuse()
    order: list[int] = []

    def step(desk: Desk) -> None:
        order.extend(desk.next())
        desk.answer()

    desk.serve(step)
    assert order == [1, 2, 0, 3, 4]


def test_followers_that_were_never_refused_have_their_own_first_try() -> None:
    """The first was cut off and refused alone; that says nothing of those it takes along."""
    desk = Desk.of(user("a"), user("a"))
    desk.settlement.cut(1)
    for _ in range(3):
        desk.refuse()
    desk.accepted += 1
    desk.refuse()
    assert _codes(desk) == {0: 400}
    assert desk.next() == (1,)
    assert not desk.refuse()
    assert desk.settlement.pending == {1}


def test_the_canary_is_probed_by_three_records() -> None:
    """The first, a middle and the last, each alone; then the rest, in order."""
    desk = Desk.of(*_users(9))
    desk.refuse(canary=True)
    assert desk.refuse(canary=True)
    sent = []
    for _ in range(4):
        sent.append(desk.next())
        desk.answer()
    assert sent == [(0,), (5,), (8,), (1, 2, 3, 4, 6, 7)]
    assert desk.settlement.piece is None


def test_a_canary_whose_probes_are_all_refused_is_hopeless() -> None:
    """It is not a record that the service refuses, and none is blamed."""
    desk = Desk.of(*_users(9))
    for refusals in range(5):
        assert not desk.settlement.hopeless, refusals
        desk.refuse(canary=True)
    assert desk.settlement.hopeless
    assert len(desk.settlement.pending) == 9


@pytest.mark.parametrize("accepted", [0, 1, 2])
def test_one_probe_accepted_gives_hope(accepted: int) -> None:
    """The service is well: the batch is isolated as any other."""
    desk = Desk.of(*_users(9))
    desk.refuse(canary=True)
    desk.refuse(canary=True)
    for probe in range(3):
        if probe == accepted:
            desk.answer()
        else:
            desk.refuse(canary=not desk.accepted)
    assert not desk.settlement.hopeless
    desk.serve(desk.poisoned_by(4))
    assert UNPROCESSED in _states(desk)
    desk.balance()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_small_canary_has_as_many_probes_as_records(count: int) -> None:
    """A one-line file that is refused stops after three requests."""
    desk = Desk.of(*_users(count))
    while not desk.settlement.hopeless:
        desk.refuse(canary=True)
    assert desk.requests == 2 + count


def test_probes_keep_the_order_of_a_user() -> None:
    """A record that shares an identity is no probe, unless it is the first."""
    desk = Desk.of(user("a"), user("b"), user("b"), user("a"))
    desk.refuse(canary=True)
    desk.refuse(canary=True)
    assert desk.next() == (0,)
    desk.answer()
    assert desk.next() == (1, 2, 3)


def test_what_is_too_large_is_halved_until_one_is_left() -> None:
    """That one is unprocessed; 413 counts against no service."""
    desk = Desk.of(*_users(4))

    def step(desk: Desk) -> None:
        if 2 in desk.next():
            desk.too_large()
        else:
            desk.answer()

    desk.serve(step)
    assert _codes(desk) == {2: 413}
    assert "too large" in desk.refusals[0][0].error
    assert not desk.settlement.isolating


# -- code 555 -------------------------------------------------------------------------------------


def test_a_passing_error_is_tried_again_with_what_followed() -> None:
    """The record and all later ones of its user, in order; nobody else."""
    desk = Desk.of(user("a"), user("b"), user("a"), user("a", GPID="g"), user("c", GPID="g"))
    desk.answer({0: 555})
    assert desk.settlement.counts.processed == 1
    assert desk.next() == (0, 2, 3, 4)
    assert desk.settlement.piece is not None
    assert desk.settlement.piece.tries == 1
    desk.answer()
    assert set(_states(desk)) == {PROCESSED}


def test_a_passing_error_is_bounded() -> None:
    """After some rounds it is unprocessed, with its code."""
    desk = Desk.of(*_users(2))
    desk.serve(lambda desk: desk.answer({1: 555}))
    assert _codes(desk) == {1: 555}
    assert desk.requests == MAX_TRANSIENT


@pytest.mark.parametrize("lines", [[counter("a")], [user("a"), counter("a")]])
def test_a_passing_error_is_final_where_a_repeat_would_do_harm(lines: list[bytes]) -> None:
    """The record, or a later one of its user, must not be applied twice."""
    desk = Desk.of(*lines)
    desk.answer({0: 555})
    assert desk.settlement.piece is None
    assert _codes(desk) == {0: 555}


def test_a_refused_follower_does_not_hold_a_passing_error() -> None:
    """What was not stored needs no repeat, and ties nobody else."""
    desk = Desk.of(user("a"), event_of("a"), user("b"))
    desk.answer({0: 555, 1: 513})
    assert desk.next() == (0,)


# -- refusals without a name ----------------------------------------------------------------------


def _mute(place: int) -> str:
    return "Something is wrong."


def test_an_unnamed_refusal_is_searched_for_in_halves() -> None:
    """Replay-safe candidates go again until the refused one is known."""
    desk = Desk.of(*_users(64))
    desk.serve(lambda desk: desk.answer({r: 515 for r in desk.next() if r == 9}, _mute, echo=False))
    assert _codes(desk) == {9: 515}
    assert desk.requests <= 2 * 6 + 1


def test_unnamed_refusals_among_unsafe_records_are_unknown() -> None:
    """One of these events was refused, the others are stored: none may go again."""
    desk = Desk.of(user("a"), event_of("a"), event_of("b"), user("c"))
    desk.answer({2: 515}, _mute, echo=False)
    assert desk.next() == (3,)
    desk.answer()
    assert _states(desk) == [UNKNOWN, UNKNOWN, UNKNOWN, PROCESSED]


def test_held_back_candidates_follow_the_policy() -> None:
    """To hold is to hold all; to resend is to repeat what may be stored, not what is."""
    held = Desk.of(*_users(2), policy=HOLD)
    held.answer({0: 515}, _mute, echo=False)
    assert _states(held) == [UNKNOWN, UNKNOWN]
    again = Desk.of(event_of("a"), event_of("a"), policy=RESEND)
    again.answer({0: 515}, _mute)
    assert again.next() == (0,)
    stored = Desk.of(user("a"), user("a"), counter("a"), policy=RESEND)
    stored.answer({0: 515, 2: 515}, _mute, echo=False)
    assert stored.next() == (0, 1)


def test_a_record_is_in_one_piece_only() -> None:
    """A passing error before a candidate of the same user: both go again, once and in order."""
    desk = Desk.of(user("a"), user("a"), user("b"), user("a"))
    words = iter(["No.Skipped record number : 1", "No."])
    desk.answer({0: 555, 1: 515}, lambda place: next(words))
    sent = []

    def step(desk: Desk) -> None:
        sent.append(desk.next())
        desk.answer({r: 515 for r in desk.next() if r == 1})

    desk.serve(step)
    assert sent == [(0, 1), (3,)]
    assert _codes(desk) == {1: 515}
    desk.balance()


def test_a_passing_error_is_not_repeated_before_a_held_back_candidate() -> None:
    """The candidate may be stored already and cannot follow it."""
    desk = Desk.of(user("a"), user("a"), user("a"), policy=HOLD)
    words = iter(["No.Skipped record number : 1", "No."])
    desk.answer({0: 555, 2: 515}, lambda place: next(words))
    assert desk.settlement.piece is None
    assert _codes(desk) == {0: 555, 1: None, 2: None}


# -- taking up what a ledger recorded -------------------------------------------------------------


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
    desk = Desk(*make_batch(_users(4)), ledger=_recorded({1, 3}, set(), processed=2))
    assert desk.next() == (1, 3)


def test_what_may_go_together_goes_together() -> None:
    """What may have arrived goes again with what has not: the order of a user is kept."""
    desk = Desk(*make_batch(_users(4)), ledger=_recorded({0, 1, 2, 3}, {2, 3}))
    assert desk.next() == (0, 1, 2, 3)


def test_a_line_that_is_not_valid_any_more_is_invalid_now() -> None:
    """The checker was made strict between two processes: the line still ends in one state."""
    batch, _ = make_batch([user("a"), b'{"type":"event","identity":"b","evtName":"Stayed"}'])
    checked = check(batch, Rules(strict=True))
    settlement = Settlement(batch, checked, AUTO, _recorded({0, 1}, set(), lines=2))
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

    whole = Desk.of(*_users(16), b"", b"{").serve(step)
    broken = Desk.of(*_users(16), b"", b"{")

    def crash(desk: Desk) -> None:
        if desk.requests == crash_after:
            desk.post()
            desk.store([r for r in desk.next() if r not in {3, 5, 11}])
            desk.crash()
        else:
            step(desk)

    broken.serve(crash)
    assert state_of(broken) == state_of(whole)
    assert broken.settlement.counts == whole.settlement.counts
    assert _codes(broken) == _codes(whole) == {3: 516, 5: 400, 11: 516, 17: "cut_short"}
