"""What checking and sealing cost, each by itself, beside a bare parse-and-join loop.

    python -m benchmarks.bench_check

Prints the median of nine interleaved rounds in µs of CPU per profile, and the ratio to the floor:
a loop that parses each line with orjson, looks at every key, joins and seals, and checks nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import orjson

from benchmarks.load import batches
from ctbatch.crypto.hpke import SealingKey
from ctbatch.crypto.keyset import generate
from ctbatch.models import Batch
from ctbatch.pipeline.batcher import digest_of
from ctbatch.pipeline.checker import Rules, check, record_bytes
from ctbatch.pipeline.lanes import frame

ROUNDS = 9


def parts(key: SealingKey) -> dict[str, Callable[[Batch], object]]:
    """What is measured, by name."""

    def floor(batch: Batch) -> None:
        lines = batch.lines()
        for line in lines:
            for name in orjson.loads(line)["profileData"]:
                len(name)
        key.seal(frame(lines))

    return {
        "floor": floor,
        "check": lambda batch: check(batch, Rules()),
        "frame and seal": lambda batch: key.seal(frame([record_bytes(n) for n in batch.lines()])),
        "digest": digest_of,
    }


def main() -> None:
    """Measure and print."""
    measured = parts(SealingKey(generate().public(), b"TEST-EMU-0001"))
    load = batches(20)
    taken: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(ROUNDS):
        for name, part in measured.items():
            started = time.process_time()
            for batch in load:
                part(batch)
            taken[name].append((time.process_time() - started) / 20_000 * 1e6)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    for name, median in medians.items():
        print(f"{name:<16} {median:6.2f} µs per profile   {median / medians['floor']:5.2f} × floor")


if __name__ == "__main__":
    main()
