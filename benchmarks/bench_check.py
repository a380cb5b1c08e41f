"""What checking costs: as a run does it, and by the exact check alone.

    python -m benchmarks.bench_check

Clean lines; the same with one bad line in a hundred, or ended by CR LF; lines of another writer
(keys left out at random, blanks, escapes); and lines with their keys in no order, of which there is
nothing to learn. Both checks find the same in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.bench_floor import floor, sealing_key
from benchmarks.load import batches, crlf, ragged, shuffled, spoiled
from benchmarks.rounds import PER_PROFILE, interleaved, show
from ctbatch.models import Batch
from ctbatch.pipeline.batcher import digest_of
from ctbatch.pipeline.checker.check import Checker, Rules, check

__all__ = ["figures", "main"]

COUNT = 15


def _each(function: Callable[[Batch], object], load: list[Batch]) -> None:
    for batch in load:
        function(batch)


def figures() -> dict[str, float]:
    """Each check on each load, and as a multiple of the floor."""
    clean, key = batches(COUNT), sealing_key()
    loads = {
        "clean": clean,
        "1 % bad": spoiled(clean),
        "CR LF": crlf(clean),
        "ragged": ragged(clean),
        "in no order": shuffled(clean),
    }
    parts: dict[str, Callable[[], object]] = {"floor": lambda: floor(clean, key)}
    for name, load in loads.items():
        # Each has a checker to itself, taught by the round that is not counted.
        parts[f"check, {name}"] = partial(_each, Checker(Rules()).check, load)
        parts[f"exact check alone, {name}"] = partial(_each, partial(check, rules=Rules()), load)
    parts["digest"] = partial(_each, digest_of, clean)
    found = interleaved(parts, COUNT * 1000)
    return {f"{name}, {PER_PROFILE}": value for name, value in found.items()} | {
        f"{name}, × floor": value / found["floor"] for name, value in found.items()
    }


def main() -> None:
    """Measure and print."""
    show(__doc__, figures)


if __name__ == "__main__":
    main()
