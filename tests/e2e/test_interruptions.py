"""Whatever cut a run off, and however often: what stands at its end is that of one run."""

from __future__ import annotations

import gzip
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import Desk, Started, until
from tests.e2e.people import mixture, profile
from tests.e2e.service import Service
from tests.e2e.standing import what_stands

COUNT = 330


def _lines(prefix: str) -> list[bytes]:
    """Lines for every state, and more reasons than a report has first lines for."""
    lines = mixture(COUNT // 3, prefix)
    lines[20] = profile("poisoned", poison="x", Email="p@example.com")
    return lines


@pytest.fixture
def inputs(desk: Desk, service: Service) -> list[Path]:
    """Three sources, one of them compressed; a service that refuses a batch for one record."""
    service.configure(faults=["poison"])
    plain, last = desk.write("a.ndjson", *_lines("a")), desk.write("c.ndjson", *_lines("c"))
    packed = desk.cwd / "b.ndjson.gz"
    packed.write_bytes(gzip.compress(b"\n".join(_lines("b")) + b"\n"))
    return [plain, packed, last]


def _whole(desk: Desk, inputs: Sequence[Path]) -> dict[str, Any]:
    ended = desk.ctbatch("run", *inputs, "--batch-size", 20, "--run-dir", "whole", "--json")
    assert ended.code == 3, ended.err
    return what_stands(desk.rows("whole"), ended.report)


def _cut_off(service: Service, started: Started, how: int) -> bool:
    """Interrupt after a few answers; whether it was still under way."""
    before = len(service.requests())
    until("answers", lambda: started.is_over() or len(service.requests()) >= before + 4)
    if started.is_over():
        return False
    if how == signal.SIGKILL:
        started.kill()
    else:
        started.send(how)
        assert started.ended().code in {3, 128 + how}
    return True


@pytest.mark.parametrize(
    "hows",
    [
        [signal.SIGTERM, signal.SIGKILL],
        *[
            pytest.param([how] * 5, marks=pytest.mark.slow)
            for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
        ],
        *[
            pytest.param(
                random.Random(seed).choices([signal.SIGINT, signal.SIGTERM, signal.SIGKILL], k=6),
                marks=pytest.mark.slow,
            )
            for seed in range(8)
        ],
    ],
    ids=lambda hows: "-".join(how.name for how in hows),
)
def test_any_interruptions_end_as_one_run(
    desk: Desk, service: Service, inputs: list[Path], hows: list[signal.Signals]
) -> None:
    """SIGINT, SIGTERM and kill -9 in turn, with other batch sizes and concurrency each time, over
    several sources and a compressed one: counts, reasons with their first lines, and files byte
    for byte.
    """
    expected = _whole(desk, inputs)
    assert expected["rejected.ndjson"].count(b"poisoned") == 3
    service.configure(latency_s=0.05)
    args: tuple[object, ...] = ("run", *inputs, "--run-dir", "run", "--batch-size", 15)
    cut = 0
    for number, how in enumerate(hows):
        tuning = ("--concurrency", 1 + number % 3)
        cut += _cut_off(service, desk.start(*args, *tuning), how)
        args = ("resume", "run", "--batch-size", (7, 10, 4)[number % 3])
    assert cut >= 2
    service.configure(latency_s=0)
    ended = desk.ctbatch("resume", "run", "--json")
    assert ended.code == 3, ended.err
    assert what_stands(desk.run, ended.report) == expected
