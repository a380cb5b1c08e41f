"""How the small benchmarks measure and print: CPU time, in interleaved rounds, medians.

On a busy machine a round may be twice as slow as the next; parts that are measured in turn are
slowed alike, so ratios within one run hold where times do not.

glibc is told to keep what is freed (:mod:`ctbatch.memory`). Otherwise a loop over batches may give
the memory of each one back to the system and take it anew, page by page: sealing 300 kB took 327 µs
so, and 162 with the memory kept (minima of 500). The client does the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping

from ctbatch.memory import keep_freed

__all__ = ["PER_PROFILE", "interleaved", "show"]

ROUNDS = 9
PER_PROFILE = "µs per profile"


def interleaved(
    parts: Mapping[str, Callable[[], object]], profiles: int, rounds: int = ROUNDS
) -> dict[str, float]:
    """The median over the rounds of each part's CPU time in µs per profile; a part handles so many
    ``profiles`` when it is called. The first call of each is not counted.
    """
    keep_freed()
    taken: dict[str, list[float]] = {name: [] for name in parts}
    for part in parts.values():
        part()
    for _ in range(rounds):
        for name, part in parts.items():
            began_s = time.process_time()
            part()
            taken[name].append((time.process_time() - began_s) / profiles * 1e6)
    return {name: statistics.median(times) for name, times in taken.items()}


def show(about: str | None, figures: Callable[[], Mapping[str, float]]) -> None:
    """Measure and print; the same for each of them."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    found = figures()
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for name, value in found.items():
        print(f"{name:<56} {value:9.3f}")
