"""Tells from the first bytes of an input how it is packed, and whether it can be NDJSON; pure.

Invariant: an input is refused only where it is certain that hardly a line of it could be a record.
A bad first line is an invalid line, never a refused file.
"""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from pathlib import PurePath

from ctbatch.errors import InputError

__all__ = ["HEAD_BYTES", "Kind", "kind_of", "refuse_unless_ndjson"]

HEAD_BYTES = 1 << 16
"""How much of an input is looked at."""


class Kind(StrEnum):
    """How an input is read. What comes through a pipe may be packed too."""

    PLAIN = "plain"
    GZIP = "gzip"
    ZSTD = "zstd"
    PIPE = "pipe"


_PACKED = {
    b"\x1f\x8b\x08": Kind.GZIP,  # RFC 1952, section 2.3
    b"\x28\xb5\x2f\xfd": Kind.ZSTD,  # RFC 8878, section 3.1.1
    # Skippable frames, RFC 8878, section 3.1.2: pzstd begins with one.
    **{bytes([low]) + b"\x2a\x4d\x18": Kind.ZSTD for low in range(0x50, 0x60)},
}

_UNPACK = {Kind.GZIP: "gzip -dc", Kind.ZSTD: "zstd -dc"}

_FOREIGN = {
    b"PK\x03\x04": ("a zip archive", "unzip -p"),
    **{b"BZh%d1AY&SY" % level: ("compressed with bzip2", "bzip2 -dc") for level in range(1, 10)},
    b"\xfd7zXZ\x00": ("compressed with xz", "xz -dc"),
    b"\x04\x22\x4d\x18": ("compressed with lz4", "lz4 -dc"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "7z x -so"),
    b"PAR1\x15": ("a Parquet file", ""),
    b"Obj\x01": ("an Avro file", ""),
    b"\xff\xfe": ("UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
    b"\xfe\xff": ("UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
    b'{\x00"\x00': ("UTF-16 text", "iconv -f UTF-16LE -t UTF-8"),
    b'\x00{\x00"': ("UTF-16 text", "iconv -f UTF-16BE -t UTF-8"),
}
"""How other formats begin (file(1)'s magic numbers), and what makes lines of them."""

_LINE = 'each line must be one JSON object: {"type":"profile","identity":"…","profileData":{…}}'
_PAYLOAD = re.compile(rb'\{\s*"d"\s*:\s*\[')


def kind_of(head: bytes) -> Kind | None:
    """How a stream that begins so is packed; ``None``: too little is known yet."""
    for magic, kind in _PACKED.items():
        if head.startswith(magic):
            return kind
    if any(magic.startswith(head) for magic in _PACKED):
        return None
    return Kind.PLAIN


def refuse_unless_ndjson(path: str, head: bytes, *, whole: bool, kind: Kind = Kind.PLAIN) -> None:
    """Look at the first (unpacked) bytes; ``whole``: they are all, or at least ``HEAD_BYTES``.

    Raises:
        InputError: this is certainly something else; says what, and how to make NDJSON of it.
    """
    _refuse_foreign(path, head, kind)
    rows = [row.strip() for row in head.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    lines = [line for line in rows[: None if whole else -1] if line]
    if not lines:
        return
    objects = any(line.startswith(b"{") and line.endswith(b"}") for line in lines[1:])
    if _is_array(lines, objects=objects):
        raise _refusal(path, "is a JSON array, not one object a line", "jq -c '.[]'", kind)
    if objects:
        return
    if _PAYLOAD.match(lines[0]):
        raise _refusal(path, "is one upload payload, not one record a line", "jq -c '.d[]'", kind)
    if _is_spread(lines):
        why = "holds JSON objects that span several lines, not one a line"
        raise _refusal(path, why, "jq -c .", kind)
    if whole and len(rows) > 1 and not any(line.startswith(b"{") for line in lines):
        _refuse_tables(path, lines[0])


def _refuse_foreign(path: str, head: bytes, kind: Kind) -> None:
    """Refuse what another program has to unpack or convert."""
    for magic, (what, command) in _FOREIGN.items():
        if head.startswith(magic):
            raise _refusal(path, f"is {what}, not NDJSON", command, kind)
    if head[257:262] == b"ustar":  # POSIX.1-2017, pax: ustar header block
        raise _refusal(path, "is a tar archive, not NDJSON", "tar -xOf", Kind.PLAIN)


def _is_array(lines: list[bytes], *, objects: bool) -> bool:
    first = lines[0]
    if not (first == b"[" or (first.startswith(b"[") and b"{" in first)):
        return False
    return not objects or lines[-1] == b"]"


def _is_spread(lines: list[bytes]) -> bool:
    """Whether the first object is not whole on its line, and goes on with a member on the next."""
    opened = lines[0].startswith(b"{") and not lines[0].endswith(b"}")
    return opened and len(lines) > 1 and lines[1].startswith((b'"', b"}"))


def _refuse_tables(path: str, first: bytes) -> None:
    """Refuse CSV and markup: no line began with a brace."""
    if first.startswith(b"<"):
        raise InputError(path, "is XML or HTML, not NDJSON", _LINE)
    if not first.startswith(b"[") and re.search(rb"[,;\t]", first) and b"{" not in first:
        raise InputError(path, "is a table (CSV or the like), not NDJSON", _LINE)


def _refusal(path: str, why: str, command: str, kind: Kind) -> InputError:
    """The error with a command to run; it never writes over the input."""
    if not command:
        return InputError(path, why, f"convert it first: {_LINE}")
    if kind is Kind.PIPE:
        return InputError(path, why, f"make lines of it first, as `{command}` does for a file")
    old = PurePath(path)
    new = old.with_suffix("" if kind in _UNPACK else ".ndjson").with_suffix(".ndjson")
    if new == old:
        new = old.with_name(f"{old.stem}-lines.ndjson")
    source = shlex.quote(path)
    made = f"{command} {source}"
    if kind in _UNPACK:
        made = f"{_UNPACK[kind]} {source} | {command}"
    return InputError(path, why, f"run `{made} > {shlex.quote(str(new))}` and upload that file")
