"""How the small benchmarks measure and print: CPU time, in interleaved rounds, medians.

On a busy machine a round may be twice as slow as the next; parts that are measured in turn are
slowed alike, so ratios within one run hold where times do not.

glibc is told to keep what is freed (:func:`keep_memory`). Otherwise a loop over batches may give
the memory of each one back to the system and take it anew, page by page: sealing 300 kB took 327 µs
so, and 162 with the memory kept (minima of 500). The client itself, which holds dozens of batches,
meets 20 page faults in each.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

__all__ = ["PER_PROFILE", "interleaved", "keep_memory", "show"]

ROUNDS = 9
PER_PROFILE = "µs per profile"

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 32 << 20


def keep_memory() -> None:
    """Have glibc, where that is the C library, keep up to 32 MB that are freed."""
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)


def interleaved(
    parts: Mapping[str, Callable[[], object]], profiles: int, rounds: int = ROUNDS
) -> dict[str, float]:
    """The median over the rounds of each part's CPU time in µs per profile; a part handles so many
    ``profiles`` when it is called. The first call of each is not counted.
    """
    keep_memory()
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
