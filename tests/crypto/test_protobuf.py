"""The wire format of protobuf, as far as Tink needs it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctbatch.crypto.protobuf import decode, encode

fields = st.lists(
    st.tuples(
        st.integers(1, 1 << 28), st.integers(1, (1 << 64) - 1) | st.binary(min_size=1, max_size=300)
    )
)


@given(fields)
def test_a_message_survives(message: list[tuple[int, int | bytes]]) -> None:
    """What is encoded is decoded, in order."""
    assert decode(encode(message)) == message


def test_defaults_are_left_out() -> None:
    """As proto3 does, so that our bytes are Tink's."""
    assert encode([(1, 0), (2, b"")]) == b""


def test_fixed_sizes_are_skipped() -> None:
    """Unknown fields do not disturb."""
    assert decode(b"\x09" + bytes(8) + b"\x15" + bytes(4) + b"\x08\x07") == [(1, 7)]


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",
        b"\x08\x80",
        b"\x08" + b"\x80" * 10,
        b"\x12\x05abc",
        b"\x0b",
        b"\x00\x01",
        b"\x09abc",
    ],
    ids=["no value", "cut", "too long", "past the end", "group", "field 0", "cut fixed"],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    """With ValueError, which the caller translates."""
    with pytest.raises(ValueError, match=r"cut short|too long|ends after|wire type|field number"):
        decode(data)
