"""The sealing pool: who checks, frames and seals a batch.

Each job goes to a lane (:mod:`ctbatch.pipeline.sealer.lanes`). There are as many worker processes
as were asked for, one lane in this process for none, or as many as turn out to be of use: then the
pool begins without, and adds a worker when it is measured that the CPU of this process is what the
run waits for (:class:`Pressure`).

Invariants:

1. A worker that dies is replaced and its job done again; twice on one job is :class:`SealerFailed`.
2. Results come for every job or an error does; nobody waits for a dead worker.
3. What is begun after :meth:`Sealer.rekey` is sealed with the new key.

Deciding what is sent next is not done here.
"""

from __future__ import annotations

import asyncio
import math
import os
import pickle
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from ctbatch.errors import SealerFailed
from ctbatch.models import Batch, SealedBatch
from ctbatch.pipeline.sealer.idle import Idle
from ctbatch.pipeline.sealer.lanes import Inline, Lane
from ctbatch.pipeline.sealer.sealing import Sealed, SealerSpec
from ctbatch.pipeline.sealer.worker import DEPTH, Worker
from ctbatch.pipeline.threads import see_through

__all__ = ["Pressure", "Sealed", "Sealer", "SealerSpec", "Workers", "usable_cpus", "workers_for"]

_T = TypeVar("_T")
Make = Callable[[SealerSpec], Awaitable[Lane]]

MAX_WORKERS = 8
"""More than this process can give work to: it needs a third of the time of a worker itself."""

WINDOW_S = 0.1
"""A window is no shorter, however quick the jobs are: a machine's neighbour takes that long."""

BUSY = 0.8
"""The share of a window from which on something is taken to have no time left: on a machine that
others use as well, a process with enough to do for a whole CPU gets no more than that. (Runs that
wait for the service, 15 slots, were at 0.2 to 0.45 at 200 ms and at 0.6 to 0.7 at 100 ms, where a
worker brought nothing.)
"""

QUEUE = 0.5
"""Batches that wait for the lane in this process, on average over a window, from which on it has
too much to do: 15 slots at 100 ms came to 0.2 to 0.4, also while a neighbour slowed the machine
down and this process used more than 0.8; at 60 ms, where a worker helps, 0.5 to 1.3; at none 1.4
to 5.
"""

_DEATHS = (EOFError, OSError, pickle.UnpicklingError)


class Pressure:
    """Says when another worker would be of use.

    The first one takes the work from this process, so it is of use where this process has no CPU
    time left and batches wait for what it has. Further ones are where the workers have none, and
    this process has.

    A window has no fewer than ``jobs``, as many as there are places for batches. So the first may
    be what filling them all takes, which says nothing; but in the second each job has a place that
    an earlier batch has left, and the run goes at its own pace.
    """

    def __init__(self, now_s: float, cpu_s: float, jobs: int = 1) -> None:
        self._least = jobs
        self._pressed = False
        self._begin(now_s, cpu_s)

    def _begin(self, now_s: float, cpu_s: float) -> None:
        self._since_s, self._cpu_s = now_s, cpu_s
        self._lanes_s = self._waited_s = 0.0
        self._jobs = 0

    def job_done(
        self,
        now_s: float,
        cpu: Callable[[], float],
        *,
        waited_s: float,
        took_s: float,
        workers: int,
    ) -> bool:
        """A job waited for a lane and took it so long; ``cpu`` tells the seconds this process used
        so far.

        It is asked at the end of a window only: while other threads run, the clock of a process's
        CPU can cost more than a millisecond (measured on a virtual machine).

        Returns whether to add a worker: at the end of the second window in a row that asks for it.
        """
        self._lanes_s += took_s
        self._waited_s += waited_s
        self._jobs += 1
        window_s = now_s - self._since_s
        if window_s < WINDOW_S or self._jobs < self._least:
            return False
        cpu_s = cpu()
        ours, lanes = (cpu_s - self._cpu_s) / window_s, self._lanes_s / window_s
        queue = self._waited_s / window_s
        self._begin(now_s, cpu_s)
        if workers:
            pressed = lanes > BUSY * DEPTH * workers and ours < BUSY
        else:
            pressed = ours > BUSY and queue > QUEUE
        due, self._pressed = pressed and self._pressed, pressed
        return due


class Workers(NamedTuple):
    """How many worker processes to begin with (0: one lane in this process), and how many at most
    to go up to where they are of use.
    """

    first: int
    most: int


@dataclass(slots=True)
class _Held:
    """A lane and how many jobs it is doing; one that is doomed ends with the last of them."""

    lane: Lane
    spec: SealerSpec
    jobs: int = 0
    doomed: bool = False


class _Seat:
    """A place for ``depth`` jobs at a time; its lane is made by the first job that needs it."""

    def __init__(self, make: Make, depth: int = 1) -> None:
        self.make = make
        self.depth = depth
        self.retired = False
        self._held: _Held | None = None
        self._making = asyncio.Lock()

    async def do(self, spec: SealerSpec, job: Callable[[Lane], Awaitable[_T]]) -> _T:
        """Do a job on a lane that works by ``spec``; who finds it dead has it replaced."""
        held = self._held
        if held is None or held.spec is not spec:
            held = await self._renew(spec)
        held.jobs += 1
        try:
            return await job(held.lane)
        except _DEATHS:
            held.doomed = True
            raise
        finally:
            held.jobs -= 1
            if held is self._held and (held.doomed or self.retired):
                await see_through(self.end())
            elif held.doomed and not held.jobs:
                await see_through(held.lane.close())

    async def _renew(self, spec: SealerSpec) -> _Held:
        async with self._making:
            if self._held is None or self._held.spec is not spec:
                await self.end()
                self._held = _Held(await self.make(spec), spec)
            return self._held

    async def end(self) -> None:
        """End the lane, if there is one: now, or with the last of its jobs."""
        held, self._held = self._held, None
        if held is not None:
            held.doomed = True
            if not held.jobs:
                await held.lane.close()


