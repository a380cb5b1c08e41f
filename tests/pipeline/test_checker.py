"""The checker: every line ends as record, refusal or blank, and the accepted ones mean one thing
only.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctbatch.models import Batch, Checked, Overlong, Refusal, Span, State
from ctbatch.pipeline.checker.check import Rules, check, record_bytes
from ctbatch.pipeline.checker.parsing import (
    MAX_NUMBER_BYTES,
    Flaw,
    _may_hold_long_number,
    parse,
    parse_exactly,
)
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

SAMPLES = Path(__file__).parents[2] / "samples"


def batch_of(*lines: bytes, overlong: tuple[Overlong, ...] = ()) -> Batch:
    """Lines as a batch that starts at line 1."""
    data = b"".join(line + b"\n" for line in lines)
    return Batch(Span(0, 1, len(lines), 0, len(data)), data, overlong)


def checked(*lines: bytes, strict: bool = False) -> Checked:
    """What the checker finds in the lines."""
    return check(batch_of(*lines), Rules(strict=strict))


def code_of(line: bytes, *, strict: bool = False) -> int | str | None:
    """The code that one line is refused with; ``None`` where it is accepted."""
    found = checked(line, strict=strict)
    assert len(found.positions) + len(found.refusals) == 1
    return found.refusals[0].code if found.refusals else None


def _cases(table: dict[str, list[bytes]]) -> list[Any]:
    return [
        pytest.param(line, code, id=f"{code}-{n}")
        for code, lines in table.items()
        for n, line in enumerate(lines)
    ]


@pytest.mark.parametrize(("line", "code"), _cases(NOT_RECORDS))
def test_what_is_not_a_json_object_is_invalid(line: bytes, code: str) -> None:
    """Rubbish of every kind gets a reason, not a traceback."""
    assert code_of(line) == code


@pytest.mark.parametrize(("line", "code"), _cases(WRONG_RECORDS))
def test_what_breaks_a_documented_rule_is_invalid(line: bytes, code: str) -> None:
    """Missing parts, wrong types and everything over a documented limit are found first."""
    assert code_of(line) == code


@pytest.mark.parametrize(("line", "code"), _cases(STRICT))
def test_the_services_own_rules_are_applied_on_demand(line: bytes, code: str) -> None:
    """E-mail, phone and the like are the service's to refuse, unless the run is strict."""
    assert code_of(line) is None
    assert code_of(line, strict=True) == code


@pytest.mark.parametrize("line", ACCEPTED, ids=range(len(ACCEPTED)))
def test_what_is_not_known_to_be_wrong_is_sent(line: bytes) -> None:
    """Values at their limits pass, and so does what the vendor does not document as an error."""
    assert code_of(line) is None
    assert code_of(line, strict=True) is None


@pytest.mark.parametrize("line", [b"", b" ", b"\t\r", b"\r"])
def test_only_white_space_of_json_is_blank(line: bytes) -> None:
    """Such a line is counted as blank; it is neither a record nor refused."""
    found = checked(line, profile())
    assert (found.blank, found.refusals, list(found.positions)) == (1, (), [1])


def test_fragments_that_join_to_records_are_invalid_lines() -> None:
    """Three lines that are three records when joined, and all wrong: each is judged by itself."""
    whole = b'{"type":"profile","identity":"u1","profileData":{"x":1}'
    lines = [whole, b'"q":2}', profile() + b"," + profile()]
    assert len(json.loads(b"[" + b",".join(lines) + b"]")) == 3
    found = checked(*lines)
    assert not found.positions
    assert [refusal.code for refusal in found.refusals] == [
        "cut_short",
        "more_than_one",
        "more_than_one",
    ]


