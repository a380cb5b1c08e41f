"""The fast lane: it says "clean" of nothing that the exact check would not say the same of."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctbatch.models import Batch, Names, Span
from ctbatch.pipeline.checker.check import Checker, Rules, check
from ctbatch.pipeline.checker.fastlane import MAX_SHAPES, Alike, FastLane
from ctbatch.pipeline.checker.fields import PLACEHOLDERS
from ctbatch.pipeline.checker.patterns import SERIES, Form, form_for
from tests.pipeline.lines import (
    ACCEPTED,
    NOT_RECORDS,
    STRICT,
    WRONG_RECORDS,
    event,
    in_data,
    profile,
    token,
)

TABLES = (NOT_RECORDS, WRONG_RECORDS, STRICT)
NASTY = [line for table in TABLES for row in table.values() for line in row]


def batch_of(lines: list[bytes], end: bytes = b"\n") -> Batch:
    """Lines as a batch; the last line may lack its end."""
    data = b"\n".join(lines) + end
    return Batch(Span(0, 1, len(lines), 0, len(data)), data)


def taught(*lines: bytes) -> FastLane:
    """A lane that has learnt from lines that the exact check accepts."""
    lane = FastLane(least=1)
    batch = batch_of(list(lines))
    assert not check(batch, Rules()).refusals
    Checker(Rules(), lane).check(batch)
    return lane


def left_of(lane: FastLane, *lines: bytes) -> list[int]:
    """The lines that a lane does not know to be clean."""
    return list(lane.sort(batch_of(list(lines)).data, len(lines)).left)


def person(number: int, **data: Any) -> bytes:
    """A profile with one of many identities."""
    return profile({"Name": f"Person {number}", "Age": number} | data, identity=f"user-{number:09}")


# ---------------------------------------------------------------- what it is for


def test_lines_like_those_before_are_known_to_be_clean() -> None:
    """After a batch of an export the others of it need no exact check, whatever their values."""
    lane = taught(*(person(n) for n in range(20)))
    other = profile({"Name": 'é, "}', "Age": -(10**17)}, identity="x" * 10)
    assert left_of(lane, person(77), other, person(78)) == []


@pytest.mark.parametrize("gap", [", ", ","])
def test_keys_that_some_lines_leave_out_make_no_difference(gap: str) -> None:
    """Any subset of the keys in their order is one shape, in both usual ways to write JSON."""
    separators = (gap, ":" + gap[1:])
    rng = random.Random(1)

    def line(number: int) -> bytes:
        data = {key: number for key in "abcdefgh" if rng.random() < 0.5}
        record = {"type": "profile", "identity": f"user-{number:09}", "profileData": data}
        return json.dumps(record, separators=separators).encode()

    lane = taught(*(line(n) for n in range(200)))
    assert left_of(lane, *(line(n) for n in range(200))) == []


def test_types_may_be_mixed() -> None:
    """Each type has its shapes; of each line its own facts are given."""

    def lines(start: int) -> list[bytes]:
        return [
            line
            for n in range(start, start + 5)
            for line in (
                person(n),
                event({"Items": [{"a": n, "b": "x"}] * n}, identity=f"user-{n:09}"),
                token({"id": "x" * 20}, objectId=f"-device-{n:09}"),
                profile({"n": n}, identity=10**9 + n),
            )
        ]

    lane = taught(*lines(0))
    batch = batch_of(lines(3))
    assert left_of(lane, *lines(3)) == []
    assert Checker(Rules(), lane).check(batch) == check(batch, Rules())


@pytest.mark.parametrize(
    "line",
    [
        lambda n: profile({"n": n}, identity=f"é\U0001f600\x7f'{n:09}"),
        lambda n: profile({"n": n}, identity=10**9 - n),
        lambda n: token({"id": "x" * 20}, objectId=f"-device-{n * 7 % 30:09}"),
        lambda n: event({"n": n}, identity=f"user-{n:09}"),
    ],
    ids=["not ASCII", "a number, falling", "in no order", "events"],
)
def test_lines_that_are_all_alike_give_the_same_facts(line: Callable[[int], bytes]) -> None:
    """Their identities are never looked at singly, and yet they are what they are."""
    lane = taught(*(line(n) for n in range(30)))
    batch = batch_of([line(n) for n in range(30, 60)])
    assert isinstance(lane.sort(batch.data, 30), Alike)
    found, exact = Checker(Rules(), lane).check(batch), check(batch, Rules())
    assert found.identities.stretch == exact.identities.stretch
    assert found == exact
    assert Names.unpack(*found.identities.pack()) == exact.identities


@pytest.mark.parametrize("line", [person, lambda n: event({"n": n}, identity=f"user-{n:09}")])
@pytest.mark.parametrize("other", [None, profile({"n": 1}, identity=5.0, GPID="g")])
def test_bad_lines_among_those_that_are_alike_change_none_of_their_facts(
    line: Callable[[int], bytes], other: bytes | None
) -> None:
    """Bad and blank ones at both ends and in the middle; where one that is not like the others is
    a record all the same, they are put together singly.
    """
    lane = taught(*(line(n) for n in range(30)))
    lines = [line(n) for n in range(30, 60)]
    lines[0], lines[7], lines[8], lines[29] = b"", lines[7][:-1], b"{}", b"[]"
    if other is not None:
        lines[11] = other
    batch = batch_of(lines)
    assert isinstance(lane.sort(batch.data, 30), Alike)
    found, exact = Checker(Rules(), lane).check(batch), check(batch, Rules())
    assert found == exact
    assert list(found.left_out) == [0, 7, 8, 29]
    assert found.identities.stretch == exact.identities.stretch


def test_only_bad_lines_go_to_the_exact_check() -> None:
    """One bad line in a batch costs one exact check."""
    lane = taught(*(person(n) for n in range(20)))
    lines = [person(n) for n in range(20)]
    lines[7] = lines[7][:-1]
    lines[11] = lines[11].replace(b"Person", b"\xff")
    assert left_of(lane, *lines) == [7, 11]


def test_escapes_and_windows_line_ends_are_no_hindrance() -> None:
    """Strings with escapes are clean where the shape is known, and so are lines that end in CR."""
    lane = taught(*(person(n) for n in range(20)))
    escaped = person(1).replace(b"Person", rb"\u00e9\ud83d\ude00\"\\\n")
    assert left_of(lane, escaped, person(2) + b"\r", person(3)) == []


def test_a_cr_that_ends_no_line_is_not_taken_for_one_that_does() -> None:
    """Within a string it is a control character, whatever the other lines end in."""
    lane = taught(*(person(n) for n in range(20)))
    lines = [person(n) + b"\r" for n in range(20)]
    assert left_of(lane, *lines) == []
    lines[7] = lines[7].replace(b"Person", b"Per\rson")
    assert left_of(lane, *lines) == [7]


def test_lines_in_no_order_of_keys_are_not_tried_in_vain() -> None:
    """Where no line is like another, shapes are given up, and lessons become rare."""
    rng = random.Random(3)

    def line(number: int) -> bytes:
        keys = rng.sample("abcdefghij", 10)
        return profile(dict.fromkeys(keys, number), identity=f"user-{number:09}")

    lane = FastLane()
    checker = Checker(Rules(), lane)
    taught_at = []
    for number in range(64):
        batch = batch_of([line(n) for n in range(1000)])
        before = lane._lesson_at
        assert checker.check(batch) == check(batch, Rules())
        if lane._lesson_at != before:
            taught_at.append(number)
    assert taught_at == [0, 2, 6, 14, 30, 62]
    checker.check(batch_of([line(n) for n in range(1000)]))
    assert not lane._shapes


def test_a_new_style_after_a_long_time_is_learnt_at_once() -> None:
    """Lessons are rare after those that bore no fruit only."""
    lane = taught(*(person(n) for n in range(20)))
    for _ in range(100):
        assert left_of(lane, *(person(n) for n in range(20))) == []
    other = [profile({"City": f"x{n}"}, identity=f"user-{n:09}") for n in range(20)]
    Checker(Rules(), lane).check(batch_of(other))
    assert left_of(lane, *other, person(1)) == []


def test_lines_that_cannot_be_learnt_do_not_spoil_what_was() -> None:
    """Lines with blanks of their own show keys, but match no shape: the shape stays as it was."""
    lane = taught(*(person(n) for n in range(20)))
    odd = [person(n, City="x").replace(b", ", b" ,  ") for n in range(20)]
    for _ in range(3):
        batch = batch_of([*(person(n) for n in range(20)), *odd])
        assert Checker(Rules(), lane).check(batch) == check(batch, Rules())
        assert left_of(lane, person(7), odd[0]) == [1]


def test_what_it_learns_is_bounded() -> None:
    """However many shapes a file has, few are kept, and the useful ones stay."""
    lane = taught(*(person(n) for n in range(20)))
    left_of(lane, *(person(n) for n in range(20)))
    orders = [profile({f"{n}a": 1, f"{n}b": {"x": [n]}}, **{f"z{n}": 1}) for n in range(40)]
    for line in orders:
        batch = batch_of([line.replace(b"u1", b"user-%d" % n) for n in range(5)])
        found = Checker(Rules(), lane).check(batch)
        assert found == check(batch, Rules())
    assert len(lane._shapes) <= MAX_SHAPES
    assert left_of(lane, person(50)) == []


# ---------------------------------------------------------------- what it must not believe

ESCAPES = [
    *(r"\u00e9", r"\uD83D\uDE00", r"\ud83d\ude00\uD83d\uDE01", r"\n", r"\/", r"\u005c"),
    "é",
    "a",
]
OTHER_ESCAPES = [
    *(
        r"\\",
        r"\"",
        r"\ud83d",
        r"\ude00",
        r"\ude00\ud83d",
        r"\ud83d\ud83d",
        r"\u00",
        r"\x",
        r"\u00 9",
    ),
    *(r"\ud83d\n", r"\ud83d \ude00", r"\ud83d\ude0", r"\ud83d\ude00\ude00", r"\uDBFF\uE000", "\\"),
    *("\t", r"\\n", r"\\u00e9", r"\u0022", r"\u000a", "x" * 509, "\x7f"),
]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(ESCAPES) | st.sampled_from(OTHER_ESCAPES), max_size=4).map(
            "".join
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["", *ESCAPES, *OTHER_ESCAPES]),
)
def test_escapes_are_believed_only_where_they_are_whole(texts: list[str], in_name: str) -> None:
    """Whichever form a batch is matched in, the findings are those of the exact check."""
    lane = taught(*(person(n) for n in range(20)))
    lines = [person(n).replace(b"Person", text.encode()) for n, text in enumerate(texts)]
    lines.append(person(9).replace(b"user-", b"user-" + in_name.encode()))
    batch = batch_of(lines)
    assert Checker(Rules(), lane).check(batch) == check(batch, Rules())


@pytest.mark.parametrize("text", ESCAPES)
def test_usual_escapes_are_no_hindrance(text: str) -> None:
    """They are clean, and the quick form finds it; in an identity they go to the exact check."""
    lane = taught(*(person(n) for n in range(20)))
    lines = [person(1), person(2).replace(b"Person", text.encode() * 3)]
    assert left_of(lane, *lines) == []
    odd = person(3).replace(b"user-", b"user-" + text.encode())
    assert left_of(lane, *lines, odd) == ([2] if "\\" in text else [])
    [shape] = lane._shapes
    assert len({form for form, _ in shape._patterns}) == 2 if text in {"é", "a"} else 3


def test_a_string_that_runs_over_the_end_of_its_line_is_two_bad_lines() -> None:
    """Two lines that would be a clean one, were the line feed between them part of a name."""
    lane = taught(*(person(n) for n in range(20)))
    first, second = person(1).split(b" 1", 1)
    assert left_of(lane, person(2), first, second, person(3)) == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        *(b"1e999", b"01", b"+1", b"-", b"1.", b".5", b"1e", b"NaN", b"Infinity", b"9" * 600),
        *(b'"\\ud800"', b'"\\u12"', b'"\\x"', b'"\\', b'"a\tb"', b'"\x00"', b'"\xff"'),
        *(b'"\xed\xa0\x80"', b'"' + b"v" * 513 + b'"', b"[" + b"1," * 100 + b"1]", b"[1,]"),
        *(b'{"$incr":1}', rb'{"\u0024incr":1}', b'1,"a":2', b"1}", b"1},", b"", b"nul", b"tru"),
    ],
)
def test_no_value_is_clean_that_is_not(text: bytes) -> None:
    """Whatever kinds of values a key had, what the exact check minds is left to it."""
    kinds = (b'"x"', b"1", b"2.5e3", b"null", b"true", b'["x",1]', b'{"b":1}', b"[]", b"{}")
    lines = [in_data(kind).replace(b"u1", b"user-000001") for kind in kinds]
    lane = taught(*lines)
    bad = in_data(text).replace(b"u1", b"user-000001")
    assert left_of(lane, *lines, bad) == [len(lines)]
    batch = batch_of([*lines, bad, *lines])
    assert Checker(Rules(), lane).check(batch) == check(batch, Rules())


@pytest.mark.parametrize("always", [None, "a", "c", "e"])
def test_a_comma_too_few_or_too_many_is_never_clean(always: str | None) -> None:
    """Whichever keys may be left out, commas stand between those that are there."""
    rng = random.Random(5)

    def line(number: int) -> bytes:
        data = {key: 1 for key in "abcde" if key == always or rng.random() < 0.6}
        return profile(data, identity=f"user-{number:09}")

    lines = sorted({line(0) for _ in range(200)}) + [line(n) for n in range(20)]
    lane = taught(*lines)
    assert left_of(lane, *lines) == []
    for clean in lines:
        begin = clean.index(b'"profileData"') + 16
        places = [n for n in range(begin, len(clean)) if clean[n - 1 : n] in {b"{", b"1", b" "}]
        for at in places:
            for cut in range(3):
                for comma in (b"", b",", b", ", b",, "):
                    bad = clean[:at] + comma + clean[at + cut :]
                    if bad != clean and left_of(lane, bad) == []:
                        assert not check(batch_of([bad]), Rules()).refusals, bad


def test_placeholders_are_left_to_the_exact_check() -> None:
    """They earn a warning; short identities that are none are clean."""
    lane = taught(*(person(n) for n in range(20)))
    lines = [profile({"Name": "x", "Age": 1}, identity=w) for w in ("None", "7", "N/A", "zero")]
    assert left_of(lane, *lines) == [0, 2]


def test_placeholders_are_found_in_any_letter_case_by_their_bytes() -> None:
    """No letter outside ASCII becomes one of theirs in lower case."""
    letters = set("".join(PLACEHOLDERS))
    foreign = (chr(code) for code in range(0x80, sys.maxunicode + 1))
    assert not [char for char in foreign if letters >= set(char.lower())]


@pytest.mark.parametrize("word", sorted(PLACEHOLDERS))
def test_every_placeholder_is_left_also_among_longer_identities(word: str) -> None:
    """Identities are looked at singly where one is short enough to be one."""
    lane = taught(*(person(n) for n in range(20)))
    named = [profile({"Name": "x", "Age": 1}, identity=text) for text in (word, "y" * len(word))]
    assert left_of(lane, person(1), named[0], person(2)) == [1]
    assert left_of(lane, person(1), named[1], person(2)) == []


AT_THE_LIMIT: dict[str, Callable[[int], bytes]] = {
    "identity": lambda over: person(1).replace(b"user-000000001", b"x" * (1024 + over)),
    "value": lambda over: person(1, Name="x" * (512 + over)),
    "event name": lambda over: event({"n": 1}, identity="user-000001", evtName="x" * (120 + over)),
    "list": lambda over: person(1, Items=[1] * (100 + over)),
}
WITH: dict[Form, bytes] = {
    Form.PLAIN: b"",
    Form.ESCAPED: rb"\n",
    Form.CAREFUL: rb"\"",
}


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("what", list(AT_THE_LIMIT))
def test_limits_are_the_same_in_every_form(what: str, form: Form) -> None:
    """What is as long as it may be is clean, of one more the exact check has something to say."""
    line = AT_THE_LIMIT[what]
    lane = taught(*(person(n) for n in range(20)), line(-50))
    batch = batch_of([person(2).replace(b"Person", WITH[form]), line(0), line(1)])
    assert form_for(batch.data) is form
    assert left_of(lane, *batch.lines()) == [2]
    found = Checker(Rules(), lane).check(batch)
    assert found == check(batch, Rules())
    minded = [refusal.index for refusal in found.refusals] + [at for at, _ in found.warnings]
    assert minded == [2]


def test_keys_that_no_line_has_together_are_too_many_together() -> None:
    """A shape of several kinds of lines covers no line with more keys than one may have."""
    keys = [f"k{n:03}" for n in range(300)]
    first, second = (
        profile(dict.fromkeys(some, 1), identity="user-000001") for some in (keys[:200], keys[100:])
    )
    lane = taught(first, second)
    batch = batch_of([first, second, profile(dict.fromkeys(keys, 1), identity="user-000001")])
    assert left_of(lane, *batch.lines()) == [2]
    assert Checker(Rules(), lane).check(batch) == check(batch, Rules())
    assert [refusal.index for refusal in check(batch, Rules()).refusals] == [2]


def test_lines_over_the_limit_of_the_run_are_not_clean() -> None:
    """The bound on the length of a line is the exact check's, also for lines of a known shape."""
    lines = [person(n) for n in range(20)]
    lane = taught(*lines)
    rules = Rules(max_line_bytes=len(lines[3]) - 1)
    batch = batch_of(lines)
    assert Checker(rules, lane).check(batch) == check(batch, rules)
    assert check(batch, rules).refusals


