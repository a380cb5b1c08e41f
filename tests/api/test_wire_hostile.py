"""Recorded replies as vectors, and replies from a service that is broken, sloppy or hostile."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctbatch.api.wire import Entry, Mapped, Meaning, Verdict, judge, map_entries
from ctbatch.api.wire import identity_of as name_of
from ctbatch.api.words import clean_words

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "upload_replies.json").read_text()
)


def _judge(body: Any, *, records: int = 2, status: int = 200, **more: Any) -> Verdict:
    return judge(status, opened=True, body=body, records=records, **more)


def _names(*identities: str) -> list[frozenset[str]]:
    return [frozenset({f"identity:{identity}"}) for identity in identities]


def _only(raw: Any) -> Entry:
    return _judge({"unprocessed": [raw]}, records=1).entries[0]


def _entry(number: object = None, identity: str = "", kind: str = "") -> Entry:
    """An entry as the service's words and echo make it."""
    said = "Email is not valid." + ("" if number is None else f"Skipped record number : {number}")
    echo = {key: value for key, value in (("identity", identity), ("type", kind)) if value}
    return _only({"status": "fail", "code": 515, "error": said, "record": echo})


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_recorded_replies_mean_what_they_meant(vector: dict[str, Any]) -> None:
    """Every recorded wording is understood, and its refusals are found in what was sent."""
    sent = vector["sent"]
    body = orjson.loads(vector["text"])
    verdict = _judge(body, records=len(sent), status=vector["status"])
    assert (verdict.meaning, verdict.result) == (vector["meaning"], vector["result"])
    assert verdict.words == vector.get("words", "")
    mapped = map_entries(
        verdict.entries,
        _names(*(str(record["identity"]) for record in sent)),
        [record["type"][0] for record in sent],
    )
    assert not mapped.unresolved
    found = {str(index): entry.code for index, entry in mapped.refused.items()}
    assert found == vector["refused"]


@pytest.mark.parametrize("status", [0, 100, 103, 301, 304, 307, 402, 409, 410, 451, 499, 555])
def test_statuses_nobody_documents_have_a_row(status: int) -> None:
    """No redirect is followed, and no batch is blamed for what may be the service's trouble."""
    meaning = judge(status, opened=False, body=None, records=1).meaning
    assert meaning is (
        Meaning.FATAL if status < 400 else Meaning.REFUSED if status < 500 else Meaning.AMBIGUOUS
    )


@pytest.mark.parametrize(
    "body",
    [{"status": "success", "error": ""}, {"status": "fail"}, {"error": "x"}, ["fail"], "fail", 5],
)
def test_a_503_of_another_form_is_a_gateways(body: Any) -> None:
    """The batch may have been stored behind it."""
    assert _judge(body, status=503).meaning is Meaning.AMBIGUOUS


@pytest.mark.parametrize("code", [None, 0, "4O1", True, 401.0, [401], {}])
def test_a_failure_without_a_usable_code_is_as_400(code: Any) -> None:
    """A code of another type is none, and none is that of a request as a whole."""
    verdict = _judge({"status": "fail", "code": code, "error": ["no"]})
    assert (verdict.meaning, verdict.code, verdict.words) == (Meaning.REFUSED, 400, "")
    assert verdict.result == "200/fail"


def test_a_status_that_refuses_us_is_explained_by_itself() -> None:
    """Whatever code a gateway writes into its 403, the 403 is what the person is told of."""
    assert _judge({"code": 12, "error": "x"}, status=403).code == 403
    assert _judge({"code": 12, "error": "x"}, status=400).code == 12


@pytest.mark.parametrize(
    "body",
    [
        {"processed": 3, "unprocessed": [{}, {}]},
        {"processed": -1, "unprocessed": [{}, {}, {}]},
        {"processed": -(2**63), "unprocessed": []},
        {"processed": 2**64 - 1, "unprocessed": []},
        {"processed": False, "unprocessed": [{}, {}]},
        {"processed": "2", "unprocessed": []},
        {"processed": None, "unprocessed": []},
        {"processed": [2], "unprocessed": []},
        {"processed": 2, "unprocessed": None},
        {"processed": 1, "unprocessed": 1},
        {"processed": 1, "unprocessed": "x"},
        {"unprocessed": [{}]},
        {"unprocessed": []},
        {"status": "success", "code": 401, "error": "x"},
        {"status": "fail", "processed": 0, "code": 401, "error": "x"},
        {"status": ["fail"], "code": 401},
        {"Processed": 2},
        {},
        [{"processed": 2}],
        True,
    ],
)
def test_hostile_counts_are_not_believed(body: Any) -> None:
    """Negative, huge, boolean, missing and mistyped counts leave the outcome ambiguous."""
    assert _judge(body).meaning is Meaning.AMBIGUOUS


@pytest.mark.parametrize("raw", [None, 5, "x", [], {}, {"record": 5, "code": "515th", "error": 7}])
def test_an_entry_of_any_shape_is_an_entry(raw: Any) -> None:
    """It stands for a refused record even where it says nothing of it."""
    assert _only(raw) == Entry(None, None, "")


