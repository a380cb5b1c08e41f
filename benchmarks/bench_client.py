"""What the whole client costs beyond checking and sealing, and beside the floor.

    python -m benchmarks.bench_client

An upload without latency and without worker processes, the bare loop, and the client's own checking
and sealing alone, in interleaved rounds: the CPU of the command and its children per profile, less
what a run of one batch takes. Targets: the rest at most 1.5 µs, the whole at most 1.3 floors.

glibc gives the memory of every batch of a bare loop back to the system and takes it anew, page by
page, which is a third of its time; a client that holds dozens of batches is spared that. So both
loops are measured twice: as they are, and, "kept", with glibc told to keep what is freed.
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


def _check_and_seal(sealing: Sealing, load: list[Batch]) -> None:
    for batch in load:
        sealing.prepare(batch)


def figures(rounds: int = ROUNDS) -> dict[str, float]:
    """Medians and, since noise only adds, minima."""
    load, key = batches(COUNT), sealing_key()
    sealing = Sealing(SealerSpec(to_binary(generate().public()), b"TEST-BEN-CH01", Rules()))
    parts: dict[str, Callable[[], float]] = {
        "floor": partial(_part, lambda load: floor(load, key), load),
        "check and seal": partial(_part, partial(_check_and_seal, sealing), load),
        "whole client": _upload,
    }
    found = _found(parts, rounds, "")
    keep_memory()
    return found | _found(parts, rounds, " (kept)")


def _found(parts: dict[str, Callable[[], float]], rounds: int, suffix: str) -> dict[str, float]:
    taken = [{name: part() * 1e6 for name, part in parts.items()} for _ in range(rounds)]
    found: dict[str, float] = {}
    for word, choose in (("median", statistics.median), ("least", min)):
        best = {name: choose([one[name] for one in taken]) for name in parts}
        found |= {f"{name}{suffix}, {word}, {PER_PROFILE}": value for name, value in best.items()}
        rest = best["whole client"] - best["check and seal"]
        found[f"rest{suffix}, {word}, {PER_PROFILE}"] = rest
        found[f"whole client{suffix}, {word}, × floor"] = best["whole client"] / best["floor"]
    return found


def main() -> None:
    """Measure and print."""
    show(__doc__, figures)


if __name__ == "__main__":
    main()