def test_records_are_numbered_in_line_order() -> None:
    """Blank and invalid lines are no records; positions say which line a record is."""
    found = checked(b"", profile(), b"x", event(), token({}), b" ")
    assert found.positions == [1, 3, 4]
    assert found.types == "pet"
    assert list(found.identities) == ["identity:u1", "identity:u1", "objectId:-abc"]
    assert found.unsafe == {1, 2}
    assert found.blank == 2
    assert found.refusals[0].index == 2
    assert found.refusals[0].state is State.INVALID


def test_a_batch_of_records_only_has_a_range_of_positions() -> None:
    """The usual case costs nothing to hold or to hand over."""
    assert checked(profile(), event()).positions == range(2)


def test_overlong_lines_are_refused_with_their_place() -> None:
    """An over-long line stands as an empty one in the batch; it is not blank."""
    batch = batch_of(profile(), b"", b"", overlong=(Overlong(1, 50, 2_000_000),))
    found = check(batch, Rules())
    error = "the line is 2000000 bytes long, the limit is 1048576"
    assert found.refusals == (Refusal(1, State.INVALID, "line_too_long", error, (50, 2_000_000)),)
    assert found.blank == 1
    assert list(found.positions) == [0]


def test_a_line_over_the_limit_of_this_run_is_refused() -> None:
    """A batch may hold a longer line than the rules allow; the line feed does not count."""
    line = profile()
    assert check(batch_of(line), Rules(max_line_bytes=len(line))).positions == range(1)
    found = check(batch_of(line), Rules(max_line_bytes=len(line) - 1))
    assert found.refusals[0].code == "line_too_long"


@pytest.mark.parametrize("written", [b'"123"', b"123", b"123.0", b"1.23e2", rb'"\u0031\u00323"'])
def test_a_number_and_its_digits_are_one_identity(written: bytes) -> None:
    """Order per user is kept even where one system wrote a number and another one a string."""
    line = b'{"type":"profile","identity":' + written + b',"profileData":{}}'
    assert list(checked(line).identities) == ["identity:123"]


@pytest.mark.parametrize(
    "digits", [b"123456789012345678901234567890", b"18446744073709551616", b"7.25"]
)
def test_no_digit_of_an_identity_is_lost(digits: bytes) -> None:
    """Numbers that do not fit into 64 bits are read exactly."""
    line = b'{"type":"profile","identity":' + digits + b',"profileData":{}}'
    assert list(checked(line).identities) == [f"identity:{digits.decode()}"]


def test_further_identities_are_aliases_in_a_fixed_order() -> None:
    """The first of identity, FBID, GPID and objectId names the record; null counts as absent."""
    found = checked(
        profile(objectId="o", gpId=2, FBID="f"),
        profile(identity=None, objectId="o", FBID=None),
        profile(),
    )
    assert list(found.identities) == ["identity:u1", "objectId:o", "identity:u1"]
    assert found.aliases == {0: ("FBID:f", "GPID:2", "objectId:o")}


@pytest.mark.parametrize("identity", ["null", "N/A", "None", "-1", 0, -1, 0.0, "NaN", "xxxxxx"])
def test_placeholder_identities_are_warned_about(identity: str | float) -> None:
    """They are refused on imports, for uploads that is not documented: they are sent."""
    found = checked(b"", profile(identity=identity))
    assert len(found.positions) == 1
    assert [index for index, _ in found.warnings] == [1]


def test_lists_that_would_lose_items_are_warned_about() -> None:
    """Beyond 100 items the vendor drops the oldest."""
    assert not checked(profile({"a": list(range(100))})).warnings
    assert "more than 100 items" in checked(profile({"a": list(range(101))})).warnings[0][1]


@pytest.mark.parametrize("operator", ["$add", "$remove", "$set", "$delete"])
def test_operators_that_may_be_repeated_are_safe(operator: str) -> None:
    """Applied twice, they leave what they leave when applied once."""
    assert not checked(profile({"a": {operator: ["x"]}})).unsafe


