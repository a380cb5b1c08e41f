"""What the whole client costs beyond checking and sealing, and beside the floor.

    python -m benchmarks.bench_client

An upload without latency and without worker processes, the bare loop, and the client's own checking
and sealing alone, in interleaved rounds: the CPU of the command and its children per profile, less
what a run of one batch takes. Targets: the rest at most 1.5 µs, the whole at most 1.3 floors.

glibc gives the memory of every batch of a bare loop back to the system and takes it anew, page by
page, which is a third of its time, unless something large was freed before. So each loop runs in a
process of its own, as it is and, "kept", with glibc told to keep what is freed, as the client does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

from benchmarks.bench_floor import floor, sealing_key
from benchmarks.bench_upload import Case, once
from benchmarks.inputs import Profiles
from benchmarks.rounds import PER_PROFILE, show
from benchmarks.sink import Weather
from ctbatch.crypto.keyset import generate, to_binary
from ctbatch.memory import keep_freed
from ctbatch.models import Batch
from ctbatch.pipeline.checker.check import Rules
from ctbatch.pipeline.sealer.sealing import SealerSpec, Sealing

__all__ = ["Round", "alone", "figures", "floor_us", "main", "measured", "upload"]

ROUNDS = 5
LINES = 400_000
LOOP_LINES = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """µs of CPU per profile, measured in one round."""

    floor: float
    check_and_seal: float
    whole: float

    @property
    def rest(self) -> float:
        """Everything but checking and sealing."""
        return self.whole - self.check_and_seal

    @property
    def floors(self) -> float:
        """The whole client as a multiple of the floor."""
        return self.whole / self.floor


def upload(profiles: Profiles) -> float:
    """CPU seconds per profile of an upload of 400,000 such, without those of its start and end."""
    least, whole = (
        once(Case(profiles=replace(profiles, lines=lines), weather=Weather(latency_ms=0)))
        for lines in (1000, LINES + 1000)
    )
    return (whole.used.cpu_s - least.used.cpu_s) / LINES


def measured(rounds: int, bad_every: int = 0) -> dict[str, list[Round]]:
    """So many rounds, of clean profiles or of some with bad lines: beside the loops as they are
    (``""``), and beside kept ones (``", kept"``).
    """
    found: dict[str, list[Round]] = {"": [], ", kept": []}
    for _ in range(rounds):
        loops = {
            name: (alone(floor_us, bad_every, kept), alone(check_and_seal_us, bad_every, kept))
            for name, kept in (("", False), (", kept", True))
        }
        whole = upload(Profiles(lines=LINES, bad_every=bad_every)) * 1e6
        for name, (bare, sealed) in loops.items():
            found[name].append(Round(floor=bare, check_and_seal=sealed, whole=whole))
    return found


def alone(loop: Callable[[int, bool], float], bad_every: int = 0, kept: bool = False) -> float:
    """µs per profile of a loop in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(loop, bad_every, kept).result()


def floor_us(bad_every: int, kept: bool) -> float:
    """The bare loop."""
    key = sealing_key()
    return _timed(lambda load: floor(load, key), bad_every, kept=kept)


def check_and_seal_us(bad_every: int, kept: bool) -> float:
    """The client's own checking and sealing."""
    sealing = Sealing(SealerSpec(to_binary(generate().public()), b"TEST-BEN-CH01", Rules()))

    def prepare(load: list[Batch]) -> None:
        for batch in load:
            sealing.prepare(batch)

    return _timed(prepare, bad_every, kept=kept)


def _timed(work: Callable[[list[Batch]], object], bad_every: int, *, kept: bool) -> float:
    """µs per profile of something done here for the second time."""
    if kept:
        keep_freed()
    load = Profiles(lines=LOOP_LINES, bad_every=bad_every).batches()
    work(load)
    began_s = time.process_time()
    work(load)
    return (time.process_time() - began_s) / LOOP_LINES * 1e6


def figures(rounds: int = ROUNDS) -> dict[str, float]:
    """Medians and, since noise only adds, minima."""
    return {
        what: figure
        for name, taken in measured(rounds).items()
        for what, figure in _found(taken, name).items()
    }


def _found(rounds: list[Round], suffix: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for word, choose in (("median", statistics.median), ("least", min)):
        best = Round(
            floor=choose([one.floor for one in rounds]),
            check_and_seal=choose([one.check_and_seal for one in rounds]),
            whole=choose([one.whole for one in rounds]),
        )
        found |= {
            f"floor{suffix}, {word}, {PER_PROFILE}": best.floor,
            f"check and seal{suffix}, {word}, {PER_PROFILE}": best.check_and_seal,
            f"whole client{suffix}, {word}, {PER_PROFILE}": best.whole,
            f"rest{suffix}, {word}, {PER_PROFILE}": best.rest,
            f"whole client{suffix}, {word}, × floor": best.floors,
        }
    return found


def main() -> None:
    """Measure and print."""
    show(__doc__, figures)


if __name__ == "__main__":
    main()
