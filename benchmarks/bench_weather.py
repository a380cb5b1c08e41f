"""What gets through when the service takes less than was hoped for.

    python -m benchmarks.bench_weather

Four kinds of weather, each with a bound of its own: a steady service; a cap of five requests at a
time, since the account is shared (more are answered 429); a service that does eight at a time, so
that latency grows with load; and one in which three requests of ten fail (500). Printed is the
share of what the service could do, from the first request to the end of the process, nothing
allowed, and the share of the requests that was refused.
"""

from __future__ import annotations

import argparse
import json

from benchmarks.bench_upload import Case, once
from benchmarks.inputs import Profiles
from benchmarks.sink import Weather

__all__ = ["figures", "main"]

LATENCY_MS = 250.0
BATCH = 500
"""Half of what is allowed: more replies to learn from."""

WEATHERS = {
    "steady": (Weather(latency_ms=LATENCY_MS), 15),
    "cap of 5": (Weather(latency_ms=LATENCY_MS, cap=5), 5),
    "8 at a time": (Weather(latency_ms=LATENCY_MS, capacity=8), 8),
    "3 in 10 fail": (Weather(latency_ms=LATENCY_MS, failing_percent=30), 15 * 0.7),
}
"""Each with how many requests the service does at a time, as far as they come to something."""


def figures(seconds: float = 4.0) -> dict[str, float]:
    """The shares by weather, over inputs that would take so many seconds at best."""
    found: dict[str, float] = {}
    for name, (weather, at_a_time) in WEATHERS.items():
        batches = round(seconds * 1000 / LATENCY_MS * at_a_time)
        profiles = Profiles(lines=batches * BATCH)
        measured = once(Case(profiles=profiles, weather=weather, batch=BATCH))
        bound_s = batches / at_a_time * LATENCY_MS / 1000
        found[f"{name}: share of the bound"] = bound_s / measured.elapsed_s
        found[f"{name}: refused, %"] = measured.refused_percent
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each weather, at best")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = figures(args.seconds)
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for name, value in found.items():
        print(f"{name:<32} {value:8.3f}")


if __name__ == "__main__":
    main()
