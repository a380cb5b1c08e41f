"""Lanes: the same result in this process and in a worker, and no worker without its parent."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ctbatch.crypto.hpke import OpeningKeys
from ctbatch.crypto.keyset import generate, to_binary
from ctbatch.models import Batch, Overlong, Span
from ctbatch.pipeline.checker.check import Rules, check
from ctbatch.pipeline.sealer.lanes import Inline, Lane
from ctbatch.pipeline.sealer.sealing import SealerSpec, frame
from ctbatch.pipeline.sealer.serving import Arena
from ctbatch.pipeline.sealer.worker import DEPTH, Worker
from tests.pipeline.lines import NOT_RECORDS, event, profile

Make = Callable[[SealerSpec], Awaitable[Lane]]

PRIVATE = generate()
INFO = b"TEST-LAN-ES01"
SPEC = SealerSpec(to_binary(PRIVATE.public()), INFO, Rules())
RECORDS = [profile(identity=f"user-{n:09}\n") for n in range(40)]


def batch_of(*lines: bytes) -> Batch:
    """Lines as a batch."""
    data = b"".join(line + b"\n" for line in lines)
    return Batch(Span(0, 1, len(lines), 0, len(data)), data)


def send_signal(worker: Worker, number: signal.Signals) -> None:
    """Send a worker's process a signal."""
    assert worker.pid is not None
    os.kill(worker.pid, number)


def opened(body: bytes) -> bytes:
    """What was sealed."""
    return OpeningKeys(PRIVATE, INFO).open(body).plaintext


