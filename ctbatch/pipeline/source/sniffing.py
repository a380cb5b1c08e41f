"""Tells from the first bytes of an input how it is packed, and whether it can be NDJSON; pure.

Invariant: an input is refused only where it is certain that hardly a line of it could be a record.
A bad first line is an invalid line, never a refused file; nor is a bad start, if what comes after
it was not seen. In doubt the lines are judged, each for itself.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import PurePath
from typing import Any

from ctbatch import shell
from ctbatch.errors import InputError

__all__ = [
    "HEAD_BYTES",
    "Kind",
    "kind_of",
    "kind_of_all",
    "refuse_unless_ndjson",
    "refused_packing",
]

HEAD_BYTES = 1 << 16
"""How much of an input is looked at."""


class Kind(StrEnum):
    """How an input is read. What comes through a pipe may be packed too."""

    PLAIN = "plain"
    GZIP = "gzip"
    ZSTD = "zstd"
    PIPE = "pipe"


_SKIPPABLE = tuple(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))
"""Frames without data, RFC 8878, section 3.1.2: pzstd begins with one."""

_PACKED = {
    b"\x1f\x8b\x08": Kind.GZIP,  # RFC 1952, section 2.3
    b"\x28\xb5\x2f\xfd": Kind.ZSTD,  # RFC 8878, section 3.1.1
    **dict.fromkeys(_SKIPPABLE, Kind.ZSTD),
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
}
"""How other formats begin (file(1)'s magic numbers), and what makes lines of them."""

_ENCODINGS = {
    "UTF-32": rb"\xff\xfe\0\0[\t-~]\0\0\0|\0\0\xfe\xff\0\0\0[\t-~]",
    "UTF-32LE": rb"\{\0\0\0[\t-~]\0\0\0",
    "UTF-32BE": rb"\0\0\0\{\0\0\0[\t-~]",
    "UTF-16": rb"\xff\xfe[\t-~]\0|\xfe\xff\0[\t-~]",
    "UTF-16LE": rb"\{\0[\t-~]\0",
    "UTF-16BE": rb"\0\{\0[\t-~]",
}
"""How text in wide characters begins: with a BOM or a brace, and then ASCII."""

_LINE = 'each line must be one JSON object: {"type":"profile","identity":"…","profileData":{…}}'
_ARRAY = ("is a JSON array, not one object a line", "jq -c '.[]'")
_PAYLOAD = ("is one upload payload, not one record a line", "jq -c '.d[]'")
_SPREAD = ("holds JSON objects that span several lines, not one a line", "jq -c .")

_OPENED = re.compile(r'\s*(?:\[|(?P<payload>\{\s*"d"\s*:\s*\[))')
_SPACE = re.compile(r"\s*")
_COMMAS = re.compile(r"[\s,]*")
_CONTROL = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f]")


def kind_of(head: bytes) -> Kind | None:
    """How a stream that begins so is packed; ``None``: too little is known yet."""
    for magic, kind in _PACKED.items():
        if head.startswith(magic):
            return kind
    if any(magic.startswith(head) for magic in _PACKED):
        return None
    return Kind.PLAIN


def kind_of_all(data: bytes) -> Kind:
    """How an input of no more than these first bytes is packed.

    The beginning of a magic number is an archive's that was cut short: none is a line of JSON. Not
    that of a skippable frame, which is one letter or bracket.
    """
    magics = [magic for magic in _PACKED if magic not in _SKIPPABLE]
    cut = (_PACKED[magic] for magic in magics if data and magic.startswith(data))
    return kind_of(data) or next(cut, Kind.PLAIN)


def refuse_unless_ndjson(
    path: str, head: bytes, *, whole: bool, end: bytes = b"", kind: Kind = Kind.PLAIN
) -> None:
    """Look at the first (unpacked) bytes. ``whole``: there are no more; ``end``: the last bytes
    where there are, as far as they are known.

    Raises:
        InputError: this is certainly something else; says what, and how to make NDJSON of it.
    """
    _refuse_foreign(path, head, kind)
    head = head.removeprefix(b"\xef\xbb\xbf")
    rows = head.split(b"\n")
    lines = _filled(rows if whole else rows[:-1])
    if not lines:
        return
    objects = any(line.startswith(b"{") and line.endswith(b"}") for line in lines[1:])
    if objects and not (whole and lines[0].startswith(b"[")):
        return
    text = head.decode("utf-8", "replace")
    if found := _whole_json(text) if whole else _begun_json(text):
        raise _refusal(path, *found, kind)
    last = _filled(end.split(b"\n")[1:])
    if whole or (last and not rows[-1].startswith(b"{")):
        _refuse_tables(path, lines + last)