def test_a_strict_check_is_exact() -> None:
    """The service's own rules look into values, so no line is let off."""
    lines = [person(n, Email=f"p{n}@example.com") for n in range(20)]
    lane = taught(*lines)
    bad = batch_of([*lines, person(7, Email="nobody")])
    assert Checker(Rules(strict=True), lane).check(bad) == check(bad, Rules(strict=True))


# ---------------------------------------------------------------- the exact check as the oracle

KEYS = ["a", "b", "c", "Name", "é", "$add", "$incr", "a:b", 'q"', "ts", "type", "identity"]
SCALARS = st.sampled_from(
    [
        *(
            "x",
            "",
            "é",
            "😀",
            "a\\b",
            'a"b',
            "\n",
            "\u0000",
            "v" * 512,
            "v" * 513,
            "é" * 256,
            "$incr",
        ),
        *(0, 1, -1, 10**17, 10**18, 2**64, 1.5, 1e300, -0.0, 1e-7, True, False, None),
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
        | st.integers(99, 101).map(lambda n: [1] * n)
    ),
    max_leaves=4,
)
IDENTITIES = st.sampled_from(
    [*("user-1", "user-2", "é" * 10, "x" * 1024, "x" * 1025, "", "null", "None", "a\\b", "7"), 7, 0]
) | st.sampled_from([10**17, 10**18, -5, 5.0, 7.25, None, True])


