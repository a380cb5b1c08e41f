"""How long `ctbatch --version` takes, beside a bare start of the interpreter.

    python -m benchmarks.bench_start

Medians of interleaved rounds. The target is ten bare starts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from benchmarks.inputs import ROOT

__all__ = ["figures", "main"]

ROUNDS = 9

COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    "ctbatch --version": ["-m", "ctbatch", "--version"],
    "ctbatch run --help": ["-m", "ctbatch", "run", "--help"],
}


def figures(rounds: int = ROUNDS) -> dict[str, float]:
    """Milliseconds by command, and how many bare starts that is."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            began_s = time.perf_counter()
            command = [sys.executable, *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
            taken[name].append((time.perf_counter() - began_s) * 1000)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    bare, *others = medians
    ratios = {f"{name}, × bare": medians[name] / medians[bare] for name in others}
    return {**{f"{name}, ms": value for name, value in medians.items()}, **ratios}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = figures(args.rounds)
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for name, value in found.items():
        print(f"{name:<28} {value:8.2f}")


if __name__ == "__main__":
    main()
