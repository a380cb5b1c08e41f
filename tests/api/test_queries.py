"""What is asked, what an answer means, and that a record's bytes are never rewritten."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctbatch.api.queries import (
    Lookup,
    Page,
    Sense,
    cursor_of,
    encode_query,
    event_query,
    hear,
    page_of,
    page_query,
    record_of,
)
from ctbatch.api.records import MAX_VALUES
from ctbatch.errors import SettingsError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def page(text: str | bytes, cursor: str = "c") -> Page | None:
    """The page in an answer that opened."""
    heard = hear(200, text.encode() if isinstance(text, str) else text, opened=True)
    return page_of(cursor, heard) if heard.sense is Sense.ANSWER else None


def test_a_record_keeps_every_byte() -> None:
    """20-digit numbers, spellings of numbers and escapes stay; a line break becomes a blank."""
    records = (
        rb'{"n":12345678901234567890,"x":1.10,"e":1E+2,"z":-0,"t":"\u00e9\/\ud800"}',
        b'{ "a" : [1,\r\n 2] }',
        '{"a":"é\u2028","records":[{}]}'.encode(),
    )
    text = b'{ "status":"success",\n"records" : [ %b ] , "next_cursor":"a%%2F\\/b" }' % (
        b" , ".join(records)
    )
    found = page(text)
    assert found is not None
    assert found.records == (records[0], b'{ "a" : [1,   2] }', records[2])
    assert found.next_cursor == "a%2F/b"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=4), st.booleans())
def test_any_records_come_back_as_they_were(records: list[dict[str, Any]], ascii_: bool) -> None:
    """Whatever JSON writes, the bytes of a record are a slice of the page."""
    written = [json.dumps(record, ensure_ascii=ascii_) for record in records]
    text = f'{{"status": "success", "records": [{", ".join(written)}]}}'
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return
    found = page(encoded)
    assert found is not None
    assert [record.decode() for record in found.records] == written


@pytest.mark.parametrize("value", [b"[]", b"{}", b"0", b'","'])
def test_an_answer_out_of_all_measure_is_not_parsed(value: bytes) -> None:
    """A few megabytes of the smallest values would be a few hundred when parsed."""
    text = b'{"status":"success","x":[' + b",".join([value] * (MAX_VALUES + 1)) + b"]}"
    tracemalloc.start()
    assert hear(200, text, opened=True).members is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(100, 599), st.booleans())
def test_no_answer_raises(text: bytes, status: int, opened: bool) -> None:
    """Whatever comes back, it means something."""
    hear(status, text, opened=opened)
    hear(status, b'{"status":' + text, opened=opened)


@pytest.mark.parametrize(
    ("text", "records", "next_cursor"),
    [
        ('{"status":"success"}', 0, None),
        ('{"status":"success","next_cursor":"x"}', 0, "x"),
        ('{"status":"success","records":null,"next_cursor":"x"}', 0, "x"),
        ('{"status":"success","records":[],"next_cursor":null}', 0, None),
        ('{"status":"success","records":[{}],"next_cursor":""}', 1, None),
        ('{"status":"success","records":[{}],"next_cursor":"a%2Fb"}', 1, "a%2Fb"),
    ],
)
def test_the_end_is_a_missing_cursor(text: str, records: int, next_cursor: str | None) -> None:
    """Neither a short page nor one without records ends a list."""
    found = page(text)
    assert found is not None
    assert (len(found.records), found.next_cursor) == (records, next_cursor)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"records":[{}]}',
        '{"status":"success"',
        '{"status":"success"} x',
        '{"status":"success",}',
        '{"status":"success","records":[{},]}',
        '{"status":"success","records":[{} {}]}',
        '{"status":"success","records":[1]}',
        '{"status":"success","records":{}}',
        '{"status":"success","records":"x"}',
        '{"status":"success","records":[{"a":NaN}]}',
        '{"status":"success","records":[{"a":"\n"}]}',
        '{"status":"success","records":[],"records":[{}]}',
        '{"status":"success","next_cursor":7}',
        '{"status":"success","next_cursor":"c"}',
        '{"status":"success","next_cursor":"a b"}',
        '{"status":"success","next_cursor":"a&b"}',
        '{"status":"success","next_cursor":"é"}',
        '{"status":"success","next_cursor":false}',
        '{1:"success"}',
        b'{"status":"success","records":[{"a":"\xff"}]}',
        '{"status":"success","records":[' + "[" * 100_000,
    ],
)
def test_what_is_no_page_is_never_taken_for_one(text: str | bytes) -> None:
    """Above all not for the last one: that would end a download too early."""
    assert page(text) is None


FAIL = '{"status":"fail","error":"%s","code":%d}'


@pytest.mark.parametrize(
    ("status", "text", "opened", "sense"),
    [
        (200, FAIL % ("Request still in progress, please retry later", 2), True, "in_progress"),
        (202, "", False, "in_progress"),
        (200, FAIL % ("CURSOR_INVALIDATED: invalid cursor", 4004), True, "expired"),
        (400, FAIL % ("Invalid Cursor", 400), True, "expired"),
        (200, FAIL % ("Incorrect Usage", 400), True, "refused"),
        (200, FAIL % ("Invalid date range", 4002), True, "refused"),
        (200, '{"status":"fail"}', True, "refused"),
        (200, FAIL % ("Too many", 429), True, "later"),
        (429, "", False, "later"),
        (503, FAIL % ("Service unavailable", 503), False, "later"),
        (503, "<html>", False, "lost"),
        (500, "", False, "lost"),
        (502, "<html>", False, "lost"),
        (404, FAIL % ("Profile not found", 404), True, "missing"),
        (200, FAIL % ("Profile not found", 404), True, "missing"),
        (404, FAIL % ("Profile not found", 404), False, "fatal"),
        (404, "<html>", True, "fatal"),
        (401, FAIL % ("Passcode Invalid", 401), False, "fatal"),
        (400, FAIL % ("Malformed request", 400), False, "refused"),
        (200, '{"status":"success","record":null}', False, "unopened"),
        (200, FAIL % ("in progress", 2), False, "unopened"),
        (200, "not JSON", True, "lost"),
    ],
)
def test_what_an_answer_means(status: int, text: str, opened: bool, sense: str) -> None:
    """The table of the wire, and what reading adds; what does not open says nothing good."""
    assert hear(status, text.encode(), opened=opened).sense == sense


def test_an_unknown_endpoint_only_has_to_not_fail() -> None:
    """Its answer may be anything, and is handed over."""
    assert hear(200, b"[1]", opened=True, found="").sense is Sense.ANSWER
    assert hear(200, b"anything", opened=True, found="").sense is Sense.ANSWER
    assert hear(200, b'{"status":"fail"}', opened=True, found="").sense is Sense.REFUSED
    assert hear(200, b"[1]", opened=False, found="").sense is Sense.UNOPENED


def test_an_answer_shows_nobody_what_it_holds() -> None:
    """Records and cursors are personal data or lead to it."""
    text = b'{"status":"success","records":[{"e":"bob@example.com"}],"next_cursor":"secret"}'
    heard = hear(200, text, opened=True)
    shown = f"{heard!r}{page_of('hidden', heard)!r}{Lookup('email', 'bob@example.com')!r}"
    assert not any(word in shown for word in ("bob", "secret", "hidden"))


def test_cursor_and_record_are_found() -> None:
    """A cursor as text, a record as its bytes; null and missing are nobody."""
    assert cursor_of(hear(200, b'{"status":"success","cursor":"a%2F"}', opened=True)) == "a%2F"
    assert cursor_of(hear(200, b'{"status":"success","cursor":12}', opened=True)) is None
    assert cursor_of(hear(200, b'{"status":"success"}', opened=True)) is None
    for text, record in (
        (b'{"status":"success","record": {"n":1.0} }', b'{"n":1.0}'),
        (b'{"status":"success","record":null}', None),
        (b'{"status":"success"}', None),
    ):
        assert record_of(hear(200, text, opened=True)) == record


@pytest.mark.parametrize(
    ("lookup", "query"),
    [
        (Lookup("email", "a+b c@d.e"), "email=a%2Bb%20c%40d.e"),
        (Lookup("identity", "ünï/&=?#%"), "identity=%C3%BCn%C3%AF%2F%26%3D%3F%23%25"),
        (Lookup("objectId", "__a~b.c-d"), "objectId=__a~b.c-d"),
    ],
)
def test_a_value_arrives_as_it_was_meant(lookup: Lookup, query: str) -> None:
    """A plus is a plus, not a blank."""
    assert lookup.query == query


def test_what_cannot_be_looked_up_is_said() -> None:
    """By option, without the value."""
    with pytest.raises(SettingsError, match="identity"):
        Lookup("identity", "")
    with pytest.raises(SettingsError, match="email"):
        Lookup("phone", "+1")
    with pytest.raises(SettingsError, match="UTF-8"):
        encode_query([("a", "\ud800")])
    for size in (0, 5001):
        with pytest.raises(SettingsError, match="--batch-size"):
            page_query(size)


def test_a_query_is_completed_and_its_own_bytes_stay() -> None:
    """Name and dates come from the command or the file; filters keep their digits."""
    whole = b' {"event_name":"A","from":20240101,"to":20240131,"x":12345678901234567890.10} '
    assert event_query(None, None, None, whole) == whole
    assert event_query("A", 20240101, 20240131, whole) == whole
    assert (
        event_query("Ä", 20240101, 20240131)
        == '{"event_name":"Ä","from":20240101,"to":20240131}'.encode()
    )
    part = event_query("A", None, 20240131, b'{ "from": 20240101, "x": 1.10 }')
    assert part == b'{"event_name":"A","to":20240131, "from": 20240101, "x": 1.10 }'
    assert orjson.loads(part)["event_name"] == "A"


@pytest.mark.parametrize(
    ("name", "begin", "end", "query", "option"),
    [
        (None, 20240101, 20240131, None, "NAME"),
        ("A", None, 20240131, None, "--from"),
        ("A", 20240101, None, None, "--to"),
        ("A", 20240131, 20240101, None, "--from"),
        ("A", 20240230, 20240301, None, "--from"),
        ("A", 240101, 20240301, None, "--from"),
        ("A", 20240101, 20240131, b"[]", "--query"),
        ("A", 20240101, 20240131, b"\xff", "--query"),
        ("A", 20240101, 20240131, b'{"event_name":"B"}', "NAME"),
        ("A", 20240101, 20240131, b'{"from":20240102}', "--from"),
    ],
)
def test_a_query_that_cannot_be_is_refused_before_it_is_sent(
    name: str | None, begin: int | None, end: int | None, query: bytes | None, option: str
) -> None:
    """The option is named."""
    with pytest.raises(SettingsError) as caught:
        event_query(name, begin, end, query)
    assert caught.value.option == option
