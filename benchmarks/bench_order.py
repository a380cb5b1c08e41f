"""What keeping each user's records in order costs.

    python -m benchmarks.bench_order

Batches are announced and released as a run does it, 34 unfinished at a time: identities that never
repeat, sorted and in no order, one identity in every line, and the worst case, batches that all
have the same thousand.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from functools import partial

from benchmarks.bench_floor import floor, sealing_key
from benchmarks.load import batches
from benchmarks.rounds import PER_PROFILE, interleaved, show
from ctbatch.models import Names
from ctbatch.pipeline.ordering import OrderGuard

__all__ = ["figures", "main"]

COUNT = 60
UNFINISHED = 34
LINES = 1000


def made(load: list[list[str]]) -> Iterator[list[str]]:
    """Names as they come from a lane: strings of their own, their hashes not known yet."""
    for names in load:
        yield [name[:4] + name[4:] for name in names]


def through(load: list[list[str]]) -> None:
    """All batches, each released when so many later ones have been announced."""
    guard, unfinished = OrderGuard(), deque[int]()
    for seq, names in enumerate(made(load)):
        guard.announce(seq, Names(names))
        unfinished.append(seq)
        if len(unfinished) > UNFINISHED:
            guard.release(unfinished.popleft())
    while unfinished:
        guard.release(unfinished.popleft())


def figures() -> dict[str, float]:
    """Each kind of file, less what making the names costs."""
    distinct = [[f"user-{seq}-{n:06}" for n in range(LINES)] for seq in range(COUNT)]
    shuffled = [name for names in distinct for name in names]
    random.Random(7).shuffle(shuffled)
    mixed = [shuffled[at : at + LINES] for at in range(0, len(shuffled), LINES)]
    same = [[f"user-{n:06}" for n in range(LINES)] for _ in range(COUNT)]
    one = [["user-000000"] * LINES for _ in range(COUNT)]
    load, key = batches(COUNT // 4), sealing_key()
    copying = "making the names"
    found = interleaved(
        {
            "floor": lambda: floor(load, key),
            copying: lambda: deque(made(distinct), maxlen=0),  # kept for no longer than by a guard
            "order, sorted": partial(through, distinct),
            "order, no identity repeats": partial(through, mixed),
            "order, one identity in all lines": partial(through, one),
            "order, the same thousand in all batches": partial(through, same),
        },
        COUNT * LINES,
    )
    found["floor"] *= COUNT / len(load)
    orders = {
        name: max(0.0, value - found[copying])
        for name, value in found.items()
        if name.startswith("order")
    }
    return {f"{name}, {PER_PROFILE}": value for name, value in orders.items()} | {
        f"{name}, × floor": value / found["floor"] for name, value in orders.items()
    }


def main() -> None:
    """Measure and print."""
    show(__doc__, figures)


if __name__ == "__main__":
    main()
