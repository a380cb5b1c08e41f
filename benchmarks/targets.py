"""The targets, each measured in interleaved rounds, and whether it was met.

    python -m benchmarks.targets                              # most of an hour
    python -m benchmarks.targets workers start --rounds 7
    python -m benchmarks.targets vendor --clone clevertap-data-upload

Printed are the median of the rounds, the least and the greatest, and the bound; a ratio is that of
two figures of one round. The last needs a clone of the vendor's tool, and Go.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import bench_client, bench_start, vendor
from benchmarks.bench_upload import Case, Measured, once
from benchmarks.inputs import Profiles
from benchmarks.rounds import PER_PROFILE
from benchmarks.sink import Weather

__all__ = ["main"]

ROUNDS = 5
FLOOR_US = 4.0
"""What the bare loop takes on the machine that the rate on all cores is asked of."""


@dataclass(frozen=True, slots=True)
class Target:
    """A figure, its value in each round, and the bounds it has to keep, if any."""

    what: str
    values: list[float]
    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        median = statistics.median(self.values)
        spread = f"({min(self.values):,.3f} to {max(self.values):,.3f})"
        bounds = [("≥", self.least, 1), ("≤", self.most, -1)]
        asked = [
            f"{sign} {bound:,g}  {'met' if way * median >= way * bound else 'MISSED'}"
            for sign, bound, way in bounds
            if bound is not None
        ]
        return f"{self.what:<56} {median:12,.3f}  {spread:<28} {'  '.join(asked)}"


def _upload(lines: int, latency_ms: float, *, workers: str = "0", tls: bool = False) -> Case:
    weather = Weather(latency_ms=latency_ms)
    return Case(profiles=Profiles(lines=lines), weather=weather, workers=workers, tls=tls)


def _in_turns(cases: dict[str, Case], rounds: int) -> dict[str, list[Measured]]:
    taken: dict[str, list[Measured]] = {name: [] for name in cases}
    for case in cases.values():
        case.profiles.path()  # made before anything is measured
    for _ in range(rounds):
        for name, case in cases.items():
            taken[name].append(once(case))
    return taken


def share(rounds: int) -> Iterator[Target]:
    """Of Little's bound, over three million profiles."""
    cases = {
        "200 ms": _upload(3_000_000, 200),
        "100 ms": _upload(3_000_000, 100),
        "200 ms, TLS": _upload(3_000_000, 200, tls=True),
    }
    least = {"200 ms": 0.97, "100 ms": 0.95, "200 ms, TLS": 0.97}
    for name, taken in _in_turns(cases, rounds).items():
        yield Target(f"share of the bound, {name}", [m.share_of_bound for m in taken], least[name])


def client(rounds: int) -> Iterator[Target]:
    """CPU beside the floor, and beside checking and sealing alone."""
    for name, bad_every in (("clean", 0), ("1 % bad", 100)):
        for loops, taken in bench_client.measured(rounds, bad_every).items():
            of = f"{name}{loops}"
            yield Target(f"floor, {of}, {PER_PROFILE}", [one.floor for one in taken])
            yield Target(f"whole client, {of}, × floor", [one.floors for one in taken], most=1.3)
            rest = [one.rest for one in taken]
            yield Target(f"beyond check and seal, {of}, {PER_PROFILE}", rest, most=1.5)


def workers(rounds: int) -> Iterator[Target]:
    """All cores, with the sink on them; so long that how a run begins has little part in it."""
    cases = {count: _upload(10_000_000, 0, workers=count) for count in ("0", "1", "auto")}
    floors: list[float] = []
    rates: dict[str, list[float]] = {count: [] for count in cases}
    for _ in range(rounds):
        floors.append(bench_client.alone(bench_client.floor_us))
        for count, taken in _in_turns(cases, 1).items():
            rates[count].append(taken[0].lines_per_s)
    yield Target(f"floor, {PER_PROFILE}", floors)
    for count, rate in rates.items():
        yield Target(f"--workers {count}, lines/s", rate)
    for count in ("1", "auto"):
        ratios = [some / none for some, none in zip(rates[count], rates["0"], strict=True)]
        yield Target(f"--workers {count}, × --workers 0", ratios, least=1.5)
        scaled = [rate * bare / FLOOR_US for rate, bare in zip(rates[count], floors, strict=True)]
        what = f"--workers {count}, lines/s were the floor {FLOOR_US:g} µs"
        yield Target(what, scaled, least=350_000)