@st.composite
def exports(draw: st.DrawFn) -> list[bytes]:
    """Lines of one writer: a few keys in a fixed order, some left out, values of all kinds."""
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=5))
    columns = {key: draw(st.lists(VALUES, min_size=1, max_size=3)) for key in keys}
    kind = draw(st.sampled_from(["profile", "profile", "event", "token"]))
    part = {"profile": "profileData", "event": "evtData", "token": "tokenData"}[kind]
    names = draw(st.lists(IDENTITIES, min_size=1, max_size=3))
    name = "objectId" if kind == "token" else draw(st.sampled_from(["identity", "gpId"]))
    gap = draw(st.sampled_from(["", " "]))
    ascii_only = draw(st.booleans())
    rng = draw(st.randoms(use_true_random=False))
    lines = []
    for _ in range(draw(st.integers(1, 12))):
        data = {key: rng.choice(values) for key, values in columns.items() if rng.random() < 0.8}
        record: dict[str, Any] = {"type": kind, name: rng.choice(names), part: data}
        if kind == "event":
            record["evtName"] = rng.choice(["Bought", "n" * 120, "é" * 120])
        if rng.random() < 0.3:
            record["ts"] = rng.choice([1, 1_700_000_000, 10**11, None, 0])
        if rng.random() < 0.1:
            record["FBID"] = rng.choice([None, "f"])
        separators = ("," + gap, ":" + gap)
        text = json.dumps(record, separators=separators, ensure_ascii=ascii_only)
        lines.append(text.encode() + rng.choice([b"", b"", b"\r"]))
    return lines


