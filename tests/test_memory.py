"""A process that handles batches keeps memory, and seldom looks for garbage."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys

import pytest

from ctbatch import memory
from ctbatch.cli import loop

FAULTS = """
import resource
from ctbatch import memory
{settle}
def batch():
    return [bytes(300_000) for _ in range(20)]
batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(settle: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS.format(settle=settle)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is what is told")
def test_what_is_freed_is_kept() -> None:
    """The pages of one batch are those of the next: a page fault is for what is new."""
    assert _faults("memory.settle()") < _faults("") / 10


async def _settled() -> tuple[int, int]:
    await asyncio.sleep(0)
    return gc.get_threshold()[0], gc.get_freeze_count()


def test_a_command_has_settled_before_its_work() -> None:
    """What start-up made is not gone through again."""
    gc.unfreeze()
    gc.set_threshold(700)
    threshold, frozen = loop.run(_settled())
    assert threshold == memory.COLLECT_AFTER
    assert frozen > 0
