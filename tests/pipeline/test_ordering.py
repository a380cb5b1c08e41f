"""No batch overtakes an earlier one of the same user, and none waits for ever."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ctbatch.models import Names
from ctbatch.pipeline.ordering import OrderGuard


def test_batches_without_a_common_identity_are_clear_at_once() -> None:
    """A file without repeats is never held up."""
    guard = OrderGuard()
    assert [guard.announce(n, Names([f"a{n}", f"b{n}"])) for n in range(4)] == [[0], [1], [2], [3]]


def test_a_batch_waits_for_the_earlier_one_of_its_user() -> None:
    """It becomes clear when that is released, not before."""
    guard = OrderGuard()
    assert guard.announce(0, Names(["a", "b"])) == [0]
    assert guard.announce(1, Names(["b", "c"])) == []
    assert guard.announce(2, Names(["d"])) == [2]
    assert guard.release(2) == []
    assert guard.release(0) == [1]


def test_batches_of_one_user_go_one_by_one_in_order() -> None:
    """A chain is released link by link."""
    guard = OrderGuard()
    assert guard.announce(0, Names(["a"])) == [0]
    assert [guard.announce(n, Names(["a"])) for n in (1, 2, 3)] == [[], [], []]
    assert [guard.release(n) for n in (0, 1, 2, 3)] == [[1], [2], [3], []]


def test_batches_of_other_users_go_on_while_one_waits() -> None:
    """Waiting for one user holds up only whoever shares a user with the waiter."""
    guard = OrderGuard()
    guard.announce(0, Names(["a"]))
    assert guard.announce(1, Names(["a", "b"])) == []
    assert guard.announce(2, Names(["b"])) == []
    assert guard.announce(3, Names(["c"])) == [3]
    assert guard.release(0) == [1]
    assert guard.release(1) == [2]


def test_an_heir_holds_what_it_shares_with_whoever_comes_later() -> None:
    """Its identities are not given away with those of the batch that it waited for."""
    guard = OrderGuard()
    assert guard.announce(0, Names(["a", "x"])) == [0]
    assert guard.announce(1, Names(["b", "x"])) == []
    assert guard.release(0) == [1]
    assert guard.announce(2, Names(["c", "x"])) == []
    assert guard.release(1) == [2]


def test_one_release_may_clear_several_in_input_order() -> None:
    """Everybody whose last obstacle is gone is named, the lowest number first."""
    guard = OrderGuard()
    names = [f"n{n}" for n in range(20)]
    guard.announce(0, Names(names))
    for n, name in enumerate(names, 1):
        assert guard.announce(n, Names([name])) == []
    assert guard.release(0) == list(range(1, 21))


def test_announcements_out_of_order_wait_for_the_missing_one() -> None:
    """Batches are sealed in any order; nobody is clear before all earlier ones are known."""
    guard = OrderGuard()
    assert guard.announce(2, Names(["a"])) == []
    assert guard.announce(1, Names(["b"])) == []
    assert guard.announce(0, Names(["b"])) == [0, 2]
    assert guard.release(0) == [1]


def test_repeats_within_a_batch_do_no_harm() -> None:
    """A batch does not wait for itself."""
    guard = OrderGuard()
    assert guard.announce(0, Names(["a", "a", "a"])) == [0]
    assert guard.announce(1, Names(["a", "a"])) == []
    assert guard.release(0) == [1]


def test_a_batch_with_nothing_to_send_holds_up_nobody() -> None:
    """It may be released without an announcement, before or after others are announced."""
    guard = OrderGuard()
    assert guard.announce(1, Names(["a"])) == []
    assert guard.release(0) == [1]
    assert guard.release(2) == []
    assert guard.announce(3, Names(["b"])) == [3]


def test_a_waiting_batch_that_is_released_lets_the_others_pass() -> None:
    """A batch given up while it waits no longer stands between the one before and the one after."""
    guard = OrderGuard()
    guard.announce(0, Names(["a"]))
    guard.announce(1, Names(["a", "b"]))
    assert guard.announce(2, Names(["b"])) == []
    assert guard.announce(3, Names(["a"])) == []
    assert guard.release(1) == [2]
    assert repr(guard) == "<OrderGuard: 3 unfinished, 1 of them waiting>"
    assert guard.release(0) == [3]


def test_a_batch_released_before_its_turn_to_be_taken_in_is_forgotten() -> None:
    """Announced early and given up: its identities are free."""
    guard = OrderGuard()
    assert guard.announce(1, Names(["a"])) == []
    assert guard.release(1) == []
    assert guard.announce(2, Names(["a"])) == []
    assert guard.announce(0, Names(["a"])) == [0]
    assert guard.release(0) == [2]


@pytest.mark.parametrize("names", [[], ["b"], ["b", "a", "c"], [f"é\n{n}" for n in range(30)]])
def test_names_come_out_of_a_package_as_they_went_in(names: list[str]) -> None:
    """Also where nobody looked at them in between, and they are packed again."""
    packed = Names.unpack(*Names(names).pack())
    again = Names.unpack(*packed.pack())
    assert list(again) == list(packed) == names
    assert again == packed == Names(names)
    assert again.stretch == ((min(names), max(names)) if names else None)
    assert Names.unpack(*again.pack()).pack() == again.pack()


def test_batches_that_lie_between_one_another_are_told_apart_by_name() -> None:
    """That stretches meet says nothing yet."""
    guard = OrderGuard()
    assert guard.announce(0, Names(["a", "e"])) == [0]
    assert guard.announce(1, Names(["b", "d"])) == [1]
    assert guard.announce(2, Names(["f", "g"])) == [2]
    assert guard.announce(3, Names(["c", "e", "g"])) == []
    assert guard.release(2) == []
    assert guard.release(0) == [3]


def test_a_stretch_is_that_of_all_identities_not_of_a_sample() -> None:
    """One that is out of order, where nobody looks first, counts as well."""
    guard = OrderGuard()
    names = [f"n{n:03}" for n in range(200)]
    names[101], names[103] = "a", "z"
    assert guard.announce(0, Names(names)) == [0]
    assert guard.announce(1, Names(["a"])) == []
    assert guard.announce(2, Names(["z"])) == []
    assert guard.release(0) == [1, 2]


def test_a_mistake_is_said_and_not_obeyed() -> None:
    """Announcing or releasing twice is a bug of the caller's that must not pass unseen."""
    guard = OrderGuard()
    guard.announce(0, Names(["a"]))
    guard.announce(2, Names(["a"]))
    for seq in (0, 2):
        with pytest.raises(ValueError, match=f"batch {seq} was announced"):
            guard.announce(seq, Names([]))
    for seq in (0, 2):
        guard.release(seq)
        with pytest.raises(ValueError, match=f"batch {seq} was released"):
            guard.release(seq)


