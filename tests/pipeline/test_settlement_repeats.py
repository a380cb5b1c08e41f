"""What a believed reply leaves open goes again in order, once, and only where that does no harm."""

from __future__ import annotations

import pytest

from ctbatch.models import State
from ctbatch.pipeline.settlement import MAX_TRANSIENT
from ctbatch.settings import OnAmbiguous
from tests.pipeline.settling import Desk, counter, event_of, user, users

PROCESSED, UNPROCESSED, UNKNOWN = State.PROCESSED, State.UNPROCESSED, State.UNKNOWN


# -- code 555 --------------------------------------------------------------------------------------


def test_a_passing_error_is_tried_again_with_what_followed() -> None:
    """The record and all later ones of its user, in order; nobody else."""
    desk = Desk.of(user("a"), user("b"), user("a"), user("a", GPID="g"), user("c", GPID="g"))
    desk.answer({0: 555})
    assert desk.settlement.counts.processed == 1
    assert desk.next() == (0, 2, 3, 4)
    assert desk.settlement.piece is not None
    assert desk.settlement.piece.tries == 1
    desk.answer()
    assert set(desk.states()) == {PROCESSED}


def test_a_passing_error_is_bounded() -> None:
    """After some rounds it is unprocessed, with its code."""
    desk = Desk.of(*users(2))
    desk.serve(lambda desk: desk.answer({1: 555}))
    assert desk.codes() == {1: 555}
    assert desk.requests == MAX_TRANSIENT


@pytest.mark.parametrize("lines", [[counter("kim-1")], [user("kim-1"), counter("kim-1")]])
def test_a_passing_error_is_final_where_a_repeat_would_do_harm(lines: list[bytes]) -> None:
    """The record, or a later one of its user, must not be applied twice; what the service said of
    it is kept without the record's values, here as anywhere.
    """
    desk = Desk.of(*lines)
    desk.answer({0: 555}, lambda place: f"kim-1 is busy. Skipped record number : {place}")
    assert desk.settlement.piece is None
    assert desk.codes() == {0: 555}
    assert [refusal.error for refusal, _ in desk.refusals] == ["… is busy."]


def test_a_passing_error_is_not_held_by_another_that_is_final() -> None:
    """An event that the service did not take is not repeated, so it need not follow."""
    desk = Desk.of(user("a"), event_of("a"), user("a"))
    desk.answer({0: 555, 1: 555})
    assert desk.next() == (0, 2)
    assert desk.codes() == {1: 555}


def test_a_refused_follower_does_not_hold_a_passing_error() -> None:
    """What was not stored needs no repeat, and ties nobody else."""
    desk = Desk.of(user("a"), event_of("a"), user("b"))
    desk.answer({0: 555, 1: 513})
    assert desk.next() == (0,)


# -- refusals without a name -----------------------------------------------------------------------


def _mute(place: int) -> str:
    return "Something is wrong."


def test_an_unnamed_refusal_is_searched_for_in_halves() -> None:
    """Replay-safe candidates go again until the refused one is known."""
    desk = Desk.of(*users(64))
    desk.serve(lambda desk: desk.answer({r: 515 for r in desk.next() if r == 9}, _mute, echo=False))
    assert desk.codes() == {9: 515}
    assert desk.requests <= 2 * 6 + 1


def test_unnamed_refusals_among_unsafe_records_are_unknown() -> None:
    """One of these events was refused, the others are stored: none may go again."""
    desk = Desk.of(user("a"), event_of("a"), event_of("b"), user("c"))
    desk.answer({2: 515}, _mute, echo=False)
    assert desk.next() == (3,)
    desk.answer()
    assert desk.states() == [UNKNOWN, UNKNOWN, UNKNOWN, PROCESSED]


def test_held_back_candidates_follow_the_policy() -> None:
    """To hold is to hold all; to resend is to repeat what may be stored, not what is."""
    held = Desk.of(*users(2), policy=OnAmbiguous.HOLD)
    held.answer({0: 515}, _mute, echo=False)
    assert held.states() == [UNKNOWN, UNKNOWN]
    again = Desk.of(event_of("a"), event_of("a"), policy=OnAmbiguous.RESEND)
    again.answer({0: 515}, _mute)
    assert again.next() == (0,)
    stored = Desk.of(user("a"), user("a"), counter("a"), policy=OnAmbiguous.RESEND)
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
    assert desk.codes() == {1: 515}
    desk.balance()


def test_a_passing_error_is_not_repeated_before_a_held_back_candidate() -> None:
    """The candidate may be stored already and cannot follow it."""
    desk = Desk.of(user("a"), user("a"), user("a"), policy=OnAmbiguous.HOLD)
    words = iter(["No.Skipped record number : 1", "No."])
    desk.answer({0: 555, 2: 515}, lambda place: next(words))
    assert desk.settlement.piece is None
    assert desk.codes() == {0: 555, 1: None, 2: None}
