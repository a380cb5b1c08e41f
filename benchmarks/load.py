"""The load that the benchmarks share: invented profiles of about 300 bytes."""

from __future__ import annotations

import random

import orjson

from ctbatch.models import Batch, Span

__all__ = ["batches", "profile"]


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
