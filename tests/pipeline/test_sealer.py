"""The sealing pool: every job is done, dead workers are replaced, and workers come when needed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ctbatch.crypto.keyset import generate, to_binary
from ctbatch.errors import SealerFailed
from ctbatch.models import Batch, SealedBatch, Span
from ctbatch.pipeline.checker.check import Rules
from ctbatch.pipeline.sealer.lanes import Inline
from ctbatch.pipeline.sealer.pool import (
    WINDOW_S,
    Pressure,
    Sealer,
    Workers,
    usable_cpus,
    workers_for,
)
from ctbatch.pipeline.sealer.sealing import Sealed, SealerSpec, Sealing, frame
from ctbatch.pipeline.sealer.worker import DEPTH, Worker
from tests.pipeline.lines import profile
from tests.pipeline.test_lanes import send_signal

SPEC = SealerSpec(None, b"", Rules())
LINE = profile()
BATCH = Batch(Span(0, 1, 1, 0, len(LINE)), LINE)


class Scripted(Inline):
    """A lane that notes what happens to it, and dies when it is told to."""

    made: list[Scripted]

    def __init__(self, sealing: Sealing) -> None:
        super().__init__(sealing)
        self.jobs = 0
        self.closed = False
        type(self).made.append(self)

    async def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Seal, or die of the word."""
        self.jobs += 1
        if b"die" in records:
            raise EOFError
        return await super().seal(records)

    async def close(self) -> None:
        """Note it."""
        assert not self.closed
        self.closed = True


class Here(Scripted):
    """In place of the lane in this process."""


class There(Scripted):
    """In place of a worker."""


class Counted(Pressure):
    """Says that a worker is needed after given numbers of jobs."""

    def __init__(self, *due: int) -> None:
        super().__init__(0, 0)
        self._due, self._jobs = due, 0

    def job_done(
        self,
        now_s: float,
        cpu: Callable[[], float],
        *,
        waited_s: float,
        took_s: float,
        workers: int,
    ) -> bool:
        """Whether it is due."""
        assert min(now_s, cpu(), waited_s, took_s, workers) >= 0
        self._jobs += 1
        return self._jobs in self._due


@pytest.fixture(autouse=True)
def _nothing_made() -> None:
    Here.made, There.made = [], []


def pool(workers: Workers, pressure: Pressure | None = None) -> Sealer:
    """A pool of scripted lanes."""
    return Sealer(SPEC, workers, inline=Here.start, worker=There.start, pressure=pressure)


async def test_jobs_are_done_and_lanes_are_made_once() -> None:
    """Many jobs at a time share the lanes that there are, which end with the pool."""
    async with pool(Workers(2, 0)) as sealer:
        sealed = await asyncio.gather(*(sealer.seal([LINE]) for _ in range(30)))
        assert {n.body for n in sealed} == {frame([LINE])}
        prepared: Sealed = await sealer.prepare(BATCH)
        assert prepared.batch.body == frame([LINE])
    assert 1 <= len(There.made) <= 2
    assert not Here.made
    assert all(lane.closed for lane in There.made)


async def test_jobs_are_begun_in_the_order_in_which_they_were_asked_for() -> None:
    """Also where others ask all the time: a batch that is sealed late holds up all after it."""
    asked, begun = list[int](), list[int]()

    async def ask(number: int) -> None:
        asked.append(number)
        await sealer.seal([b"%d" % number])

    class Noting(Here):
        """A lane that notes the order of its jobs, at the end of which somebody new asks."""

        async def seal(self, records: Sequence[bytes]) -> SealedBatch:
            begun.append(int(records[0]))
            sealed = await super().seal(records)
            if len(begun) < 40:
                group.create_task(ask(len(begun) + 7))
            return sealed

    async with (
        Sealer(SPEC, Workers(0, 0), inline=Noting.start) as sealer,
        asyncio.TaskGroup() as group,
    ):
        for number in range(7):
            group.create_task(ask(number))
    assert begun == asked
    assert len(begun) > 40


async def test_a_worker_that_dies_is_replaced_and_its_job_done_again() -> None:
    """A real one, killed: nobody notices but the system."""
    made: list[Worker] = []

    async def make(spec: SealerSpec) -> Worker:
        made.append(await Worker.start(spec))
        return made[-1]

    async with Sealer(SPEC, Workers(1, 0), worker=make) as sealer:
        first = await sealer.prepare(BATCH)
        send_signal(made[0], signal.SIGKILL)
        again = await sealer.prepare(BATCH)
    assert replace(again, seconds=0) == replace(first, seconds=0)
    assert len(made) == 2


