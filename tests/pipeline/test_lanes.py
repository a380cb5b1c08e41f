"""Lanes: the same result in this process and in a worker, and no worker without its parent."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ctbatch.crypto.hpke import OpeningKeys
from ctbatch.crypto.keyset import generate, to_binary
from ctbatch.models import Batch, Span
from ctbatch.pipeline.checker.check import Rules, check
from ctbatch.pipeline.sealer.lanes import DEPTH, Inline, Lane, SealerSpec, Worker, frame
from tests.pipeline.lines import NOT_RECORDS, event, profile

PRIVATE = generate()
INFO = b"TEST-LAN-ES01"
SPEC = SealerSpec(to_binary(PRIVATE.public()), INFO, Rules())
RECORDS = [profile(identity=f"user-{n:09}\n") for n in range(40)]


def batch_of(*lines: bytes) -> Batch:
    """Lines as a batch."""
    data = b"".join(line + b"\n" for line in lines)
    return Batch(Span(0, 1, len(lines), 0, len(data)), data)


def opened(body: bytes) -> bytes:
    """What was sealed."""
    return OpeningKeys(PRIVATE, INFO).open(body).plaintext


@pytest.fixture(params=["inline", "worker", "worker without shared memory"])
def lane(request: pytest.FixtureRequest) -> Iterator[Lane]:
    """A lane of each kind."""
    shared = not request.param.endswith("memory")
    lane: Lane = Inline(SPEC) if request.param == "inline" else Worker(SPEC, shared=shared)
    yield lane
    lane.close()


def test_a_batch_of_records_is_sealed_as_it_stands(lane: Lane) -> None:
    """The facts are the checker's, and what is sealed is the lines, joined."""
    batch = batch_of(*RECORDS)
    for _ in range(2):
        sealed = lane.prepare(batch)
        assert sealed.checked == check(batch, Rules())
        assert opened(sealed.batch.body) == frame(RECORDS)
        assert sealed.batch.records == len(RECORDS)


def test_only_accepted_lines_are_sealed(lane: Lane) -> None:
    """Refused and blank lines are left out; what stands around a record is not sent."""
    bad = [line for row in NOT_RECORDS.values() for line in row if len(line) < 1000]
    batch = batch_of(*bad, b" ", b" " + RECORDS[0] + b"\r", event())
    sealed = lane.prepare(batch)
    assert sealed.checked == check(batch, Rules())
    assert opened(sealed.batch.body) == frame([RECORDS[0], event()])


def test_lines_that_end_in_cr_are_sealed_without(lane: Lane) -> None:
    """The bytes of the records are sent, and nothing else of the file."""
    sealed = lane.prepare(batch_of(*(line + b"\r" for line in RECORDS)))
    assert opened(sealed.batch.body) == frame(RECORDS)


def test_batches_may_be_of_any_size(lane: Lane) -> None:
    """A small batch, one that needs more room than all before, and a small one again."""
    large = batch_of(*(profile({"Note": ["x" * 500] * 100}) for _ in range(60)))
    for batch in (batch_of(RECORDS[0]), large, batch_of(RECORDS[1])):
        assert opened(lane.prepare(batch).batch.body) == frame(batch.lines())


def test_given_records_are_sealed_again(lane: Lane) -> None:
    """A part of a batch, after the whole."""
    lane.prepare(batch_of(*RECORDS))
    sealed = lane.seal(RECORDS[3:5])
    assert opened(sealed.body) == frame(RECORDS[3:5])
    assert (sealed.records, sealed.key_id) == (2, PRIVATE.public().primary.id)


def test_without_a_key_it_is_plaintext(lane: Lane) -> None:
    """``--plaintext``: the frame itself."""
    bare = type(lane)(SealerSpec(None, b"", Rules()))  # type: ignore[call-arg]  # both take one
    assert bare.prepare(batch_of(*RECORDS)).batch.body == frame(RECORDS)
    bare.close()


def test_a_worker_takes_several_jobs_at_a_time() -> None:
    """Each thread gets the result of its own job, in whatever order they come."""
    worker = Worker(SPEC)

    def through(number: int) -> bool:
        records = [profile(identity=f"user-{number:09}")] * (1 + number * 7 % 50)
        sealed = worker.prepare(batch_of(*records))
        again = worker.seal(records[:1])
        names = sealed.checked.identities
        return (
            names == [f"identity:user-{number:09}"] * len(records)
            and opened(sealed.batch.body) == frame(records)
            and opened(again.body) == frame(records[:1])
        )

    with ThreadPoolExecutor(DEPTH) as pool:
        assert all(pool.map(through, range(60)))
    worker.close()


def test_a_bug_in_a_worker_is_told_without_data_and_the_worker_lives() -> None:
    """The parent gets an error that names the kind only, and the next job is done."""
    worker = Worker(SPEC)
    with pytest.raises(RuntimeError, match=r"^TypeError in a sealing worker$"):
        worker.seal(["secret"])  # type: ignore[list-item]  # what a bug would look like
    assert opened(worker.seal(RECORDS).body) == frame(RECORDS)
    worker.close()


def test_a_worker_that_cannot_begin_is_an_end_of_file() -> None:
    """Its maker hears of it at once, and nothing is left behind."""
    with pytest.raises(EOFError):
        Worker(SealerSpec(b"no keyset", INFO, Rules()))


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open to wait for others")
def test_no_worker_outlives_its_parent() -> None:
    """Killed with -9, the parent says nothing any more; the worker ends all the same."""
    script = (
        "import sys\n"
        "from ctbatch.pipeline.sealer.lanes import SealerSpec, Worker\n"
        "from ctbatch.pipeline.checker.check import Rules\n"
        "worker = Worker(SealerSpec(None, b'', Rules()))\n"
        "print(worker._process.pid, flush=True)\n"
        "sys.stdin.read()\n"
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
