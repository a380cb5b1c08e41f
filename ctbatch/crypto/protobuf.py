"""The protobuf wire format, as far as Tink's five small messages need it; pure.

Source: the "Encoding" page of the protobuf documentation. Varints and length-delimited fields are
read; fixed-size ones are skipped; groups do not occur. Nothing here knows a message.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Field", "decode", "encode"]

Field = tuple[int, int | bytes]
"""A field's number and value: an int for a varint, bytes for a length-delimited field."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


def decode(data: bytes) -> list[Field]:
    """The fields of a message, in order.

    Raises:
        ValueError: it is not a message.
    """
    fields: list[Field] = []
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("field number 0")
        if kind == _VARINT:
            value, at = _varint(data, at)
            fields.append((number, value))
        elif kind == _BYTES:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field ends after the message")
            fields.append((number, data[at : at + size]))
            at += size
        elif kind in _FIXED_SIZES:
            at += _FIXED_SIZES[kind]
        else:
            raise ValueError(f"wire type {kind}")
    if at != len(data):
        raise ValueError("cut short")
    return fields


def encode(fields: Iterable[Field]) -> bytes:
    """A message of the given fields; zero and empty ones are left out, as proto3 does."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            if value:
                out += _to_varint(number << 3 | _VARINT) + _to_varint(value)
        elif value:
            out += _to_varint(number << 3 | _BYTES) + _to_varint(len(value)) + value
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise ValueError("a number that is too long")


def _to_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
