"""Records are refused with the documented codes and the recorded words."""

from __future__ import annotations

from typing import Any

import pytest

from ctbatch.emulator.verdicts import Rules, code_of, echo_of, words

RULES = Rules(max_event_properties=2, discarded_events=frozenset({"Gone"}))


def profile(**data: Any) -> dict[str, Any]:
    """A profile with these fields."""
    return {"type": "profile", "identity": "u1", "profileData": data}


def event(name: object = "Bought", **more: Any) -> dict[str, Any]:
    """An event with this name."""
    return {"type": "event", "identity": "u1", "evtName": name, **more}


def token(**data: Any) -> dict[str, Any]:
    """A device token with this data."""
    return {"type": "token", "objectId": "__1", "tokenData": data}


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (profile(Email="a@b.c", Phone="+14155551235", Gender="M", Age="18"), None),
        (profile(Employed="Y", Married="N", Education="College", Age=18), None),
        (profile(Email={"$delete": 1}), None),
        (profile(Email="$$$$$", Phone="223"), 515),
        (profile(Phone="+44+441234"), 516),
        (profile(Phone=223), 516),
        (profile(Gender="X"), 514),
        (profile(Employed="yes"), 517),
        (profile(Education="Kindergarten"), 518),
        (profile(Married=1), 519),
        (profile(Age="aa"), 520),
        (profile(Age=True), 520),
        ({"type": "profile", "identity": "u1"}, 524),
        ({"type": "profile", "profileData": {}}, 523),
        ({"type": "profile", "identity": "", "profileData": {}}, 523),
        ({"type": "profile", "identity": "x" * 1025, "profileData": {}}, 523),
        ({"type": "profile", "objectId": [], "profileData": {}}, 526),
        ({**profile(), "ts": 0}, 525),
        ({**profile(), "ts": 1_700_000_000_000}, 525),
        ({**profile(), "ts": "2024-01-01"}, 525),
        ({**profile(Email="x"), "ts": 0}, 525),
        ({"identity": "u1"}, 524),
        ("text", 524),
        (event(), None),
        (event(None), 509),
        (event("App Launched"), 513),
        (event("Gone"), 528),
        (event(evtData=[]), 512),
        (event(evtData={"a": 1, "b": 2, "c": 3}), 522),
        (token(id="1", type="fcm"), None),
        ({"type": "token"}, 530),
        ({"type": "token", "objectId": "__1"}, 531),
        (token(), 532),
        (token(id="1"), 533),
        (token(id="1", type="pigeon"), 534),
    ],
)
def test_the_first_failing_check_gives_the_code(record: object, code: int | None) -> None:
    """One code per record: the documented one for what is wrong with it."""
    assert code_of(record, RULES) == code


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (515, "Profile data is incorrect. Email is not valid.Skipped record number : 2"),
        (
            518,
            "Profile data is incorrect. Education needs to be School/College/Graduate.."
            "Skipped record number : 2",
        ),
        (
            525,
            "Timestamp should be present in the Unix Epoch format. Skipped record number : 2",
        ),
        (
            509,
            "Event Name is incorrect. ErrorCode: 509 - Event name is mandatory. "
            "Skipped record number : 2",
        ),
    ],
)
def test_words_are_the_recorded_ones(code: int, text: str) -> None:
    """The text ends with a 1-based number, with or without a blank before it, as recorded."""
    assert words(code, 2) == text


def test_a_text_can_lack_its_number() -> None:
    """For the fault that a client has to cope with."""
    assert words(515, None) == "Profile data is incorrect. Email is not valid."


def test_the_echo_is_not_what_was_sent() -> None:
    """Phone comes back as a number once it has passed; an identity inside as a string."""
    sent = profile(Phone="+35922333232", Age="aa", identity=5)
    echo = echo_of(sent, 520)
    assert isinstance(echo, dict)
    assert echo["profileData"] == {"Phone": 35922333232, "Age": "aa", "identity": "5"}
    assert sent["profileData"]["Phone"] == "+35922333232"
    assert echo_of(profile(Phone="223"), 516) == profile(Phone="223")
    assert echo_of("text", 524) == "text"