class Sealer:
    """The pool: an async context manager."""

    def __init__(
        self,
        spec: SealerSpec,
        workers: Workers,
        *,
        inline: Make = Inline.start,
        worker: Make = Worker.start,
        pressure: Pressure | None = None,
    ) -> None:
        self._spec = spec
        self._make_worker = worker
        self._workers, self._most = workers
        self._seats: list[_Seat] = []
        self._idle = Idle[_Seat]()
        """Each seat as often as it can take another job."""
        for _ in range(self._workers):
            self._place(_Seat(worker, DEPTH))
        if not self._seats:
            self._place(_Seat(inline))
        self._pressure = pressure or Pressure(time.perf_counter(), time.process_time())
        self._growing: asyncio.Task[None] | None = None
        self.here_s = 0.0
        """CPU time for checking and sealing batches in this process, in seconds."""

    def _place(self, seat: _Seat) -> None:
        self._seats.append(seat)
        self._offer(seat)

    def _offer(self, seat: _Seat) -> None:
        for _ in range(seat.depth):
            self._idle.give(seat)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await see_through(self._close())

    async def _close(self) -> None:
        growing = self._growing
        if growing is not None:
            growing.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([growing])
        for seat in self._seats:
            await seat.end()
        if growing is not None and not growing.cancelled() and (bug := growing.exception()):
            raise bug

    @property
    def workers(self) -> int:
        """How many worker processes are at work."""
        return self._workers

    def rekey(self, spec: SealerSpec) -> None:
        """Work by another spec from now on; a lane of the old one ends when it is next needed."""
        self._spec = spec

    async def prepare(self, batch: Batch) -> Sealed:
        """Check a batch and seal its records.

        Raises:
            SealerFailed: a worker died twice on it.
        """
        sealed = await self._do(lambda lane: lane.prepare(batch))
        if not self._workers:
            self.here_s += sealed.seconds
        return sealed

    async def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Seal some of a batch's records again.

        Raises:
            SealerFailed: a worker died twice on it.
        """
        return await self._do(lambda lane: lane.seal(records))

    async def _do(self, job: Callable[[Lane], Awaitable[_T]]) -> _T:
        """Do a job on an idle lane."""
        asked = time.perf_counter()
        seat = await self._idle.take()
        began = time.perf_counter()
        try:
            return await self._try_twice(seat, job)
        finally:
            if not seat.retired:
                self._idle.give(seat)
            self._grow_if_due(began - asked, time.perf_counter() - began)

    async def _try_twice(self, seat: _Seat, job: Callable[[Lane], Awaitable[_T]]) -> _T:
        """Do a job; if its process dies, once more on a new one."""
        spec = self._spec
        for final in (False, True):
            try:
                return await seat.do(spec, job)
            except _DEATHS as error:
                if final:
                    why = error.strerror if isinstance(error, OSError) else None
                    raise SealerFailed(why or type(error).__name__) from None
        raise AssertionError

    def _grow_if_due(self, waited_s: float, took_s: float) -> None:
        """Have a worker added where one would be of use; nobody waits for it."""
        if self._growing is not None or self._workers >= self._most:
            return
        if self._pressure.job_done(
            time.perf_counter(),
            time.process_time,
            waited_s=waited_s,
            took_s=took_s,
            workers=self._workers,
        ):
            self._growing = asyncio.create_task(self._grow())

    async def _grow(self) -> None:
        seat = _Seat(self._make_worker, DEPTH)
        self._seats.append(seat)
        try:
            await seat.do(self._spec, _nothing)
        except _DEATHS:  # those that there are do without it, from now on
            return
        self._workers, self._growing = self._workers + 1, None
        # This process has enough to do with what is not sealing.
        self._seats[0].retired = self._seats[0].make is not self._make_worker
        self._offer(seat)


async def _nothing(_: Lane) -> None:
    """A job that only asks for a lane."""


def workers_for(requested: int | None) -> Workers:
    """How many worker processes to use; ``None`` leaves it to what is measured, within the CPUs."""
    if requested is not None:
        return Workers(requested, 0)
    return Workers(0, max(0, min(usable_cpus() - 1, MAX_WORKERS)))


def usable_cpus(root: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs that this process may use: its affinity, and the container's quota if there is one.

    With half a CPU more than another one a worker is of use.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(root)
    return cpus if quota is None else max(1, min(cpus, math.floor(quota + 0.5)))


def _quota(root: Path) -> float | None:
    """CPUs by the control group's quota: version 2, else version 1."""
    with suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        micros = int((root / "cpu/cpu.cfs_quota_us").read_text(encoding="ascii"))
        period = (root / "cpu/cpu.cfs_period_us").read_text(encoding="ascii")
        return None if micros < 0 else micros / int(period)
    return None
