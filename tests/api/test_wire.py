"""What a reply means, by the design's reply table; the wordings are recorded ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctbatch.api.wire import Entry, Meaning, headers, identity_of, judge, map_entries
from ctbatch.api.words import clean_words

FAIL = {"status": "fail", "error": "no", "code": 400}


def _refusal(number: int | None, *, code: int = 515, identity: Any = None) -> dict[str, Any]:
    words = "Profile data is incorrect. Email is not valid."
    if number is not None:
        words += f"Skipped record number : {number}"
    entry: dict[str, Any] = {"status": "fail", "code": code, "error": words}
    if identity is not None:
        entry["record"] = {"type": "profile", "identity": identity}
    return entry


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (302, Meaning.FATAL),
        (400, Meaning.REFUSED),
        (401, Meaning.FATAL),
        (403, Meaning.FATAL),
        (404, Meaning.FATAL),
        (405, Meaning.FATAL),
        (407, Meaning.FATAL),
        (408, Meaning.AMBIGUOUS),
        (413, Meaning.TOO_LARGE),
        (415, Meaning.FATAL),
        (422, Meaning.REFUSED),
        (429, Meaning.THROTTLED),
        (500, Meaning.AMBIGUOUS),
        (502, Meaning.AMBIGUOUS),
        (503, Meaning.AMBIGUOUS),
        (504, Meaning.AMBIGUOUS),
        (520, Meaning.AMBIGUOUS),
        (599, Meaning.AMBIGUOUS),
    ],
)
def test_a_status_has_one_meaning(status: int, meaning: Meaning) -> None:
    """Each row of the table, for a body that says nothing."""
    assert judge(status, opened=False, body=None, records=3).meaning is meaning


def test_503_is_throttling_only_if_the_service_itself_says_so() -> None:
    """A gateway's 503 may come after the batch was stored; the vendor's own, or one that asks to
    come back later, did not.
    """
    vendor = {"status": "fail", "error": "unavailable", "code": 503}
    assert judge(503, opened=False, body=vendor, records=1).meaning is Meaning.THROTTLED
    later = judge(503, opened=False, body=None, records=1, retry_after="7")
    assert (later.meaning, later.retry_after) == (Meaning.THROTTLED, "7")


@pytest.mark.parametrize(
    "body",
    [
        {"status": "success", "processed": 2, "unprocessed": []},
        {"status": "success", "processed": 2},
        {"status": "partial", "processed": 1, "unprocessed": [_refusal(2)]},
        {"status": "fail", "processed": 0, "unprocessed": [_refusal(1), _refusal(2)]},
        {"status": "fail", "unprocessed": [_refusal(1), _refusal(2)]},
    ],
)
def test_counts_that_add_up_are_believed(body: dict[str, Any]) -> None:
    """``processed`` and the entries of ``unprocessed`` together are what was sent."""
    assert judge(200, opened=True, body=body, records=2).meaning is Meaning.BELIEVED


@pytest.mark.parametrize(
    "body",
    [
        {"status": "success", "processed": 1, "unprocessed": []},
        {"status": "success", "processed": 3, "unprocessed": []},
        {"status": "success", "processed": -1, "unprocessed": [1, 2, 3]},
        {"status": "success", "processed": 2.0, "unprocessed": []},
        {"status": "success", "processed": True, "unprocessed": [1]},
        {"status": "success", "processed": 2, "unprocessed": {}},
        {"status": "fail", "processed": 0, "unprocessed": []},
        {"status": "success"},
        [],
        "success",
        2,
        None,
    ],
)
def test_counts_that_do_not_add_up_are_never_believed(body: object) -> None:
    """Whatever else a 2xx says, nothing is known of the batch."""
    assert judge(200, opened=True, body=body, records=2).meaning is Meaning.AMBIGUOUS


def test_a_reply_that_does_not_open_is_not_believed() -> None:
    """Not even if it holds, in plaintext, exactly what would be hoped for."""
    body = {"status": "success", "processed": 2, "unprocessed": []}
    assert judge(200, opened=False, body=body, records=2).meaning is Meaning.UNOPENED


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (401, Meaning.FATAL),
        (429, Meaning.THROTTLED),
        (503, Meaning.THROTTLED),
        (500, Meaning.AMBIGUOUS),
        (555, Meaning.AMBIGUOUS),
        (413, Meaning.TOO_LARGE),
        (400, Meaning.REFUSED),
        (509, Meaning.REFUSED),
        (2, Meaning.REFUSED),
        (4002, Meaning.REFUSED),
        (None, Meaning.REFUSED),
        ("400", Meaning.REFUSED),
        ("429", Meaning.THROTTLED),
        ("429th", Meaning.REFUSED),
        (429.0, Meaning.REFUSED),
    ],
)
def test_a_failure_with_200_is_judged_by_its_code(code: object, meaning: Meaning) -> None:
    """HTTP 200 with ``status: fail`` and no counts stands for the status that its code is."""
    body = {"status": "fail", "error": "no", "code": code}
    assert judge(200, opened=True, body=body, records=1).meaning is meaning


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
odd_keys = st.sampled_from(["status", "processed", "unprocessed", "code", "error", "record"])


@given(
    st.integers(100, 999),
    st.booleans(),
    json_values | st.dictionaries(odd_keys, json_values),
    st.integers(1, 4),
)
def test_no_reply_is_too_strange(status: int, opened: bool, body: object, records: int) -> None:
    """Any JSON at all gets one meaning, and a believed one adds up and maps."""
    verdict = judge(status, opened=opened, body=body, records=records)
    if verdict.meaning is Meaning.BELIEVED:
        names = [frozenset({f"identity:{n}"}) for n in range(records)]
        mapped = map_entries(verdict.entries, names, ["p"] * records)
        assert len(mapped.refused) + len(mapped.unresolved) == len(verdict.entries)
        assert set(mapped.refused).isdisjoint(mapped.candidates)


NAMES = [frozenset({f"identity:u{n}"}) for n in range(1, 6)]
TYPES = ["p"] * 5


def _entries(*raw: object) -> tuple[Entry, ...]:
    records = len(raw)
    body = {"processed": 5 - records, "unprocessed": list(raw)}
    return judge(200, opened=True, body=body, records=5).entries


@pytest.mark.parametrize(
    "words",
    [
        "Profile data is incorrect. Email is not valid.Skipped record number : 4",
        "Timestamp should be present in the Unix Epoch format. Skipped record number : 4",
        "Education needs to be School/College/Graduate..Skipped record number : 4",
        "Event Name is incorrect. ErrorCode: 509 - Event name is mandatory. "
        "Skipped record number : 4",
        "x Skipped record number:4",
    ],
)
def test_recorded_wordings_name_the_record(words: str) -> None:
    """The number is 1-based, with or without a blank before the sentence."""
    mapped = map_entries(_entries({"code": 515, "error": words}), NAMES, TYPES)
    assert set(mapped.refused) == {3}


def test_an_altered_echo_still_fits() -> None:
    """The service echoes a phone as a number, an identity as a string: only names and type
    count.
    """
    echo = {"type": "profile", "identity": "u2", "profileData": {"Phone": 35922333232}}
    entry = _refusal(2) | {"record": echo}
    assert set(map_entries(_entries(entry), NAMES, TYPES).refused) == {1}
    assert identity_of("identity", 123) == identity_of("identity", "123")


@pytest.mark.parametrize("number", [None, 0, 6, 9999999])
def test_an_unusable_number_is_replaced_by_the_identity(number: int | None) -> None:
    """Where the identity is unique in the batch, the record is known all the same."""
    mapped = map_entries(_entries(_refusal(number, identity="u3")), NAMES, TYPES)
    assert set(mapped.refused) == {2}


def test_a_number_at_odds_with_the_echo_is_not_used() -> None:
    """The number says 1, the echo is of record 5: the echo is what was looked at."""
    mapped = map_entries(_entries(_refusal(1, identity="u5")), NAMES, TYPES)
    assert set(mapped.refused) == {4}


def test_repeated_numbers_are_not_used() -> None:
    """Two entries claim one record: neither is believed by its number."""
    mapped = map_entries(
        _entries(_refusal(2, identity="u2"), _refusal(2, identity="u4")), NAMES, TYPES
    )
    assert set(mapped.refused) == {1, 3}
    lost = map_entries(_entries(_refusal(2), _refusal(2)), NAMES, TYPES)
    assert lost.candidates == frozenset(range(5))
    assert len(lost.unresolved) == 2


def test_an_identity_that_repeats_narrows_the_candidates() -> None:
    """One of the two records of that user was refused; the others were not."""
    names = [frozenset({"identity:a"}), frozenset({"identity:b"}), frozenset({"identity:a"})]
    entry = _refusal(None, identity="a")
    verdict = judge(200, opened=True, body={"processed": 2, "unprocessed": [entry]}, records=3)
    mapped = map_entries(verdict.entries, names, ["p"] * 3)
    assert mapped.candidates == {0, 2}


def test_all_candidates_refused_is_certain() -> None:
    """As many refusals as there are candidates leave no doubt."""
    mapped = map_entries(_entries(*[_refusal(None)] * 5), NAMES, TYPES)
    assert set(mapped.refused) == set(range(5))
    assert not mapped.candidates


def test_words_lose_what_could_be_personal() -> None:
    """Values of the record, addresses, long numbers and the record number are cut; 200 bytes
    stay.
    """
    record = {"identity": "kim-77", "profileData": {"Name": "Kim Lee", "Tags": ["blue whale"]}}
    words = (
        "bad: Kim Lee kim@x.example +1 415 555-0123 blue whale kim-77. Skipped record number : 3"
    )
    cleaned = clean_words(words, record)
    for part in ("Kim", "@", "415", "whale", "77", "Skipped"):
        assert part not in cleaned
    assert len(clean_words("ä" * 500).encode()) <= 200
    assert clean_words("a\x1b[31m\nb") == "a [31m b"


def test_headers_are_the_documented_ones() -> None:
    """Both HPKE headers with a body; a GET names JSON and asks for a sealed reply."""
    post = headers("ACC", "pw", sealed=True, body=True)
    assert post["Content-Type"] == post["Accept"] == "application/octet-stream+hpke"
    assert (post["X-CleverTap-Account-Id"], post["X-CleverTap-Passcode"]) == ("ACC", "pw")
    get = headers("ACC", "pw", sealed=True, body=False)
    assert get["Content-Type"] == "application/json"
    assert get["Accept"] == "application/octet-stream+hpke"
    plain = headers("ACC", "pw", sealed=False, body=True)
    assert plain["Content-Type"] == plain["Accept"] == "application/json"
