"""The floor: what it costs to parse each line, look at every key, join and seal; nothing else.

    python -m benchmarks.bench_floor

A bare loop with orjson and pyhpke, as one would write it in an afternoon. It checks nothing, knows
nothing of users, and sends nothing. The other benchmarks give their figures as a multiple of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from benchmarks.load import batches
from benchmarks.rounds import PER_PROFILE, interleaved, show
from ctbatch.crypto.hpke import SealingKey
from ctbatch.crypto.keyset import generate
from ctbatch.models import Batch

__all__ = ["figures", "floor", "main", "sealing_key"]


def sealing_key() -> SealingKey:
    """A new key to seal with."""
    return SealingKey(generate().public(), b"TEST-BEN-CH01")


def look(lines: Iterable[bytes]) -> None:
    """Parse each line and look at every key."""
    for line in lines:
        for name in orjson.loads(line).get("profileData", ()):
            len(name)


def floor(load: Iterable[Batch], key: SealingKey) -> None:
    """The bare loop."""
    for batch in load:
        lines = batch.lines()
        look(lines)
        key.seal(b'{"d":[' + b",".join(lines) + b"]}")


def figures() -> dict[str, float]:
    """The floor and its parts."""
    load, key = batches(20), sealing_key()
    bodies = [b'{"d":[' + b",".join(batch.lines()) + b"]}" for batch in load]

    def seal() -> None:
        for body in bodies:
            key.seal(body)

    def parse() -> None:
        for batch in load:
            look(batch.lines())

    parts = {"floor": lambda: floor(load, key), "split, parse and look": parse, "seal": seal}
    found = interleaved(parts, 20_000)
    return {f"{name}, {PER_PROFILE}": value for name, value in found.items()}


def main() -> None:
    """Measure and print."""
    show(__doc__, figures)


if __name__ == "__main__":
    main()
