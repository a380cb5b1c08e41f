"""Checking, framing and sealing, off the event loop: in worker processes, or in one thread.

A worker is a process of ours that reads jobs from its standard input and writes results to its
standard output; a thread here waits for each. End of input means that the parent is gone, however
it went, so no worker outlives it.

Invariants:

1. The bytes of a record are sent as they stand in the input: framing joins, it never rewrites.
2. A worker that dies is replaced and its job done again; twice on one job is :class:`SealerFailed`.
3. Results come for every job or an error does; nobody waits for a dead worker.
4. What is begun after :meth:`Sealer.rekey` is sealed with the new key.

The private key never comes here. Deciding what is sent next is not done here.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Protocol, Self, TypeVar

from ctbatch.crypto.hpke import SealingKey
from ctbatch.crypto.keyset import parse_public
from ctbatch.errors import SealerFailed
from ctbatch.models import Batch, Checked, SealedBatch
from ctbatch.pipeline.batcher import digest_of
from ctbatch.pipeline.checker import Rules, check, record_bytes
from ctbatch.pipeline.threads import see_through

__all__ = ["Sealed", "Sealer", "SealerSpec", "frame", "serve", "workers_for"]

_T = TypeVar("_T")

INLINE_UNDER_BYTES = 16_000_000
"""Inputs below this size are sealed in one thread: they are done before a worker has started
(0.2 s) and paid for itself."""


@dataclass(frozen=True, slots=True)
class SealerSpec:
    """What a worker needs: the service's public keyset (``None``: plaintext), HPKE info, rules."""

    keyset: bytes | None
    info: bytes
    rules: Rules


@dataclass(frozen=True, slots=True)
class Sealed:
    """A batch checked and, with all its records, sealed; ``digest`` is that of the input."""

    checked: Checked
    batch: SealedBatch
    digest: bytes
    seconds: float


class _Lane(Protocol):
    """Does one job at a time, blocking."""

    def prepare(self, batch: Batch) -> Sealed:
        """Check a batch and seal its records."""
        ...

    def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Seal given records."""
        ...

    def close(self) -> None:
        """End; no job is under way."""
        ...


def frame(records: Sequence[bytes]) -> bytes:
    """The request body of records, their bytes untouched: ``{"d":[…]}``."""
    return b'{"d":[' + b",".join(records) + b"]}"


class Inline:
    """A lane in this process."""

    def __init__(self, spec: SealerSpec) -> None:
        self._rules = spec.rules
        self._key = (
            None if spec.keyset is None else SealingKey(parse_public(spec.keyset), spec.info)
        )

    def prepare(self, batch: Batch) -> Sealed:
        """Check a batch and seal its records."""
        started = time.perf_counter()
        checked = check(batch, self._rules)
        lines = batch.lines()
        sealed = self.seal([record_bytes(lines[index]) for index in checked.positions])
        return Sealed(checked, sealed, digest_of(batch), time.perf_counter() - started)

    def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Seal given records."""
        body = frame(records)
        if self._key is None:
            return SealedBatch(body, len(records), None)
        return SealedBatch(self._key.seal(body), len(records), self._key.key_id)

    def close(self) -> None:
        """Nothing to end."""