async def test_all_jobs_of_a_worker_that_dies_are_done_again() -> None:
    """Also the one that it had not begun with: a stopped worker is given its fill, and killed."""
    made: list[Worker] = []

    async def make(spec: SealerSpec) -> Worker:
        made.append(await Worker.start(spec))
        return made[-1]

    async with Sealer(SPEC, Workers(1, 0), worker=make) as sealer:
        await sealer.prepare(BATCH)
        send_signal(made[0], signal.SIGSTOP)
        jobs = [asyncio.ensure_future(sealer.seal([LINE])) for _ in range(DEPTH + 1)]
        await asyncio.sleep(0)
        send_signal(made[0], signal.SIGKILL)
        assert {(await job).body for job in jobs} == {frame([LINE])}
    assert len(made) == 2


async def test_a_job_that_two_workers_die_of_ends_the_run() -> None:
    """It is not tried for ever; other jobs are done on a new worker."""
    async with pool(Workers(1, 0)) as sealer:
        with pytest.raises(SealerFailed):
            await sealer.seal([b"die"])
        assert (await sealer.seal([LINE])).body == frame([LINE])
    assert [lane.jobs for lane in There.made] == [1, 1, 1]
    assert all(lane.closed for lane in There.made)


async def test_after_rekey_what_begins_is_sealed_with_the_new_key() -> None:
    """Lanes of the old key end when they are next needed."""
    key = generate().public()
    async with pool(Workers(1, 0)) as sealer:
        assert (await sealer.seal([LINE])).key_id is None
        sealer.rekey(replace(SPEC, keyset=to_binary(key)))
        assert (await sealer.seal([LINE])).key_id == key.primary.id
    assert [lane.closed for lane in There.made] == [True, True]


async def test_a_worker_takes_over_where_one_is_of_use() -> None:
    """The pool begins in this process; once a worker is ready, nothing is sealed here any more."""
    async with pool(Workers(0, 2), Counted(3, 4)) as sealer:
        jobs = 0
        for workers in (1, 2):
            while sealer.workers < workers:
                await sealer.seal([LINE])
                jobs += 1
        done_here = Here.made[0].jobs
        await asyncio.gather(*(sealer.seal([LINE]) for _ in range(20)))
    (here,) = Here.made
    assert here.closed
    assert 3 <= done_here <= here.jobs <= done_here + 1
    assert here.jobs + sum(lane.jobs for lane in There.made) == jobs + 20
    assert all(lane.closed for lane in There.made)


async def test_jobs_go_on_while_a_worker_begins() -> None:
    """What is waited for when one is made is the worker only."""
    ready, begun = asyncio.Event(), asyncio.Event()

    async def slow(spec: SealerSpec) -> There:
        await ready.wait()
        begun.set()
        return await There.start(spec)

    async with Sealer(
        SPEC, Workers(0, 1), inline=Here.start, worker=slow, pressure=Counted(1)
    ) as sealer:
        for _ in range(5):
            await sealer.seal([LINE])
        assert (sealer.workers, Here.made[0].jobs) == (0, 5)
        ready.set()
        await begun.wait()
        for _ in range(3):
            await sealer.seal([LINE])
        assert (sealer.workers, There.made[0].jobs > 0) == (1, True)
    assert all(lane.closed for lane in Here.made + There.made)


async def test_a_worker_that_begins_when_the_pool_ends_is_not_waited_for() -> None:
    """What it has of the system is given back all the same: that is its maker's to do."""

    async def never(_: SealerSpec) -> There:
        await asyncio.Event().wait()
        raise AssertionError

    async with Sealer(
        SPEC, Workers(0, 1), inline=Here.start, worker=never, pressure=Counted(1)
    ) as sealer:
        await sealer.seal([LINE])
    assert Here.made[0].closed