@pytest.mark.parametrize(
    "text",
    [
        b'{"$incr":1}',
        b'{"$decr":1}',
        b'{"$frobnicate":1}',
        b'{"$INCR":1}',
        rb'{"\u0024incr":1}',
        b'{"b":[{"$incr":1}]}',
        b'{"$add":["x"],"$incr":1}',
        b'{"$incr":1},"b":{"c":1}',
        b'{"c":1},"b":{"$incr":1},"d":{"e":{"f":1}}',
    ],
)
def test_operators_not_known_to_be_repeatable_are_unsafe(text: bytes) -> None:
    """Found in the parsed value, at any depth, however it is written."""
    assert checked(in_data(text)).unsafe == {0}


def test_text_that_looks_like_an_operator_is_safe() -> None:
    """Only keys are operators."""
    assert not checked(profile({"a": "$incr", "b": ["$incr"], "cost in $": '{"$incr":1}'})).unsafe


def test_nothing_that_is_said_holds_data() -> None:
    """Reasons and warnings name fields of the API and places, never a value or a customer's key."""
    secret = "Zanzibar"  # stands for every value and key
    lines = [
        in_data(b'"' + secret.encode()),
        profile(type=secret),
        profile({secret * 20: 1}),
        profile({"a": secret * 80}),
        profile({secret: [0] * 101}, identity="none"),
        profile({"Email": secret}),
        event(evtName=secret * 20),
        secret.encode(),
        b'{"' + secret.encode() + b'":1,"' + secret.encode() + b'":2}',
    ]
    found = checked(*lines, strict=True)
    assert len(found.refusals) == len(lines) - 1
    said = [refusal.error for refusal in found.refusals] + [text for _, text in found.warnings]
    assert not [text for text in said if secret in text]
    assert secret not in repr(found)


def test_long_lines_with_many_numbers_are_read_in_no_time() -> None:
    """Runs of digits just under the limit do not make the check quadratic."""
    runs = b",".join([b"0." + b"1" * 509] * 1500)
    assert code_of(in_data(b"[" + runs + b"]")) is None
    assert code_of(in_data(b"[" + runs + b",0." + b"1" * 600 + b"]")) == "number_too_long"


@given(
    st.lists(
        st.tuples(st.sampled_from([b"1", b"-", b"e", b"x", b'"', b" "]), st.integers(0, 1100)),
        max_size=12,
    )
)
def test_a_long_number_is_found_wherever_it_stands(parts: list[tuple[bytes, int]]) -> None:
    """The look at few places finds what a search of the whole line finds."""
    line = b"".join(byte * count for byte, count in parts)
    found = re.search(rb"[-+.0-9Ee]{%d}" % (MAX_NUMBER_BYTES + 1), line) is not None
    assert _may_hold_long_number(line) is found


def test_the_exact_parser_says_too_deep_where_the_stack_is_short() -> None:
    """It is recursive, and is used on lines that orjson can read."""
    assert isinstance(parse_exactly(b"[" * 100_000), Flaw)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
RECORDS = st.fixed_dictionaries(
    {"type": st.sampled_from(["profile", "profile", "event", "token", "x"])},
    optional={
        "identity": st.text(max_size=5) | JSON_VALUES,
        "objectId": st.text(min_size=1, max_size=3),
        "ts": st.sampled_from([1, 1_700_000_000]) | JSON_VALUES,
        "profileData": st.dictionaries(st.text(max_size=4), JSON_VALUES, max_size=4),
        "evtName": st.text(max_size=4),
        "evtData": st.dictionaries(st.text(max_size=4), JSON_VALUES, max_size=4) | st.none(),
        "tokenData": st.dictionaries(st.text(max_size=4), JSON_VALUES, max_size=2),
    },
).map(lambda record: json.dumps(record, ensure_ascii=False).encode(errors="replace"))
ALL_LINES = [
    line for table in (NOT_RECORDS, WRONG_RECORDS, STRICT) for row in table.values() for line in row
]
SHORT_LINES = [line for line in [*ALL_LINES, *ACCEPTED] if len(line) < 2000]


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A line cut, doubled or with bytes put in: near misses."""
    line = draw(RECORDS | st.sampled_from(SHORT_LINES))
    at = draw(st.integers(0, len(line)))
    put = draw(
        st.sampled_from([b"", b":", b'"', b",", b"}", b"{", b"]", b"\\", b"\0", b"\xff", b" \r"])
    )
    return line[:at] + put + line[draw(st.integers(at, min(len(line), at + 3))) :]


LINES = st.lists(
    (st.binary(max_size=40) | RECORDS | mangled() | st.sampled_from(SHORT_LINES)).map(
        lambda line: line.replace(b"\n", b"")
    ),
    max_size=12,
)


def strictly(text: bytes) -> Any:
    """JSON by the standard library: no duplicate keys, no NaN."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def never(text: str) -> None:
        pytest.fail(text)

    return json.loads(text.decode(), object_pairs_hook=unique, parse_constant=never)


