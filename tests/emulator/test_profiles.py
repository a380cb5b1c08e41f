"""Accepted records merge into users as the vendor's pages say."""

from __future__ import annotations

from typing import Any

import pytest

from ctbatch.emulator.profiles import Profiles, merge, stamp


@pytest.mark.parametrize(
    ("old", "change", "new"),
    [
        (None, 1, 1),
        (1, 2, 2),
        (1, {"$incr": 2}, 3),
        (None, {"$incr": 2}, 2),
        (1, {"$incr": "2"}, 1),
        (1, {"$decr": None}, 1),
        ("a", {"$incr": 2}, 2),
        ([{"b": 1}], {"$add": [["c"], {"b": 1}]}, ["{'b': 1}", "['c']"]),
        (5, {"$decr": 2}, 3),
        (1, {"$delete": 1}, None),
        (None, {"$add": ["a", "a"]}, ["a"]),
        (1, {"$add": ["a"]}, ["1", "a"]),
        (["a"], {"$add": ["b", "a"]}, ["a", "b"]),
        (["a", "b"], {"$remove": ["a"]}, ["b"]),
        (["a"], {"$remove": ["a"]}, None),
        (["a"], {"$set": ["b"]}, ["b"]),
        (None, {"$other": 1}, {"$other": 1}),
        (None, {"nested": {"a": 1}}, {"nested": {"a": 1}}),
    ],
)
def test_a_change_is_merged(old: Any, change: Any, new: Any) -> None:
    """Plain values set; operators set, add, remove, count and delete."""
    data = {} if old is None else {"x": old}
    merge(data, {"x": change})
    assert data.get("x") == new


def test_a_multi_value_keeps_its_newest_hundred() -> None:
    """The oldest values go first."""
    data = {"x": [str(n) for n in range(100)]}
    merge(data, {"x": {"$add": ["new"]}})
    assert data["x"][0] == "1"
    assert data["x"][-1] == "new"


def test_users_are_found_by_every_identity() -> None:
    """Records that share an identity are one user; events count and are summed up."""
    users = Profiles()
    users.apply(
        [
            {
                "type": "profile",
                "identity": 7,
                "FBID": "f",
                "profileData": {"Name": "N", "Email": "a@b.c"},
            },
            {"type": "event", "FBID": "f", "evtName": "E", "ts": 50, "evtData": {"a": 1}},
            {"type": "event", "identity": "7", "evtName": "E"},
            {"type": "token", "objectId": "o", "tokenData": {}},
        ],
        at=100,
    )
    user = users.find("identity", "7")
    assert user is not None
    assert users.find("email", "a@b.c") is user
    assert users.find("objectId", user.object_id) is user
    shown = user.shown()
    assert shown["name"] == "N"
    assert shown["events"] == {"E": {"count": 2, "first_seen": 50, "last_seen": 100}}
    assert len(list(users)) == 2
    assert users.find("identity", "8") is None


def test_times_are_shown_as_digits() -> None:
    """An event's time is a number of the form yyyyMMddHHmmss."""
    assert stamp(0) == 19700101000000
