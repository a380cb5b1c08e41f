"""What is sealed of a batch: its records, and nothing else of its lines."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from ctbatch.models import Batch, Span
from ctbatch.pipeline.checker.check import Rules, check
from ctbatch.pipeline.sealer.sealing import frame_batch
from tests.pipeline.lines import NOT_RECORDS, event, profile

RECORDS = [profile(identity=f"user-{n}") for n in range(5)] + [event(), profile({"a": "\\r,\\n"})]
BAD = [line for row in NOT_RECORDS.values() for line in row if len(line) < 1000]
WHITE = st.text(" \t\r", max_size=2).map(str.encode)
LINE = st.one_of(
    st.tuples(WHITE, st.sampled_from(RECORDS), WHITE).map(b"".join),
    st.sampled_from(BAD),
    WHITE,
)


@given(st.lists(LINE, min_size=1, max_size=12), st.booleans())
@example([BAD[0]], False)
@example([RECORDS[0], BAD[0]], False)
@example([BAD[0], RECORDS[0] + b"\r", b"", RECORDS[1] + b"\r"], True)
@example([RECORDS[0].replace(b",", b",\r", 1)], True)
def test_all_records_are_framed_and_nothing_else(lines: list[bytes], ends: bool) -> None:
    """Whatever stands between them and around them, and whether the last line ends."""
    ends = ends or not lines[-1]  # a last line without a byte or an end is none
    data = b"\n".join(lines) + b"\n" * ends
    batch = Batch(Span(0, 1, len(lines), 0, len(data)), data)
    checked = check(batch, Rules())
    accepted = [lines[index] for index in checked.positions]
    assert json.loads(frame_batch(batch, checked)) == {"d": [json.loads(line) for line in accepted]}
    others = {i: line for i, line in enumerate(lines) if i not in set(checked.positions)}
    assert {i: data[slice(*bounds)] for i, bounds in checked.left_out.items()} == others
    assert list(checked.left_out) == sorted(others)
