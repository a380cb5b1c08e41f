"""One command in a process of its own, and what it and its children used.

CPU is what the kernel says at the end (wait4: the process and every child that it waited for), so
nothing is missed. Memory is sampled: PSS of the process tree, shared pages counted once.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Used", "run_measured"]

SAMPLE_S = 0.05


@dataclass(frozen=True, slots=True)
class Used:
    """What a command used, and what it wrote to its standard output and error."""

    exit_code: int
    began_s: float
    ended_s: float
    user_s: float
    system_s: float
    pss_peak_mb: float
    out: bytes = field(repr=False)
    err: bytes = field(repr=False)

    @property
    def cpu_s(self) -> float:
        """User and system time."""
        return self.user_s + self.system_s


def run_measured(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], sample_s: float = SAMPLE_S
) -> Used:
    """Run a command to its end; times are of the monotonic clock, megabytes are 10^6 bytes."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began_s = time.monotonic()
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=out, stderr=err)
        peak, done = [0], threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, peak, done, sample_s))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        ended_s = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
        done.set()
        watch.join()
        out.seek(0)
        err.seek(0)
        return Used(
            exit_code=process.returncode,
            began_s=began_s,
            ended_s=ended_s,
            user_s=usage.ru_utime,
            system_s=usage.ru_stime,
            pss_peak_mb=peak[0] / 1e6,
            out=out.read(),
            err=err.read(),
        )


def _watch(pid: int, peak: list[int], done: threading.Event, sample_s: float) -> None:
    while not done.wait(sample_s):
        peak[0] = max(peak[0], sum(map(_pss_of, _tree(pid))))


def _tree(pid: int) -> Iterator[int]:
    """A process and all below it, as far as they are still there."""
    yield pid
    try:
        lists = list(Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:
        return
    for listed in lists:
        for child in _read(listed).split():
            yield from _tree(int(child))


def _pss_of(pid: int) -> int:
    """The proportional set size in bytes; 0 of a process that is gone."""
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return int(value.split()[0]) * 1024
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
