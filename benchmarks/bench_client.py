"""What the whole client costs beyond checking and sealing, and beside the floor.

    python -m benchmarks.bench_client

An upload without latency and without worker processes, the bare loop, and the client's own checking
and sealing alone, in interleaved rounds: the CPU of the command and its children per profile, less
what a run of one batch takes. Targets: the rest at most 1.5 µs, the whole at most 1.3 floors.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

from benchmarks.bench_floor import floor, sealing_key
from benchmarks.bench_upload import Case, once
from benchmarks.inputs import Profiles
from benchmarks.load import batches
from benchmarks.rounds import PER_PROFILE, keep_memory, show
from benchmarks.sink import Weather
from ctbatch.crypto.keyset import generate, to_binary
from ctbatch.models import Batch
from ctbatch.pipeline.checker.check import Rules
from ctbatch.pipeline.sealer.sealing import SealerSpec, Sealing

__all__ = ["figures", "main"]

ROUNDS = 5
LINES = 400_000
COUNT = 50


def _upload() -> float:
    """CPU seconds of an upload, without those of its start and end."""
    weather = Weather(latency_ms=0)
    least, whole = (
        once(Case(profiles=Profiles(lines=lines), weather=weather)).used.cpu_s
        for lines in (1000, LINES + 1000)
    )
    return (whole - least) / LINES


def _part(work: Callable[[list[Batch]], object], load: list[Batch]) -> float:
    """CPU seconds per profile of something done here."""
    began_s = time.process_time()
    work(load)
    return (time.process_time() - began_s) / sum(batch.span.lines for batch in load)


def figures(rounds: int = ROUNDS) -> dict[str, float]:
    """Medians and, since noise only adds, minima."""
    keep_memory()
    load, key = batches(COUNT), sealing_key()
    sealing = Sealing(SealerSpec(to_binary(generate().public()), b"TEST-BEN-CH01", Rules()))
    parts: dict[str, Callable[[], float]] = {
        "floor": partial(_part, lambda load: floor(load, key), load),
        "check and seal": partial(_part, lambda load: [sealing.prepare(b) for b in load], load),
        "whole client": _upload,
    }
    taken = [{name: part() * 1e6 for name, part in parts.items()} for _ in range(rounds)]
    found: dict[str, float] = {}
    for word, choose in (("median", statistics.median), ("least", min)):
        best = {name: choose([one[name] for one in taken]) for name in parts}
        found |= {f"{name}, {word}, {PER_PROFILE}": value for name, value in best.items()}
        rest = best["whole client"] - best["check and seal"]
        found[f"rest, {word}, {PER_PROFILE}"] = rest
        found[f"whole client, {word}, × floor"] = best["whole client"] / best["floor"]
    return found


def main() -> None:
    """Measure and print."""
    show(__doc__, figures)


if __name__ == "__main__":
    main()
