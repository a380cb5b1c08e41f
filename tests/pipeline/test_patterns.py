"""Patterns of lines: both ways to match a batch find the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctbatch.pipeline.checker.patterns import (
    CLASSES,
    SERIES,
    Form,
    either,
    in_series,
    list_of,
    object_of,
    singly,
)

COMPACT = (b",", b":")


def pattern_for(form: Form, *, always: bool = True) -> bytes:
    """Two keys with a list and an object; the last key may be one that some lines leave out."""
    classes = CLASSES[form]
    number = either([classes["number"], classes["null"]])
    inner = object_of([(b'"a"', classes["word"], True)], COMPACT)
    members = [
        (b'"id"', classes["identity"], True),
        (b'"items"', list_of(inner, b","), True),
        (b'"n.n"', number, True),
        (b'"in"', inner, always),
    ]
    return object_of(members, COMPACT)


def line(number: int, *, end: bytes = b',"in":{"a":true}') -> bytes:
    """A line of the pattern."""
    return b'{"id":"user-%d","items":[{"a":null},{"a":true}],"n.n":%d%b}\n' % (number, number, end)


GOOD = st.integers(0, 99).map(line)
BAD = st.sampled_from([b"\n", b"{}\n", line(1)[1:], line(2, end=b""), line(3, end=b',"in":{}')])
LINES = st.lists(GOOD | GOOD | GOOD | BAD, min_size=1, max_size=3 * SERIES) | st.integers(
    SERIES - 1, 2 * SERIES + 1
).map(lambda count: [line(n) for n in range(count)])


@pytest.mark.parametrize("always", [True, False])
@pytest.mark.parametrize("form", Form)
@given(lines=LINES)
def test_a_series_finds_what_is_found_line_by_line(
    form: Form, always: bool, lines: list[bytes]
) -> None:
    """Wherever a bad line stands, and however many good ones are around it."""
    pattern, text = pattern_for(form, always=always), b"".join(lines)
    found = in_series(pattern)(text)
    assert found == singly(pattern)(text)
    assert len(found) == len(lines)


def test_there_is_no_series_where_it_would_bring_nothing() -> None:
    """Of keys that lines may leave out, or where the pattern of one is long to compile."""

    def pattern(keys: int, *, always: bool) -> bytes:
        members = [(b'"key %d"' % n, CLASSES[Form.PLAIN]["number"], always) for n in range(keys)]
        identity = (b'"identity"', CLASSES[Form.PLAIN]["identity"], True)
        return object_of([identity, *members], COMPACT)

    for some in (pattern(5, always=True), pattern(100, always=True)):
        assert in_series(some) != singly(some)
    for some in (pattern(50, always=False), pattern(1000, always=True)):
        assert in_series(some) == singly(some)
