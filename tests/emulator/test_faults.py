"""Faults strike as their rules say, the same under the same seed."""

from __future__ import annotations

import pytest

from ctbatch.emulator.faults import FAULTS, Fault, Plan
from ctbatch.errors import SettingsError


def struck(text: str, requests: int, seed: int = 0) -> list[int]:
    """The numbers of the requests that a fault meets."""
    plan = Plan([text], seed=seed)
    return [n for n in range(1, requests + 1) if plan.draw()]


@pytest.mark.parametrize(
    ("rule", "numbers"),
    [
        ("500=every-3", [3, 6]),
        ("500=first-2", [1, 2]),
        ("500=after-4", [5, 6]),
        ("500=only-2", [2]),
        ("500=0", []),
        ("500=1", [1, 2, 3, 4, 5, 6]),
        ("500", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_rules_pick_requests(rule: str, numbers: list[int]) -> None:
    """Each form of a rule picks the requests it names."""
    assert struck(rule, 6) == numbers


def test_a_share_is_about_right_and_the_same_for_a_seed() -> None:
    """A probability holds over many requests, and a seed fixes which ones."""
    assert 80 <= len(struck("429=0.1", 1000)) <= 120
    assert struck("429=0.1", 200, seed=7) == struck("429=0.1", 200, seed=7)
    assert struck("429=0.1", 200, seed=7) != struck("429=0.1", 200, seed=8)


@pytest.mark.parametrize(
    "text", ["nonsense", "500=2", "500=-1", "500=every-0", "500=every-x", "500=nan", "500=x"]
)
def test_a_wrong_fault_says_what_can_be_written(text: str) -> None:
    """A typo is answered with the names or the forms."""
    with pytest.raises(SettingsError, match=r"reset-stored|every-N"):
        Fault.parse(text)


def test_every_fault_says_what_it_does() -> None:
    """The table is what ``--help`` and the documentation show."""
    assert all(words for _, words in FAULTS.values())


def test_a_transient_record_passes_after_its_failures() -> None:
    """Code 555 comes so many times for a record, then no more."""
    plan = Plan(["555=first-1"], transient_times=2)
    assert [plan.is_transient(b"a") for _ in range(3)] == [True, True, False]
    assert not plan.is_transient(b"b")
    assert not Plan().is_transient(b"a")