def test_identities_are_never_shown() -> None:
    """Identities are personal data: a ``repr`` counts, an error names numbers."""
    guard = OrderGuard()
    guard.announce(0, Names(["identity:secret"]))
    guard.announce(1, Names(["identity:secret"]))
    assert repr(guard) == "<OrderGuard: 2 unfinished, 1 of them waiting>"
    assert "secret" not in repr(Names(["identity:secret"]))


def test_what_is_finished_is_forgotten() -> None:
    """Memory is that of the unfinished batches, however long the run."""
    guard = OrderGuard()
    for n in range(300):
        guard.announce(n, Names([f"n{n}", f"m{n // 3}", "everybody"]))
        if n >= 5:
            guard.release(n - 5)
    assert len(guard) == 5
    for n in range(295, 300):
        guard.release(n)
    assert len(guard) == 0
    assert not any(vars(guard)[name] for name in vars(guard) if name != "_next")


@st.composite
def stretches(draw: st.DrawFn) -> list[str]:
    """Identities that ascend, some of them exchanged for others."""
    first, count = draw(st.integers(0, 40)), draw(st.integers(0, 25))
    names = [f"{n:02}" for n in range(first, first + count)]
    for at in draw(st.lists(st.integers(0, 24), max_size=2)):
        if at < count:
            names[at] = f"{draw(st.integers(0, 65)):02}"
    return names