PUT = st.sampled_from(
    [
        *(b"", b":", b'"', b",", b"}", b"{", b"]", b"[", b"\\", b"\0", b"\xff", b" ", b"\r", b"\n"),
        *(b"0", b"-", b".", b"e9", b'"a":1,', b'\\"', b"\\u0061", b"\\ud800", b"\t", b'","'),
    ]
)


@st.composite
def spoiled(draw: st.DrawFn, line: bytes) -> bytes:
    """A line with some bytes taken out or put in."""
    at = draw(st.integers(0, len(line)))
    end = draw(st.integers(at, min(len(line), at + 4)))
    return (line[:at] + draw(PUT) + line[end:]).replace(b"\n", b"")


@st.composite
def batches(draw: st.DrawFn) -> list[Batch]:
    """Batches of one to three exports, with some lines spoiled and some from the tables."""
    files = draw(st.lists(exports(), min_size=1, max_size=3))
    made = []
    for _ in range(4):
        lines = [line for file in files for line in file]
        for at in draw(st.lists(st.integers(0, len(lines) - 1), max_size=4)):
            lines[at] = draw(spoiled(lines[at]) | st.sampled_from([b"", *NASTY, *ACCEPTED]))
        made.append(batch_of(lines, draw(st.sampled_from([b"\n", b""]))))
    return [batch for batch in made if len(batch.lines()) == batch.span.lines]


