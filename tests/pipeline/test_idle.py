"""What is idle goes to whoever has waited longest."""

from __future__ import annotations

import asyncio

from ctbatch.pipeline.sealer.idle import Idle


async def turn() -> None:
    """Let everybody else have a turn of the loop."""
    await asyncio.sleep(0)


async def test_nobody_is_overtaken_between_being_woken_and_taking() -> None:
    """Who asks in the turn in which a thing comes back goes to the end of the line."""
    idle, order = Idle[str](), list[str]()
    idle.give("seat")
    await idle.take()

    async def wait(name: str) -> None:
        thing = await idle.take()
        order.append(name)
        idle.give(thing)

    first, second = asyncio.create_task(wait("first")), asyncio.create_task(wait("second"))
    await turn()
    late = asyncio.create_task(wait("late"))
    idle.give("seat")
    await asyncio.gather(first, second, late)
    assert order == ["first", "second", "late"]


async def test_each_thing_is_taken_by_one_at_a_time() -> None:
    """There are never more in use than there are."""
    idle, used, most = Idle[int](), set[int](), 0
    for number in range(3):
        idle.give(number)

    async def use() -> None:
        nonlocal most
        number = await idle.take()
        assert number not in used
        used.add(number)
        most = max(most, len(used))
        await turn()
        used.remove(number)
        idle.give(number)

    await asyncio.gather(*(use() for _ in range(50)))
    assert most == 3


async def test_who_is_cancelled_takes_nothing_along() -> None:
    """Neither while it waits, nor in the turn in which it was given something."""
    idle = Idle[str]()
    waiting, given, last = (asyncio.create_task(idle.take()) for _ in range(3))
    await turn()
    waiting.cancel()
    await turn()
    idle.give("seat")
    given.cancel()
    await asyncio.wait([waiting, given])
    assert waiting.cancelled()
    assert given.cancelled()
    assert await last == "seat"
    idle.give("seat")
    assert await idle.take() == "seat"