@settings(max_examples=400, deadline=None)
@given(LINES, st.booleans())
@example([profile()[:-1], b'"q":2}', b"", profile() + b"," + profile()], False)
def test_every_line_is_accounted_for_and_the_frame_is_exact(
    lines: list[bytes], strict: bool
) -> None:
    """Whatever the lines: record, refusal or blank, once each; and joined, the accepted lines are
    exactly the accepted records to any reader.
    """
    found = checked(*lines, strict=strict)
    records, refused = list(found.positions), [refusal.index for refusal in found.refusals]
    assert len(records) + len(refused) + found.blank == len(lines)
    assert sorted(records) == records
    assert not set(records) & set(refused)
    assert len(found.types) == len(found.identities) == len(records)
    accepted = [record_bytes(lines[index]) for index in records]
    frame = strictly(b'{"d":[' + b",".join(accepted) + b"]}")
    assert frame == {"d": [strictly(line) for line in accepted]}
    assert all(type(record) is dict for record in frame["d"])
    for index, kind in zip(records, found.types, strict=True):
        record = strictly(lines[index])
        assert record["type"][0] == kind
        assert as_floats(record) == as_floats(parse(lines[index]))


def as_floats(value: Any) -> Any:
    """The value with integers beyond 64 bits as floats, as orjson reads them."""
    if type(value) is int:
        return value if -(2**63) <= value < 2**64 else float(value)
    if isinstance(value, dict):
        return {key: as_floats(inner) for key, inner in value.items()}
    return [as_floats(inner) for inner in value] if isinstance(value, list) else value


def test_all_lines_of_the_tables_join_to_as_many_records() -> None:
    """The frame of everything that is accepted here, the long lines included."""
    lines = [*ALL_LINES, *ACCEPTED]
    found = checked(*lines)
    accepted = [record_bytes(lines[index]) for index in found.positions]
    assert len(strictly(b'{"d":[' + b",".join(accepted) + b"]}")["d"]) == len(found.positions)


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.ndjson")), ids=lambda path: path.name)
def test_samples_can_be_uploaded(sample: Path) -> None:
    """Every line of a sample ends in a state, and most of them are records."""
    lines = sample.read_bytes().splitlines()
    found = checked(*lines)
    assert len(found.positions) + len(found.refusals) + found.blank == len(lines)
    assert len(found.positions) > 0.9 * len(lines)


def test_the_users_sample_holds_a_dozen_of_each_mistake() -> None:
    """So that a first run shows what every kind of refusal looks like."""
    lines = (SAMPLES / "users.ndjson").read_bytes().splitlines()
    found = Counter(refusal.code for refusal in checked(*lines, strict=True).refusals)
    for code in ("type_missing", "identity_missing", "key_too_long", "value_too_long"):
        assert found[code] == 12
    for field in ("email", "phone", "gender", "employed", "education", "married", "age"):
        assert found[f"{field}_invalid"] == 12
    assert found["ts_invalid"] + found["ts_milliseconds"] == 12