@pytest.mark.parametrize("value", [True, [], {}, "", None, 0.5, 1e22])
def test_an_echo_of_odd_types_names_nobody(value: Any) -> None:
    """Neither an identity nor a type is guessed from it, so the number alone decides."""
    entry = _only({"error": "Skipped record number : 1", "record": {"identity": value, "type": 5}})
    assert (entry.names, entry.type) == (frozenset(), None)
    assert map_entries([entry], _names("a", "b"), "pe").refused == {0: entry}


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("Age is invalid. skipped Record Number:7", 7),
        ("Skipped record number : 007", 7),
        ("Skipped record number : 12345678", None),
        ("Skipped record number : -7", None),
        ("Skipped record number : seven", None),
        ("Skipped record number : ٧", None),
        ("Skipped record number 7", None),
        ("Skipped record number : 1 and Skipped record number : 2", None),
        ("Age is invalid.", None),
        ("", None),
    ],
)
def test_the_number_is_read_only_where_it_is_plain(said: str, number: int | None) -> None:
    """One number, in ASCII digits, of a size that a batch can have."""
    assert _only({"error": said, "code": 520}).number == number


SENT = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("pe")), min_size=1, max_size=8)
ENTRIES = st.builds(
    _entry,
    st.none() | st.integers(-1, 9) | st.sampled_from([10**6, "x"]),
    st.sampled_from(["", "a", "b", "c", "stranger"]),
    st.sampled_from(["", "profile", "event", "Zebra"]),
)


@given(sent=SENT, data=st.data())
def test_every_refusal_is_mapped_or_left_open(
    sent: list[tuple[str, str]], data: st.DataObject
) -> None:
    """Of a liar's entries as many as came are refused or unresolved, with candidates to spare."""
    entries = data.draw(st.lists(ENTRIES, max_size=len(sent)))
    mapped = map_entries(entries, _names(*(name for name, _ in sent)), [kind for _, kind in sent])
    assert len(mapped.refused) + len(mapped.unresolved) == len(entries)
    assert mapped.candidates.isdisjoint(mapped.refused)
    assert mapped.candidates | mapped.refused.keys() <= set(range(len(sent)))
    assert len(mapped.candidates) > len(mapped.unresolved) or not mapped.unresolved


@given(sent=SENT, data=st.data())
def test_an_honest_service_is_never_misunderstood(
    sent: list[tuple[str, str]], data: st.DataObject
) -> None:
    """Whether or not it gives numbers and echoes: nobody else is blamed, no culprit let go."""
    culprits = data.draw(st.sets(st.integers(0, len(sent) - 1)))
    kinds = {"p": "profile", "e": "event"}
    entries = [
        _entry(
            data.draw(st.sampled_from([None, n + 1])),
            data.draw(st.sampled_from(["", sent[n][0]])),
            data.draw(st.sampled_from(["", kinds[sent[n][1]]])),
        )
        for n in sorted(culprits)
    ]
    mapped = map_entries(entries, _names(*(i for i, _ in sent)), [kind for _, kind in sent])
    assert mapped.refused.keys() <= culprits
    assert culprits <= mapped.refused.keys() | mapped.candidates


def test_a_number_of_another_type_is_not_used() -> None:
    """The profile was refused, not the event of the same user before it."""
    entry = _entry(1, "a", "profile")
    assert map_entries([entry], _names("a", "a"), "ep") == Mapped({1: entry})


def test_as_many_entries_as_records_of_a_user_name_them_all() -> None:
    """Two refusals of user a, who has two records: no search is needed."""
    entries = [_entry(None, "a"), _entry(None, "a"), _entry(None, "c")]
    mapped = map_entries(entries, _names("a", "b", "a", "c", "c"), "ppppp")
    assert mapped.refused == {0: entries[0], 2: entries[1]}
    assert mapped.candidates == {3, 4}


def test_an_echo_of_nothing_that_was_sent_may_stand_for_any() -> None:
    """Whoever is refused, all that are not known to be are searched."""
    known, stranger = _entry(2, "b"), _entry(None, "stranger")
    mapped = map_entries([stranger, known], _names("a", "b", "c"), "ppp")
    assert mapped == Mapped({1: known}, frozenset({0, 2}), (stranger,))


def test_words_go_to_the_record_they_fit() -> None:
    """Where all are refused, each entry goes to a record that its echo fits, not just to any."""
    b, a, stranger = _entry(None, "b"), _entry(None, "", "event"), _entry(None, "x")
    mapped = map_entries([stranger, b, a], _names("a", "b", "c"), "epp")
    assert mapped == Mapped({1: b, 0: a, 2: stranger})


def test_an_alias_is_as_good_as_an_identity() -> None:
    """A record with several identities is found by any; the import pages' spelling counts too."""
    entry = _only({"record": {"fbId": "f1", "identity": 10.5}})
    sent = [frozenset({"identity:a"}), frozenset({"identity:b", "FBID:f1"})]
    assert map_entries([entry], sent, "pp").refused == {1: entry}