async def test_who_does_not_wait_any_more_is_in_nobodys_way() -> None:
    """Jobs are given up at every moment; those after them get results of their own."""
    async with Sealer(SPEC, Workers(1, 0)) as sealer:
        await sealer.prepare(BATCH)
        for turns in range(20):
            jobs = [asyncio.ensure_future(sealer.seal([LINE, LINE])) for _ in range(DEPTH + 2)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for job in jobs:
                job.cancel()
            assert (await sealer.seal([LINE])).body == frame([LINE])


async def test_a_worker_that_cannot_begin_is_done_without() -> None:
    """The lane in this process works on, and no other is tried."""

    async def broken(_: SealerSpec) -> Worker:
        raise OSError

    async with Sealer(
        SPEC, Workers(0, 2), inline=Here.start, worker=broken, pressure=Counted(1, 2, 3)
    ) as sealer:
        for _ in range(5):
            await sealer.seal([LINE])
        assert sealer.workers == 0
    assert Here.made[0].jobs == 5


async def test_a_bug_in_a_worker_to_be_is_told_after_all_lanes_ended() -> None:
    """It is kept until the pool ends, and no process is left behind for it."""

    async def broken(_: SealerSpec) -> Worker:
        raise NotImplementedError

    sealer = Sealer(SPEC, Workers(0, 1), inline=Here.start, worker=broken, pressure=Counted(1))
    for _ in range(3):
        await sealer.seal([LINE])
        await asyncio.sleep(0)
    with pytest.raises(NotImplementedError):
        await sealer.__aexit__()
    assert Here.made[0].closed


def pressed(
    *shares: tuple[float, float], workers: int, queue: float = 2.0, places: int = 1
) -> bool:
    """What is said after windows in which this process and the lanes were busy for such shares, and
    so many batches waited for one; ten jobs are done in the time that a window takes at least.
    """
    pressure, now_s, cpu_s = Pressure(0, 0, jobs=places), 0.0, 0.0
    due = False
    for cpu, lanes in shares:
        for _ in range(10):
            now_s, cpu_s = now_s + WINDOW_S / 9, cpu_s + WINDOW_S / 9 * cpu
            due |= pressure.job_done(
                now_s,
                partial(float, cpu_s),
                waited_s=WINDOW_S / 9 * queue,
                took_s=WINDOW_S / 9 * lanes,
                workers=workers,
            )
    return due


def test_the_first_worker_comes_when_this_process_has_no_time_left() -> None:
    """Not while the run waits for the service, nor for what filling all places takes."""
    assert pressed((1, 0.6), (1, 0.6), workers=0)
    assert not pressed((0.45, 0.4), (0.45, 0.4), (0.45, 0.4), workers=0)
    assert not pressed((1, 1), (0.2, 0.1), (0.2, 0.1), (1, 1), workers=0)


def test_filling_the_places_says_nothing_however_long_it_takes() -> None:
    """Two windows are more jobs than there are places, so the second is of the run's own pace."""
    filling, waiting = (1, 1), (0.3, 0.3)
    assert not pressed(filling, filling, filling, waiting, waiting, workers=0, places=30)
    assert not pressed(filling, filling, filling, filling, filling, workers=0, places=30)
    assert pressed(*[filling] * 6, workers=0, places=30)


def test_no_worker_comes_where_nothing_waits_to_be_sealed() -> None:
    """A process may be busy and in time all the same."""
    assert not pressed((1, 0.6), (1, 0.6), (1, 0.6), workers=0, queue=0.3)


def test_further_workers_come_when_the_others_have_no_time_left() -> None:
    """But none where this process could not keep it busy."""
    assert pressed((0.5, DEPTH), (0.5, DEPTH), workers=1)
    assert not pressed((0.5, DEPTH), (0.5, DEPTH), workers=2)
    assert not pressed((1, DEPTH), (1, DEPTH), workers=1)


def test_each_window_is_judged_by_itself_and_by_its_own_length() -> None:
    """What was done in an earlier one is over, and in three times the time thrice as much is."""
    assert not pressed((0.5, DEPTH), (0.5, 0.5 * DEPTH), (0.5, 0.5 * DEPTH), workers=1)
    assert not pressed(*[(1, 0.6)] * 9, workers=0, queue=0.3, places=30)
    assert not pressed(*[(0.5, 0.5 * DEPTH)] * 9, workers=1, places=30)


def test_the_number_of_workers_is_what_was_asked_for_or_left_to_be_found() -> None:
    """Automatic: from none up to one less than there are CPUs."""
    assert workers_for(0) == (0, 0)
    assert workers_for(3) == (3, 0)
    first, most = workers_for(None)
    assert first == 0
    assert most <= max(0, usable_cpus() - 1)


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "20000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_a_containers_limit_counts(tmp_path: Path, files: dict[str, str], cpus: int | None) -> None:
    """What the container may use, not what the machine has."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cpus(tmp_path) == (cpus or usable_cpus(tmp_path / "none"))
