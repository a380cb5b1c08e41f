"""A batch refused as a whole is searched for the culprit, who is blamed only with evidence."""

from __future__ import annotations

import math

import pytest

from ctbatch.models import State
from ctbatch.pipeline.settlement import MIN_ALONE
from tests.pipeline.settling import Desk, user, users

PROCESSED, UNPROCESSED, UNKNOWN = State.PROCESSED, State.UNPROCESSED, State.UNKNOWN


def test_a_refused_batch_has_one_more_try() -> None:
    """The vendor's own tool takes a 400 for possibly transient."""
    desk = Desk.of(*users(4))
    assert not desk.refuse()
    assert desk.next() == (0, 1, 2, 3)
    assert not desk.settlement.isolating
    desk.answer()
    assert set(desk.states()) == {PROCESSED}


def test_a_batch_refused_twice_is_halved_and_speaks_against_the_service() -> None:
    """Halves go one after the other; a further half does not count as another batch."""
    desk = Desk.of(*users(4))
    desk.refuse()
    assert desk.refuse()
    assert desk.settlement.isolating
    assert desk.settlement.piece is not None
    assert desk.settlement.piece.tries == 0, "a half is no repetition"
    assert desk.next() == (0, 1)
    assert not desk.refuse()
    assert desk.next() == (0,)
    assert desk.refuse()


@pytest.mark.parametrize("count", [2, 3, 7, 64, 1000])
@pytest.mark.parametrize("place", [0.0, 0.4, 0.999])
def test_a_culprit_costs_about_two_requests_a_halving(count: int, place: float) -> None:
    """Wherever it stands; everybody else is processed, once."""
    culprit = int(place * count)
    desk = Desk.of(*users(count))
    desk.serve(desk.poisoned_by(culprit))
    assert desk.codes() == {culprit: 400}
    assert desk.settlement.counts.processed == count - 1
    assert desk.requests <= 2 * math.ceil(math.log2(count)) + 2 + MIN_ALONE
    assert all(len(times) == 1 for times in desk.stored.values())


def test_several_culprits_are_each_found() -> None:
    """Neighbours, and those at both ends, share what they can."""
    culprits = (0, 1, 250, 600, 999)
    desk = Desk.of(*users(1000))
    desk.serve(desk.poisoned_by(*culprits))
    assert desk.codes() == dict.fromkeys(culprits, 400)
    assert desk.requests <= len(culprits) * (2 * 10 + 2 + MIN_ALONE)


def test_nobody_is_blamed_without_evidence() -> None:
    """While nothing at all is accepted, even a single record is only put off."""
    desk = Desk.of(*users(2))
    for _ in range(50):
        desk.refuse()
    assert desk.settlement.pending == {0, 1}
    desk.accepted += 1  # another batch
    desk.serve(desk.poisoned_by(1))
    assert desk.codes() == {1: 400}


def test_a_passing_refusal_of_a_record_alone_blames_nobody() -> None:
    """It has other tries, as a batch has."""
    desk = Desk.of(*users(4))
    desk.refuse()
    desk.refuse()
    desk.refuse()
    assert desk.next() == (0,)
    desk.accepted += 1
    for _ in range(MIN_ALONE - 1):
        assert not desk.refuse()
        assert desk.next() == (0,)
    desk.serve(Desk.answer)
    assert desk.states() == [PROCESSED] * 4


def test_what_was_accepted_before_is_no_evidence() -> None:
    """Keys may have been rotated since."""
    desk = Desk.of(user("a"))
    desk.accepted = 1000
    for _ in range(5):
        desk.refuse()
    assert desk.settlement.pending == {0}


def test_being_accepted_oneself_is_no_evidence_against_oneself() -> None:
    """A request with the record in it was accepted (code 555): what is refused later is new."""
    desk = Desk.of(*users(2))
    desk.refuse()
    desk.answer({0: 555})
    assert desk.next() == (0,)
    assert not desk.refuse()
    assert desk.refuse()
    assert desk.settlement.pending == {0}
    desk.accepted += 1
    desk.refuse()
    assert desk.codes() == {0: 400}


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
    assert desk.codes() == {0: 400}
    assert desk.next() == (1,)
    assert not desk.refuse()
    for _ in range(2 * MIN_ALONE):
        desk.refuse()
    assert desk.settlement.pending == {1}, "nothing was accepted since it was refused itself"


def test_the_canary_is_probed_by_three_records() -> None:
    """The first, a middle and the last, each alone; then the rest, in order."""
    desk = Desk.of(*users(9))
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
    desk = Desk.of(*users(9))
    for refusals in range(5):
        assert not desk.settlement.hopeless, refusals
        desk.refuse(canary=True)
    assert desk.settlement.hopeless
    assert len(desk.settlement.pending) == 9


@pytest.mark.parametrize("accepted", [0, 1, 2])
def test_one_probe_accepted_gives_hope(accepted: int) -> None:
    """The service is well: the batch is isolated as any other."""
    desk = Desk.of(*users(9))
    desk.refuse(canary=True)
    desk.refuse(canary=True)
    for probe in range(3):
        if probe == accepted:
            desk.answer()
        else:
            desk.refuse(canary=not desk.accepted)
    assert not desk.settlement.hopeless
    desk.serve(desk.poisoned_by(4))
    assert UNPROCESSED in desk.states()
    desk.balance()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_small_canary_has_as_many_probes_as_records(count: int) -> None:
    """A one-line file that is refused stops after three requests."""
    desk = Desk.of(*users(count))
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
    desk = Desk.of(*users(4))

    def step(desk: Desk) -> None:
        if 2 in desk.next():
            desk.too_large()
        else:
            desk.answer()

    desk.serve(step)
    assert desk.codes() == {2: 413}
    assert "too large" in desk.refusals[0][0].error
    assert not desk.settlement.isolating