NAMES = st.lists(st.sampled_from("abcdefghij"), max_size=5) | stretches()


class Overtaking(RuleBasedStateMachine):
    """The guard against a model that compares everybody with everybody."""

    def __init__(self) -> None:
        super().__init__()
        self.guard = OrderGuard()
        self.announced: dict[int, frozenset[str]] = {}
        self.finished: set[int] = set()
        self.clear: set[int] = set()

    def _expected(self) -> set[int]:
        """Who is clear by the definition."""
        known = 0
        while known in self.announced or known in self.finished:
            known += 1
        unfinished = {
            seq: names
            for seq, names in self.announced.items()
            if seq not in self.finished and seq < known
        }
        return {
            seq
            for seq, names in unfinished.items()
            if not any(names & other for before, other in unfinished.items() if before < seq)
        }

    def _became(self, seqs: list[int]) -> None:
        assert seqs == sorted(seqs)
        assert not self.clear & set(seqs), "said to be clear twice"
        self.clear.update(seqs)

    @rule(gap=st.integers(0, 4), names=NAMES)
    def announce(self, gap: int, names: list[str]) -> None:
        """Some batch, a few ahead of those known, has been sealed."""
        unknown = (n for n in range(10_000) if n not in self.announced and n not in self.finished)
        seq = [next(unknown) for _ in range(gap + 1)][-1]
        self.announced[seq] = frozenset(names)
        self._became(self.guard.announce(seq, Names(names)))

    @rule(gap=st.integers(0, 4))
    def skip(self, gap: int) -> None:
        """Some batch has nothing to send."""
        unknown = (n for n in range(10_000) if n not in self.announced and n not in self.finished)
        seq = [next(unknown) for _ in range(gap + 1)][-1]
        self.finished.add(seq)
        self._became(self.guard.release(seq))

    @precondition(lambda self: self.clear - self.finished)
    @rule(pick=st.integers(0, 100))
    def finish(self, pick: int) -> None:
        """Some batch that was on the wire is finished."""
        on_wire = sorted(self.clear - self.finished)
        self._release(on_wire[pick % len(on_wire)])

    @precondition(lambda self: set(self.announced) - self.finished)
    @rule(pick=st.integers(0, 100))
    def give_up(self, pick: int) -> None:
        """Some batch is released, whether it was clear or not."""
        unfinished = sorted(set(self.announced) - self.finished)
        self._release(unfinished[pick % len(unfinished)])

    def _release(self, seq: int) -> None:
        self.finished.add(seq)
        self._became(self.guard.release(seq))

    @invariant()
    def exactly_those_are_clear_that_should_be(self) -> None:
        """Nobody overtakes, and nobody waits without a reason; so the first never waits."""
        assert self.clear - self.finished == self._expected()
        assert len(self.guard) == len(set(self.announced) - self.finished)


Overtaking.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestOvertaking = Overtaking.TestCase


@settings(max_examples=60)
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=4), max_size=25), st.randoms())
def test_every_batch_gets_its_turn(batches: list[list[str]], rng: Random) -> None:
    """Whatever order they are announced in, finishing who is clear finishes everybody."""
    guard, clear, done = OrderGuard(), [], []
    order = list(range(len(batches)))
    rng.shuffle(order)
    for seq in order:
        clear += guard.announce(seq, Names(batches[seq]))
    while clear:
        seq = clear.pop(0)
        done.append(seq)
        clear += guard.release(seq)
    assert sorted(done) == list(range(len(batches)))
    for name in "abcdef":
        of_one_user = [seq for seq in done if name in batches[seq]]
        assert of_one_user == sorted(of_one_user)
