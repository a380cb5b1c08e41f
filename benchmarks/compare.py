"""One benchmark on two commits, in turns, so that what disturbs the machine disturbs both.

    python -m benchmarks.compare main HEAD bench_check
    python -m benchmarks.compare main HEAD bench_upload --rounds 7 -- --latency-ms 0 --workers 0

Each commit is checked out beside this one, with the benchmarks as they are here (so it has to have
what these use of it), and measured with this interpreter and its packages. Printed are the medians
and, of the rounds' ratios (second to first), the median, the least and the greatest: a change is
one where these agree.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.inputs import ROOT

__all__ = ["main"]


@contextmanager
def checked_out(ref: str) -> Iterator[Path]:
    """A commit in a directory of its own, with the benchmarks of this one."""
    git = ["git", "-C", str(ROOT)]
    with tempfile.TemporaryDirectory(prefix="ctbatch-compare-") as made:
        tree = Path(made) / "tree"
        subprocess.run([*git, "worktree", "add", "-q", "--detach", str(tree), ref], check=True)
        try:
            shutil.copytree(ROOT / "benchmarks", tree / "benchmarks", dirs_exist_ok=True)
            yield tree
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)


def measure(tree: Path, bench: str, arguments: Sequence[str]) -> dict[str, float]:
    """The figures of one run in a checkout."""
    command = [sys.executable, "-m", f"benchmarks.{bench}", "--json", *arguments]
    env = os.environ | {"PYTHONPATH": str(tree)}
    ran = subprocess.run(command, cwd=tree, env=env, check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="What follows -- goes to the benchmark."
    )
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("bench")
    parser.add_argument("--rounds", type=int, default=5)
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    args, arguments = parser.parse_args(given[:end]), given[end + 1 :]
    first: list[dict[str, float]] = []
    second: list[dict[str, float]] = []
    with checked_out(args.first) as one, checked_out(args.second) as two:
        for number in range(args.rounds):
            turns = [(first, one), (second, two)]
            for found, tree in turns if number % 2 == 0 else turns[::-1]:
                found.append(measure(tree, args.bench, arguments))
    print(f"{'':<36} {args.first[:12]:>12} {args.second[:12]:>12}   ratio (least to greatest)")
    for name in first[0]:
        before, after = ([found[name] for found in side] for side in (first, second))
        ratios = [b / a if a else float("nan") for a, b in zip(before, after, strict=True)]
        print(
            f"{name:<36} {statistics.median(before):12,.3f} {statistics.median(after):12,.3f}"
            f"   {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