def _filled(rows: list[bytes]) -> list[bytes]:
    return [line for row in rows if (line := row.strip())]


def _refuse_foreign(path: str, head: bytes, kind: Kind) -> None:
    """Refuse what another program has to unpack or convert."""
    for magic, (what, command) in _FOREIGN.items():
        if head.startswith(magic):
            raise _refusal(path, f"is {what}, not NDJSON", command, kind)
    for encoding, begins in _ENCODINGS.items():
        if re.match(begins, head):
            command = f"iconv -f {encoding} -t UTF-8"
            raise _refusal(path, f"is {encoding[:6]} text, not NDJSON", command, kind)
    if _is_tar(head[:512]):
        raise _refusal(path, "is a tar archive, not NDJSON", "tar -xOf", Kind.PLAIN)


def _is_tar(header: bytes) -> bool:
    """By its checksum, too (POSIX.1-2017, pax, ustar header block): "mustard" is in records."""
    if len(header) < 512 or header[257:262] != b"ustar":
        return False
    told = re.fullmatch(rb"[ 0]*([0-7]+)[ \0]+", header[148:156])
    blank = header[:148] + b" " * 8 + header[156:]
    return told is not None and int(told[1], 8) == sum(blank)


def _whole_json(text: str) -> tuple[str, str] | None:
    """What JSON text is other than an object a line, and what makes that of it; ``None``: nothing
    that is certain.
    """
    found = list(_values(text, 0, _SPACE))
    if not found or text[found[-1][2] :].strip():
        return None
    value, begin, end = found[0]
    if len(found) == 1 and isinstance(value, list):
        return _ARRAY if any(isinstance(item, dict) for item in value) else None
    if not all(isinstance(other, dict) for other, _, _ in found):
        return None
    if len(found) == 1 and value.keys() == {"d"} and isinstance(value["d"], list):
        return _PAYLOAD
    return _SPREAD if "\n" in text[begin:end] else None


def _begun_json(text: str) -> tuple[str, str] | None:
    """The same for the beginning of a text. That it goes on in this way is certain of two objects
    or more on several lines, if they are most of what is there.
    """
    opened = _OPENED.match(text)
    found = list(_values(text, opened.end(), _COMMAS) if opened else _values(text, 0, _SPACE))
    if len(found) < 2 or not all(isinstance(value, dict) for value, _, _ in found):
        return None
    (_, begin, first_end), (_, _, end) = found[0], found[-1]
    if "\n" not in text[begin : end if opened else first_end] or len(text) > 2 * end:
        return None
    if opened is None:
        return _SPREAD
    return _PAYLOAD if opened["payload"] else _ARRAY


def _values(text: str, at: int, gap: re.Pattern[str]) -> Iterator[tuple[Any, int, int]]:
    """The JSON values from an offset on, with where each begins and ends, as far as it is JSON."""
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)  # long numbers are JSON, too
    while True:
        if between := gap.match(text, at):
            at = between.end()
        begin = at
        try:
            value, at = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            return
        yield value, begin, at


def _refuse_tables(path: str, lines: list[bytes]) -> None:
    """Refuse CSV and markup, where no line (``lines`` are those at both ends) begins an object."""
    first = lines[0]
    if first.startswith(b"[") or any(line.startswith(b"{") for line in lines):
        return
    if first.startswith(b"<") and len(lines) > 1 and lines[-1].endswith(b">"):
        raise InputError(path, "is XML or HTML, not NDJSON", _LINE)
    if b"{" not in first and any(_is_table(lines, delimiter) for delimiter in ",;\t"):
        raise InputError(path, "is a table (CSV or the like), not NDJSON", _LINE)


def _is_table(lines: list[bytes], delimiter: str) -> bool:
    """Whether the lines are text in rows of as many fields each."""
    if len(lines) < 2 or any(_CONTROL.search(line) for line in lines):
        return False
    rows = csv.reader((line.decode("latin-1") for line in lines), delimiter=delimiter)
    try:
        widths = {len(row) for row in rows}
    except csv.Error:
        return False
    return len(widths) == 1 and max(widths) > 1


def refused_packing(path: str, why: str, command: str, kind: Kind) -> InputError:
    """The error about an archive that a command has to unpack."""
    if kind is Kind.PIPE:
        return InputError(path, why, f"unpack it first, as `{command}` does for a file")
    remedy = f"run `{command} {shell.quote(path)} | ctbatch run -` with your other options"
    return InputError(path, why, remedy)


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
    source = shell.quote(path)
    made = f"{command} {source}"
    if kind in _UNPACK:
        made = f"{_UNPACK[kind]} {source} | {command}"
    return InputError(path, why, f"run `{made} > {shell.quote(str(new))}` and upload that file")
