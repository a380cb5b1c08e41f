"""What a thread has in hand is seen through, also by who is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ctbatch.pipeline.threads import see_through, take


async def test_the_result_or_the_error_comes_through() -> None:
    """Whoever is not cancelled notices nothing."""
    assert await see_through(asyncio.sleep(0, "done")) == "done"
    assert await take(lambda: 3, undo=print) == 3
    with pytest.raises(ZeroDivisionError):
        await take(lambda: 1 // 0, undo=print)


async def test_who_is_cancelled_waits_for_the_end() -> None:
    """Cancelled twice: the work is done first, then the cancellation goes on."""
    gate, ended = asyncio.Event(), list[str]()

    async def work() -> None:
        await gate.wait()
        ended.append("done")
        raise ValueError("nobody is told: being cancelled comes first")

    waiting = asyncio.create_task(see_through(work()))
    for _ in range(2):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == ["done"]


@pytest.mark.parametrize("fails", [False, True])
async def test_what_was_taken_is_given_back_by_who_was_cancelled(fails: bool) -> None:
    """The thread takes it after the cancellation; what it failed to take is not given back."""
    gate, returned = threading.Event(), list[str]()

    def hold() -> str:
        gate.wait(10)
        if fails:
            raise OSError("it is not there")
        return "lock"

    taking = asyncio.create_task(take(hold, undo=returned.append))
    await asyncio.sleep(0)
    taking.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert returned == ([] if fails else ["lock"])


async def test_work_that_is_cancelled_itself_is_over() -> None:
    """A loop that closes cancels the work, too: nobody waits for ever."""
    work = asyncio.create_task(asyncio.sleep(3600))
    waiting = asyncio.create_task(see_through(work))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