class Worker:
    """A lane in a process of its own."""

    def __init__(self, spec: SealerSpec) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from ctbatch.pipeline.sealer import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What it needs to know comes by pipe: the passcode is not for a child's environment.
            env={k: v for k, v in os.environ.items() if not k.startswith("CLEVERTAP_")},
            # A group of its own, so that a terminal's Ctrl-C does not reach it.
            process_group=0 if os.name == "posix" else None,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs: IO[bytes] = self._process.stdin
        self._results: IO[bytes] = self._process.stdout
        self._send(spec)

    def prepare(self, batch: Batch) -> Sealed:
        """Have a batch checked and sealed."""
        result: Sealed = self._do("prepare", batch)
        return result

    def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Have given records sealed."""
        result: SealedBatch = self._do("seal", records)
        return result

    def _do(self, verb: str, job: object) -> Any:
        self._send((verb, job))
        result = pickle.load(self._results)  # noqa: S301  # written by our own child
        if isinstance(result, BaseException):
            raise result
        return result

    def _send(self, job: object) -> None:
        pickle.dump(job, self._jobs, protocol=5)
        self._jobs.flush()

    def close(self) -> None:
        """End the process and wait for it; it ends by itself at the end of its input."""
        with suppress(OSError):  # it is gone already, with something unsent
            self._jobs.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._results.close()


def serve() -> None:
    """A worker's life: take the spec, then do jobs until the end of input."""
    jobs, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints goes to stderr, never into the results
    with suppress(EOFError, BrokenPipeError), results:
        lane = Inline(pickle.load(jobs))  # noqa: S301  # written by our own parent
        while True:
            verb, job = pickle.load(jobs)  # noqa: S301  # written by our own parent
            try:
                result: object = lane.prepare(job) if verb == "prepare" else lane.seal(job)
            except Exception as error:  # told to the parent, which raises it
                result = RuntimeError(f"{type(error).__name__} in a sealing worker")
            pickle.dump(result, results, protocol=5)
            results.flush()


class Sealer:
    """The pool: an async context manager with ``workers`` processes, or one thread for 0."""

    def __init__(
        self, spec: SealerSpec, workers: int, *, make: Callable[[SealerSpec], _Lane] | None = None
    ) -> None:
        self._spec = spec
        self._make = make or (Worker if workers else Inline)
        self._threads = max(1, workers)
        self._idle: queue.SimpleQueue[tuple[SealerSpec, _Lane] | None] = queue.SimpleQueue()
        self._executor = ThreadPoolExecutor(self._threads, "ctbatch-sealer")

    async def __aenter__(self) -> Self:
        for _ in range(self._threads):
            self._idle.put(None)  # a lane is made by the first job that needs it
        return self

    async def __aexit__(self, *_: object) -> None:
        await see_through(asyncio.to_thread(self._close))

    def _close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        for _ in range(self._threads):
            idle = self._idle.get()
            if idle is not None:
                idle[1].close()

    def rekey(self, spec: SealerSpec) -> None:
        """Work by another spec from now on; a lane of the old one ends when it is next needed."""
        self._spec = spec

    async def prepare(self, batch: Batch) -> Sealed:
        """Check a batch and seal its records.

        Raises:
            SealerFailed: a worker died twice on it.
        """
        return await self._run(lambda lane: lane.prepare(batch))

    async def seal(self, records: Sequence[bytes]) -> SealedBatch:
        """Seal some of a batch's records again.

        Raises:
            SealerFailed: a worker died twice on it.
        """
        return await self._run(lambda lane: lane.seal(records))

    async def _run(self, job: Callable[[_Lane], _T]) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._try_twice, job)

    def _try_twice(self, job: Callable[[_Lane], Any]) -> Any:
        """Do a job on an idle lane; if its process dies, once more on a new one."""
        idle = self._idle.get()
        spec = self._spec
        lane = None if idle is None else idle[1]
        try:
            if idle is not None and idle[0] is not spec:
                idle[1].close()
                lane = None
            for final in (False, True):
                lane = lane or self._make(spec)
                try:
                    return job(lane)
                except (EOFError, OSError, pickle.UnpicklingError) as error:
                    lane.close()
                    lane = None
                    if final:
                        raise SealerFailed(type(error).__name__) from None
        finally:
            self._idle.put(None if lane is None else (spec, lane))
        raise AssertionError


def workers_for(requested: int | None, bytes_total: int | None) -> int:
    """How many worker processes to use; ``None`` chooses by the CPUs at hand and the input."""
    if requested is not None:
        return requested
    if bytes_total is not None and bytes_total < INLINE_UNDER_BYTES:
        return 0
    return max(0, min(_usable_cpus() - 1, 8))


def _usable_cpus() -> int:
    """CPUs that this process may use: its affinity, and the container's quota if there is one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:  # noqa: PTH123  # not ours
            quota, period = file.read().split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))