@pytest.fixture(params=["inline", "worker", "worker without shared memory"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes lanes of each kind."""
    if request.param == "inline":
        return Inline.start
    return partial(Worker.start, shared=not request.param.endswith("memory"))


@asynccontextmanager
async def made(make: Make, spec: SealerSpec = SPEC) -> AsyncIterator[Lane]:
    """A lane that ends with the block."""
    lane = await make(spec)
    try:
        yield lane
    finally:
        await lane.close()


async def test_a_batch_of_records_is_sealed_as_it_stands(make: Make) -> None:
    """The facts are the checker's, and what is sealed is the lines, joined."""
    batch = batch_of(*RECORDS)
    async with made(make) as lane:
        for _ in range(2):
            sealed = await lane.prepare(batch)
            assert sealed.checked == check(batch, Rules())
            assert opened(sealed.batch.body) == frame(RECORDS)
            assert sealed.batch.records == len(RECORDS)


async def test_only_accepted_lines_are_sealed(make: Make) -> None:
    """Refused and blank lines are left out."""
    bad = [line for row in NOT_RECORDS.values() for line in row if len(line) < 1000]
    batch = batch_of(*bad, b" ", b" " + RECORDS[0] + b"\r", event())
    async with made(make) as lane:
        sealed = await lane.prepare(batch)
    assert sealed.checked == check(batch, Rules())
    assert opened(sealed.batch.body) == frame([b" " + RECORDS[0], event()])


async def test_all_that_the_checker_finds_comes_back(make: Make) -> None:
    """Further identities, which keep records in order, what must not go twice, warnings, places."""
    odd = [profile({"a": list(range(101))}), profile(objectId="o", FBID="f"), b"", event(), b"{"]
    batch = replace(batch_of(*odd), overlong=(Overlong(2, 50, 2_000_000),))
    exact = check(batch, Rules())
    assert exact.aliases
    assert exact.warnings
    assert exact.unsafe
    assert exact.refusals[0].place
    async with made(make) as lane:
        found = (await lane.prepare(batch)).checked
    assert found == exact
    assert found.identities.stretch == exact.identities.stretch


async def test_lines_that_end_in_cr_are_sealed_without(make: Make) -> None:
    """The bytes of the records are sent, and nothing else of the file."""
    async with made(make) as lane:
        sealed = await lane.prepare(batch_of(*(line + b"\r" for line in RECORDS)))
    assert opened(sealed.batch.body) == frame(RECORDS)


async def test_batches_may_be_of_any_size(make: Make) -> None:
    """A small batch, one that needs more room than all before, and a small one again."""
    large = batch_of(*(profile({"Note": ["x" * 500] * 100}) for _ in range(60)))
    async with made(make) as lane:
        for batch in (batch_of(RECORDS[0]), large, batch_of(RECORDS[1])):
            assert opened((await lane.prepare(batch)).batch.body) == frame(batch.lines())


async def test_given_records_are_sealed_again(make: Make) -> None:
    """A part of a batch, after the whole."""
    async with made(make) as lane:
        await lane.prepare(batch_of(*RECORDS))
        sealed = await lane.seal(RECORDS[3:5])
    assert opened(sealed.body) == frame(RECORDS[3:5])
    assert (sealed.records, sealed.key_id) == (2, PRIVATE.public().primary.id)


async def test_without_a_key_it_is_plaintext(make: Make) -> None:
    """``--plaintext``: the frame itself."""
    async with made(make, SealerSpec(None, b"", Rules())) as lane:
        assert (await lane.prepare(batch_of(*RECORDS))).batch.body == frame(RECORDS)


async def test_a_worker_takes_several_jobs_at_a_time() -> None:
    """Each gets its own result, also when more are asked for than it takes."""

    async def through(worker: Lane, number: int) -> bool:
        records = [profile(identity=f"user-{number:09}")] * (1 + number * 7 % 50)
        sealed = await worker.prepare(batch_of(*records))
        again = await worker.seal(records[:1])
        names = sealed.checked.identities
        return (
            list(names) == [f"identity:user-{number:09}"] * len(records)
            and opened(sealed.batch.body) == frame(records)
            and opened(again.body) == frame(records[:1])
        )

    async with made(Worker.start) as worker:
        assert all(await asyncio.gather(*(through(worker, number) for number in range(60))))


async def test_a_bug_in_a_worker_is_told_without_data_and_the_worker_lives() -> None:
    """The parent gets an error that names the kind only, and the next job is done."""
    async with made(Worker.start) as worker:
        with pytest.raises(RuntimeError, match=r"^TypeError in a sealing worker$"):
            await worker.seal(["secret"])  # type: ignore[list-item]  # what a bug would look like
        assert opened((await worker.seal(RECORDS)).body) == frame(RECORDS)


async def test_a_result_that_cannot_be_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be no memory for it here; who waits does not wait for ever."""

    def take(_: Arena, told: object) -> bytes:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    async with made(Worker.start) as worker:
        monkeypatch.setattr(Arena, "take", take)
        with pytest.raises(OSError, match="allocate"):
            await worker.prepare(batch_of(*RECORDS))
        monkeypatch.undo()
        assert opened((await worker.seal(RECORDS)).body) == frame(RECORDS)


WITHOUT_MEMORY = """
from ctbatch.pipeline.sealer import serving
def prepare(*_): raise MemoryError
serving.Sealing.prepare = prepare
serving.serve()
"""


async def test_a_worker_without_memory_is_as_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a new one there may be room."""
    popen = subprocess.Popen

    def without(command: list[str], **kwargs: Any) -> subprocess.Popen[bytes]:
        return popen([*command[:2], WITHOUT_MEMORY], **kwargs)

    monkeypatch.setattr(subprocess, "Popen", without)
    async with made(Worker.start) as worker:
        with pytest.raises(EOFError):
            await worker.prepare(batch_of(*RECORDS))


async def test_a_worker_that_cannot_begin_is_an_end_of_file() -> None:
    """Its maker hears of it at once, and nothing is left behind."""
    with pytest.raises(EOFError):
        await Worker.start(SealerSpec(b"no keyset", INFO, Rules()))


async def test_a_worker_that_is_killed_is_an_end_of_file_to_all_who_ask() -> None:
    """Those who wait, those who have no arena yet, and those who come later."""
    worker = await Worker.start(SPEC)
    send_signal(worker, signal.SIGSTOP)
    jobs = [asyncio.ensure_future(worker.seal(RECORDS)) for _ in range(DEPTH + 5)]
    await asyncio.sleep(0)
    send_signal(worker, signal.SIGKILL)
    found = await asyncio.gather(*jobs, return_exceptions=True)
    assert {type(one) for one in found} == {EOFError}
    with pytest.raises(EOFError):
        await worker.seal(RECORDS)
    await worker.close()


async def test_a_start_that_is_given_up_leaves_no_process() -> None:
    """At every turn of it."""
    before = _children()
    for turns in range(12):
        starting = asyncio.ensure_future(Worker.start(SPEC))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert _children() <= before


def _children() -> set[str]:
    """The processes that this one started and has not waited for."""
    found: set[str] = set()
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends meanwhile
            found.update((task / "children").read_text().split())
    return found


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open to wait for others")
def test_a_worker_whose_parent_is_gone_ends_without_a_word() -> None:
    """Also where a result was never read: to the worker that is a reset, not an end of input."""
    ours, theirs = socket.socketpair()
    serving = "from ctbatch.pipeline.sealer.serving import serve; serve()"
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", serving],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.PIPE,
        )
    with ours:
        ours.sendall(pickle.dumps((SPEC, [])))
        assert select.select([ours], [], [], 30) == ([ours], [], [])
    said = process.communicate(timeout=30)[1]
    assert (process.returncode, said) == (0, b"")


def test_no_worker_outlives_its_parent() -> None:
    """Killed with -9, the parent says nothing any more; the worker ends all the same."""
    script = (
        "import asyncio, sys\n"
        "from ctbatch.pipeline.sealer.sealing import SealerSpec\n"
        "from ctbatch.pipeline.sealer.worker import Worker\n"
        "from ctbatch.pipeline.checker.check import Rules\n"
        "async def main():\n"
        "    worker = await Worker.start(SealerSpec(None, b'', Rules()))\n"
        "    print(worker.pid, flush=True)\n"
        "    sys.stdin.read()\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    handle = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    ended, _, _ = select.select([handle], [], [], 20)
    assert ended
    os.close(handle)
    parent.stdin.close()
    parent.stdout.close()
