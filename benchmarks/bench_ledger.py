"""What recording costs: each batch admitted before it goes out and settled after, durably.

    python -m benchmarks.bench_ledger

As many batches are under way as a run has on the wire, so commits are shared as they are there.
The rate is wall time and depends on the disk; CPU is that of both threads.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.bench_floor import floor, sealing_key
from benchmarks.load import batches
from benchmarks.rounds import PER_PROFILE, interleaved, show
from ctbatch.models import Counts, Span
from ctbatch.pipeline.ledger.accounts import SourceRow
from ctbatch.pipeline.ledger.writer import Ledger

__all__ = ["figures", "main"]

BATCHES = 600
AT_ONCE = 15
LINES = 1000
ROUNDS = 5

_DIGEST = b"d" * 16
_WHOLE = frozenset(range(LINES))
_NONE = frozenset[int]()


async def _record(run_dir: Path) -> tuple[float, float]:
    """Record all batches; seconds of wall time and of CPU."""
    ledger = await asyncio.to_thread(Ledger, run_dir, create=True)
    slots = asyncio.Semaphore(AT_ONCE)

    async def deliver(number: int) -> None:
        span = Span(0, 1 + number * LINES, LINES, number * 300_000, 300_000)
        async with slots:
            await ledger.admit(span, digest=_DIGEST, key_id=1, pending=None, maybe=_WHOLE)
            counts = Counts(processed=LINES)
            await ledger.settle(
                span, digest=_DIGEST, counts=counts, refusals=(), pending=_NONE, maybe=_NONE
            )

    async with ledger:
        await ledger.put_sources([SourceRow("users.ndjson")])
        began_s, cpu_s = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for number in range(BATCHES):
                group.create_task(deliver(number))
        return time.perf_counter() - began_s, time.process_time() - cpu_s


def figures() -> dict[str, float]:
    """CPU and rate, medians."""
    walls, cpus = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="ctbatch-bench-") as made:
            wall_s, cpu_s = asyncio.run(_record(Path(made)))
        walls.append(wall_s)
        cpus.append(cpu_s / BATCHES / LINES * 1e6)
    load, key = batches(10), sealing_key()
    bare = interleaved({"floor": lambda: floor(load, key)}, 10_000)["floor"]
    cpu = statistics.median(cpus)
    return {
        f"ledger, {PER_PROFILE}": cpu,
        "ledger, × floor": cpu / bare,
        "ledger, batches/s": BATCHES / statistics.median(walls),
    }


def main() -> None:
    """Measure and print."""
    show(__doc__, figures)


if __name__ == "__main__":
    main()