@settings(max_examples=150, deadline=None)
@given(batches())
def test_whatever_was_learnt_the_findings_are_those_of_the_exact_check(made: list[Batch]) -> None:
    """The same records, names, types, safety, warnings and refusals, batch after batch."""
    checker = Checker(Rules(), FastLane(least=1))
    for batch in made:
        assert checker.check(batch) == check(batch, Rules())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_lines_that_are_matched_in_series_are_judged_as_singly(data: st.DataObject) -> None:
    """Wherever a bad line stands, also where it would be a good one with its neighbour."""
    gap = data.draw(st.sampled_from(["", " "]))
    name = data.draw(st.sampled_from(["Person", "Ren\u00e9", "a\\b"]))
    lane = FastLane(least=1)
    checker = Checker(Rules(), lane)
    lines = [
        json.dumps(
            {
                "type": "profile",
                "identity": f"user-{n:09}",
                "profileData": {
                    "Name": name,
                    "n": n,
                    "in": {"a": n},
                    **({"z": 1} if n % 7 else {}),
                },
            },
            separators=("," + gap, ":" + gap),
        ).encode()
        for n in range(data.draw(st.integers(1, 3 * SERIES)))
    ]
    for _ in range(4):
        checker.check(batch_of(lines))
    assert any(often for shape in lane._shapes for _, often in shape._patterns)
    for at in data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=4)):
        lines[at] = data.draw(spoiled(lines[at]) | st.sampled_from([b"", *NASTY, *ACCEPTED]))
    batch = batch_of(lines, data.draw(st.sampled_from([b"\n", b""])))
    if len(batch.lines()) == len(lines):
        assert checker.check(batch) == check(batch, Rules())


def test_every_line_of_the_tables_is_judged_as_by_the_exact_check() -> None:
    """Taught with everything that is accepted, and asked about everything that is not."""
    checker = Checker(Rules(), FastLane(least=1))
    for _ in range(3):
        batch = batch_of([*ACCEPTED, *NASTY])
        assert checker.check(batch) == check(batch, Rules())


def test_a_line_that_does_not_match_is_found_out_in_no_time() -> None:
    """No value can be read in two ways, or a mismatch at the end would try all combinations."""
    values = [1, 2.5, "x", "é\n", None, True] * 16
    line = profile({f"k{n}": [*values, {"a": value}] for n, value in enumerate(values[:12])})
    lane = taught(line, line.replace(b"2.5", b"2"), profile({"k0": [1], "k3": []}))
    identified = line.replace(b"u1", b"user-000001")
    ended, other = identified[:-1] + b" }", identified.replace(b"k11", b"k1k")
    assert left_of(lane, identified, ended, other) == [1, 2]
    for _ in range(2):
        lane.sort(batch_of([identified] * 50).data, 50)
    assert left_of(lane, *[identified, ended, identified, other] * 10, other) == [
        *range(1, 41, 2),
        40,
    ]