def memory(rounds: int) -> Iterator[Target]:
    """PSS of the process tree, and the time, from 300 thousand to ten million profiles."""
    sizes = (300_000, 3_000_000, 10_000_000)
    cases = {f"{lines:,}": _upload(lines, 0) for lines in sizes}
    taken = _in_turns(cases, rounds)
    for name, runs in taken.items():
        yield Target(f"PSS, {name} profiles, MB", [m.used.pss_peak_mb for m in runs], most=100)
    for name, runs in taken.items():
        yield Target(f"{name} profiles, lines/s", [m.lines_per_s for m in runs])
    few, *_, many = taken.values()
    grown = [b.used.pss_peak_mb / a.used.pss_peak_mb for a, b in zip(few, many, strict=True)]
    yield Target("PSS, × that of the shortest", grown, most=1.1)
    large = replace(_upload(2_000, 500), profiles=Profiles(lines=2_000, line_bytes=100_000))
    runs = _in_turns({"": replace(large, batch=20)}, rounds)[""]
    yield Target("PSS, profiles of 100 kB, MB", [m.used.pss_peak_mb for m in runs])


def tls(rounds: int) -> Iterator[Target]:
    """What it costs, on both event loops."""
    plain, sealed = _upload(400_000, 0), _upload(400_000, 0, tls=True)
    cases = {
        "uvloop": plain,
        "uvloop, TLS": sealed,
        "standard loop": replace(plain, uvloop=False),
        "standard loop, TLS": replace(sealed, uvloop=False),
    }
    for name, taken in _in_turns(cases, rounds).items():
        cpu = [m.used.cpu_s / m.case.profiles.lines * 1e6 for m in taken]
        yield Target(f"{name}, {PER_PROFILE}, start and end included", cpu)


def start(rounds: int) -> Iterator[Target]:
    """`ctbatch --version`, in bare starts of the interpreter."""
    ratios = [bench_start.figures(1)["ctbatch --version, × bare"] for _ in range(rounds)]
    yield Target("ctbatch --version, × a bare start", ratios, most=10)


def the_vendor(rounds: int, clone: Path) -> Iterator[Target]:
    """The vendor's own tool, in plaintext, beside this client."""
    profiles = Profiles(lines=bench_client.LINES + 1000)
    least = replace(profiles, lines=1000)
    theirs, ours = [], []
    with vendor.built(clone) as tool:
        for _ in range(rounds):
            more = vendor.upload(tool, profiles) - vendor.upload(tool, least)
            theirs.append(more / bench_client.LINES * 1e6)
            ours.append(bench_client.upload(profiles) * 1e6)
    yield Target(f"the vendor's tool, {PER_PROFILE}", theirs)
    yield Target(f"whole client, {PER_PROFILE}", ours)
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    yield Target("the vendor's tool, × whole client", ratios, least=7)


GROUPS: dict[str, Callable[[int], Iterator[Target]]] = {
    group.__name__: group for group in (share, workers, memory, tls, start, client)
}


def main() -> None:
    """Measure those that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*GROUPS, "vendor"]
    parser.add_argument("group", nargs="*", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--clone", type=Path, help="the vendor's tool's repository")
    args = parser.parse_args()
    asked = args.group or (names if args.clone else list(GROUPS))
    if unknown := set(asked) - set(names):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    if "vendor" in asked and args.clone is None:
        parser.error("vendor needs --clone")
    for name in asked:
        print(f"\n{name}", flush=True)
        rounds: int = args.rounds
        found = the_vendor(rounds, args.clone) if name == "vendor" else GROUPS[name](rounds)
        for target in found:
            print(f"    {target}", flush=True)


if __name__ == "__main__":
    main()
