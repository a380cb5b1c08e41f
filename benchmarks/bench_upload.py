"""A whole upload, from the command to its report, against a sink that costs next to nothing.

    python -m benchmarks.bench_upload --lines 1000000 --latency-ms 200
    python -m benchmarks.bench_upload --lines 300000 --latency-ms 0 --workers 0 --tls

What start-up and the end cost is measured by a run of one batch and taken off the CPU. The share of
the bound is that of ``concurrency × batch / latency``, from the first request to the end of the
process, with eight round trips allowed for the canary, finding the limit, and the end: it says
something where the run is much longer than these, a million lines at 200 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.inputs import ROOT, Profiles
from benchmarks.process import Used, run_measured
from benchmarks.sink import Seen, Weather, running
from ctbatch.crypto.hpke import SealingKey
from ctbatch.crypto.upkeep import generate_files
from ctbatch.settings import Batching

__all__ = ["Case", "Measured", "figures", "main", "measure", "once"]

ACCOUNT = "TEST-BEN-CH01"
ALLOWED_ROUND_TRIPS = 8

_STANDARD_LOOP = (
    "import asyncio, sys, uvloop; uvloop.new_event_loop = asyncio.new_event_loop;"
    " from ctbatch.__main__ import main; sys.exit(main())"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One upload."""

    profiles: Profiles
    weather: Weather
    workers: str = "0"
    batch: int = 1000
    concurrency: int = 15
    tls: bool = False
    uvloop: bool = True

    @property
    def records(self) -> int:
        """Records in a request: every batch is full, and as many lines of each are bad."""
        bad_every = self.profiles.bad_every
        assert self.profiles.lines % self.batch == 0, "the last batch has to be full"
        assert not bad_every or self.batch % bad_every == 0, "all batches have to be alike"
        return self.batch - (self.batch // bad_every if bad_every else 0)

    @property
    def bound_s(self) -> float:
        """How long the service's latency alone would take."""
        rounds = self.profiles.lines / self.batch / self.concurrency
        return rounds * self.weather.latency_ms / 1000


@dataclass(frozen=True, slots=True)
class Measured:
    """An upload and what the sink saw of it."""

    case: Case
    used: Used
    seen: Seen

    @property
    def elapsed_s(self) -> float:
        """From the first request to the end of the process."""
        return self.used.ended_s - self.seen.first_s

    @property
    def lines_per_s(self) -> float:
        """Start-up excluded."""
        return self.case.profiles.lines / self.elapsed_s

    @property
    def share_of_bound(self) -> float:
        """1 is all that the latency allows."""
        allowed_s = ALLOWED_ROUND_TRIPS * self.case.weather.latency_ms / 1000
        return min(1.0, self.case.bound_s / max(self.elapsed_s - allowed_s, 1e-9))

    @property
    def refused_percent(self) -> float:
        """Requests answered 429."""
        return 100 * self.seen.refused / self.seen.requests

    def figures(self) -> dict[str, float]:
        """What is printed."""
        bound = {"share of the bound": self.share_of_bound} if self.case.bound_s else {}
        return {
            "wall, s": self.used.ended_s - self.used.began_s,
            "start-up, s": self.seen.first_s - self.used.began_s,
            "rate, lines/s": self.lines_per_s,
            "CPU, s": self.used.cpu_s,
            **bound,
            "peak in flight": self.seen.peak_in_flight,
            "refused, %": self.refused_percent,
            "PSS peak, MB": self.used.pss_peak_mb,
            "sink CPU, s": self.seen.cpu_s,
        }


def once(case: Case) -> Measured:
    """Upload the file once, which is in the system's cache then: no disk is waited for."""
    _read_through(case.profiles.path())
    with tempfile.TemporaryDirectory(prefix="ctbatch-bench-") as made:
        folder = Path(made)
        server, client = generate_files(folder / "server"), generate_files(folder / "client")
        said = {"status": "success", "processed": case.records, "unprocessed": []}
        reply = SealingKey(client.keyset.public(), ACCOUNT.encode()).seal(json.dumps(said).encode())
        with running(case.weather, reply, folder if case.tls else None) as sink:
            ctbatch = ["-m", "ctbatch"] if case.uvloop else ["-c", _STANDARD_LOOP]
            command = [sys.executable, *ctbatch]
            command += ["run", str(case.profiles.path()), "--base-url", sink.url, "--quiet"]
            command += ["--server-key", str(server.public), "--client-key", str(client.private)]
            command += ["--account-id", ACCOUNT, "--run-dir", str(folder / "run")]
            command += ["--workers", case.workers, "--batch-size", str(case.batch)]
            command += ["--concurrency", str(case.concurrency)]
            room = 2 * case.batch * case.profiles.line_bytes
            if room > Batching().max_batch_bytes:  # otherwise as everybody has it
                command += ["--max-batch-bytes", str(room)]
            if sink.ca_file is not None:
                command += ["--ca-file", str(sink.ca_file)]
            env = os.environ | {"CLEVERTAP_PASSCODE": "benchmark", "PYTHONPATH": str(ROOT)}
            env["PYTHONDONTWRITEBYTECODE"] = ""  # or else each start compiles what was changed
            used = run_measured(command, cwd=folder, env=env)
            seen = sink.end()
    if used.exit_code != (3 if case.profiles.bad_every else 0):
        raise SystemExit(f"exit {used.exit_code}: {used.err.decode(errors='replace')}")
    return Measured(case, used, seen)


def _read_through(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def measure(case: Case) -> dict[str, float]:
    """Figures of one upload, with the CPU per profile that a run of one batch does not have."""
    case.profiles.path()
    least = once(replace(case, profiles=replace(case.profiles, lines=case.batch)))
    whole = once(case)
    more = case.profiles.lines - case.batch
    per_profile = (whole.used.cpu_s - least.used.cpu_s) / max(more, 1) * 1e6
    return {**whole.figures(), "CPU, µs per profile": per_profile}


def figures() -> dict[str, float]:
    """The short set: at the service's latency, and at none with a worker, and with TLS."""
    steady = Case(profiles=Profiles(lines=450_000), weather=Weather(latency_ms=200))
    flat_out = Case(profiles=Profiles(lines=300_000), weather=Weather(latency_ms=0))
    kept = ("share of the bound", "rate, lines/s", "CPU, µs per profile", "PSS peak, MB")
    cases = {
        "200 ms": steady,
        "0 ms, 1 worker": replace(flat_out, workers="1"),
        "0 ms, TLS": replace(flat_out, tls=True),
    }
    return {
        f"{name}: {what}": value
        for name, case in cases.items()
        for what, value in measure(case).items()
        if what in kept
    }


def main() -> None:
    """Measure one case and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=300_000)
    parser.add_argument("--line-bytes", type=int, default=300)
    parser.add_argument("--bad-every", type=int, default=0, help="every N-th line is refused here")
    parser.add_argument("--scattered", action="store_true", help="identities in no order")
    parser.add_argument("--latency-ms", type=float, default=200.0)
    parser.add_argument("--workers", default="0", help="as of `ctbatch run`")
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=15)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--standard-loop", action="store_true", help="instead of uvloop")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(
        Case(
            profiles=Profiles(
                lines=args.lines,
                line_bytes=args.line_bytes,
                bad_every=args.bad_every,
                scattered=args.scattered,
            ),
            weather=Weather(latency_ms=args.latency_ms),
            workers=args.workers,
            batch=args.batch,
            concurrency=args.concurrency,
            tls=args.tls,
            uvloop=not args.standard_loop,
        )
    )
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for name, value in found.items():
        print(f"{name:<22} {value:12,.3f}")


if __name__ == "__main__":
    main()
