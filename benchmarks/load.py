"""The load that the benchmarks share: invented profiles of about 300 bytes."""

from __future__ import annotations

import random
from dataclasses import replace

import orjson

from ctbatch.models import Batch, Span

__all__ = ["batches", "crlf", "profile", "ragged", "shuffled", "spoiled"]


def profile(number: int, rng: random.Random) -> bytes:
    """One line, about 300 bytes, ten fields."""
    record = {
        "type": "profile",
        "identity": f"user-{number:09d}",
        "profileData": {
            "Name": f"Person Number {number}",
            "Email": f"person{number}@example.com",
            "Phone": f"+1415555{rng.randrange(10_000):04d}",
            "Gender": rng.choice("MF"),
            "Customer Type": rng.choice(["Gold", "Silver"]),
            "Age": rng.randrange(18, 90),
            "City": "Somewhere",
            "Score": rng.randrange(1_000_000),
            "Note": "x" * 60,
        },
    }
    return orjson.dumps(record)


def batches(count: int, lines: int = 1000) -> list[Batch]:
    """So many batches of distinct profiles; the same ones each time."""
    rng = random.Random(7)
    made = []
    for index in range(count):
        data = b"".join(profile(index * lines + n, rng) + b"\n" for n in range(lines))
        made.append(Batch(Span(0, 1 + index * lines, lines, 0, len(data)), data))
    return made


def spoiled(load: list[Batch], every: int = 100) -> list[Batch]:
    """The same with every so many-th line made bad, in one of four ways."""
    ways = (
        lambda line: line[:-1],
        lambda line: line.replace(b'"identity"', b'"id"'),
        lambda line: line.replace(b'"type":"profile"', b'"type":"user"'),
        lambda line: line.replace(b"x" * 60, b"x" * 600),
    )
    made = []
    for batch in load:
        lines = batch.lines()
        for n, at in enumerate(range(every // 2, len(lines), every)):
            lines[at] = ways[n % len(ways)](lines[at])
        made.append(_with(batch, lines))
    return made


def crlf(load: list[Batch]) -> list[Batch]:
    """The same as Windows ends lines."""
    return [_with(batch, [line + b"\r" for line in batch.lines()]) for batch in load]


def ragged(load: list[Batch]) -> list[Batch]:
    """The same as another writer has it: keys that are left out at random, blanks, and escapes in
    one name of ten.
    """
    rng = random.Random(8)

    def write(line: bytes) -> bytes:
        record = orjson.loads(line)
        data = record["profileData"]
        record["profileData"] = {k: v for k, v in data.items() if rng.random() < 0.8}
        text = orjson.dumps(record).replace(b'":', b'": ').replace(b',"', b', "')
        return text.replace(b"Person", rb"P\u00e9rson") if rng.random() < 0.1 else text

    return [_with(batch, [write(line) for line in batch.lines()]) for batch in load]


def shuffled(load: list[Batch]) -> list[Batch]:
    """The same with the keys of each line in an order of its own."""
    rng = random.Random(9)

    def write(line: bytes) -> bytes:
        record = orjson.loads(line)
        pairs = list(record["profileData"].items())
        rng.shuffle(pairs)
        return orjson.dumps(record | {"profileData": dict(pairs)})

    return [_with(batch, [write(line) for line in batch.lines()]) for batch in load]


def _with(batch: Batch, lines: list[bytes]) -> Batch:
    data = b"".join(line + b"\n" for line in lines)
    return replace(batch, span=replace(batch.span, size=len(data)), data=data)