def test_a_record_without_a_known_name_is_not_at_odds_with_its_echo() -> None:
    """What cannot be compared does not speak against the number."""
    entry = _entry(2, "b")
    assert map_entries([entry], [*_names("a"), frozenset()], "pp").refused == {1: entry}


def test_a_thousand_entries_without_numbers_are_mapped_at_once() -> None:
    """The work grows with the reply, not with its square: it is done on the event loop."""
    sent = _names(*(f"u{n}" for n in range(1000)))
    entries: Sequence[Entry] = [_entry(None, f"u{n}", "profile") for n in range(999)]
    mute = [_entry() for _ in range(999)]
    began = time.process_time()
    assert len(map_entries(entries, sent, "p" * 1000).refused) == 999
    assert len(map_entries(mute, sent, "p" * 1000).candidates) == 1000
    assert time.process_time() - began < 0.3  # the square takes seconds


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (123, "identity:123"),
        (123.0, "identity:123"),
        (1e22, None),
        (0.5, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
    ],
)
def test_a_number_names_a_user_only_if_no_digit_is_lost(value: Any, name: str | None) -> None:
    """As the checker has it: 123.0 is 123; what a parser rounds names nobody for certain."""
    assert name_of("identity", value) == name


RECORD = {
    "type": "event",
    "identity": 48151,
    "evtData": {"Name": "Ada Byron", "List": [{"x": "Möbius\tStrip"}], "ok": True, "Sex": "F"},
}


@pytest.mark.parametrize(
    ("words", "clean"),
    [
        ("Email is not valid.Skipped record number : 2", "Email is not valid."),
        ("Too many event properties. Skipped record number : 1", "Too many event properties."),
        ("Ada Byron is odd", "… is odd"),
        ("Ada  Byron, 48151, Möbius\tStrip", "…, …, …"),
        ("F needs to be M/F", "F needs to be M/F"),
        ("write to <ada@example.com>, or", "write to … or"),
        ("call +1 (555) 010-0199 now, code 515", "call … now, code 515"),
        ("call ٠١٢٣٤٥٦ now", "call … now"),
        ("a\x00b\x1b[31m\nc\u202e", "a b [31m c"),
        ("", ""),
    ],
)
def test_words_are_cleaned_to_the_letter(words: str, clean: str) -> None:
    """Values of the record, addresses, long numbers and control characters; nothing else."""
    assert clean_words(words, RECORD) == clean


def test_the_longest_value_is_cut_first() -> None:
    """What is a part of another value leaves no rest of it; equal ones go in one order."""
    assert clean_words("Ann Lee is bad", {"Name": "Ann Lee", "First": "Ann"}) == "… is bad"
    assert clean_words("abcd", ["bcd", "abc"]) == clean_words("abcd", ["abc", "bcd"]) == "…d"


def test_a_type_that_one_record_has_names_it() -> None:
    """The echo may hold no identity and still leave one choice."""
    event, mute = _entry(None, "", "event"), _entry()
    mapped = map_entries([mute, event], _names("a", "b", "c"), "pep")
    assert mapped == Mapped({1: event}, frozenset({0, 2}), (mute,))


def test_half_a_value_at_the_end_of_what_is_read_does_not_leak() -> None:
    """Half a value is not recognised, so the end goes altogether."""
    secret = "Confidential " * 30
    assert "Conf" not in clean_words(secret * 50, {"type": "profile", "Name": secret})
    assert "ada" not in clean_words(f"{' ' * 3990}x ada.byron@example.com")


@given(words=st.text(), values=st.lists(st.text(min_size=3), max_size=4))
def test_no_value_of_a_record_is_left(words: str, values: list[str]) -> None:
    """Wherever the service puts it, a value of the record is gone from its words."""
    clean = clean_words("|".join([words, *values]), {"profileData": values})
    assert len(clean.encode()) <= 200
    for value in values:
        shown = " ".join("".join(c if c.isprintable() else " " for c in value).split())
        if len(shown) > 2 and not any(w in shown for w in ("…", "profile", "event", "token")):
            assert shown not in clean


@pytest.mark.parametrize("filler", [" ", "x", "1", "1 ", "@", "(", "a@", "\x00"])
def test_hostile_words_take_no_time(filler: str) -> None:
    """No expression goes back over a long text again and again."""
    words = filler * 100_000
    began = time.process_time()
    clean_words(words, RECORD)
    _only({"error": f"Skipped record number{words}"})
    assert time.process_time() - began < 0.2


def test_neither_words_nor_identities_are_shown() -> None:
    """A ``repr`` may end in a log."""
    assert "Ada" not in repr(_judge({"status": "fail", "error": "Ada"}))
    assert "Ada" not in repr(_entry(1, "Ada"))
    assert "Email" not in repr(_entry(1, "Ada"))
