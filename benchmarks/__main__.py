"""The short set: every benchmark that has ``figures()``, in one command and under three minutes.

python -m benchmarks                     # all, kept in benchmarks/results
python -m benchmarks bench_upload --no-save
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import benchmarks
from benchmarks.inputs import ROOT

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"


def names() -> list[str]:
    """The benchmarks there are."""
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name for name in found if name.startswith("bench_"))


def measure(name: str) -> dict[str, float]:
    """Run one and print it."""
    began_s = time.monotonic()
    print(f"\n{name}")
    found: dict[str, float] = importlib.import_module(f"benchmarks.{name}").figures()
    for what, value in found.items():
        print(f"    {what:<44} {value:14,.3f}")
    print(f"    ({time.monotonic() - began_s:.0f} s)", flush=True)
    return found


def save(results: dict[str, dict[str, float]]) -> Path:
    """Keep the figures with what they were measured on, under the time."""
    now = datetime.now(UTC)
    commit = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    told = subprocess.run(commit, check=False, capture_output=True, text=True)
    kept = {
        "measured_at": now.isoformat(timespec="seconds"),
        "commit": told.stdout.strip(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "figures": {
            name: {what: round(value, 4) for what, value in found.items()}
            for name, found in results.items()
        },
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y-%m-%dT%H%M}.json"
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Run the short set, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bench", nargs="*", choices=[*names(), []], help="default: all")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    results = {name: measure(name) for name in args.bench or names()}
    if not args.no_save:
        print(f"\nkept in {save(results).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
