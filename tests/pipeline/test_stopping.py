"""A run ends gracefully when it is asked once, at once when it is asked twice, for one reason."""

from __future__ import annotations

import asyncio

from ctbatch.errors import Interrupted, ServiceUnavailable
from ctbatch.pipeline.stopping import Stop


async def test_nobody_asked() -> None:
    """A fresh stop is none."""
    stop = Stop()
    assert (stop.draining, stop.at_once, stop.reason) == (False, False, None)


async def test_the_first_signal_drains_and_the_second_ends_at_once() -> None:
    """The first one is the reason, whatever the second is."""
    stop = Stop()
    stop.request(2)
    assert (stop.draining, stop.at_once) == (True, False)
    stop.request(15)
    assert stop.at_once
    assert isinstance(stop.reason, Interrupted)
    assert stop.reason.signal_number == 2


async def test_a_failure_drains_and_the_first_is_the_reason() -> None:
    """What fails afterwards fails because of it."""
    stop = Stop()
    first = ServiceUnavailable(900.0, "500")
    stop.fail(first)
    stop.fail(ServiceUnavailable(901.0, "501"))
    assert (stop.draining, stop.at_once) == (True, False)
    assert stop.reason is first


async def test_a_drain_after_a_failure_can_be_cut_short_too() -> None:
    """Two signals end it at once; the failure stays the reason."""
    stop = Stop()
    failure = ServiceUnavailable(900.0, "500")
    stop.fail(failure)
    stop.request(2)
    assert not stop.at_once
    stop.request(2)
    assert stop.at_once
    assert stop.reason is failure


async def test_a_failure_while_draining_does_not_replace_the_signal() -> None:
    """Exit 130 is what the person who pressed Ctrl-C expects."""
    stop = Stop()
    stop.request(2)
    stop.fail(ServiceUnavailable(900.0, "500"))
    assert isinstance(stop.reason, Interrupted)


async def test_waiters_are_told() -> None:
    """Of the wish to end, and of the wish to end now."""
    stop = Stop()
    async with asyncio.TaskGroup() as group:
        drained = group.create_task(stop.wait())
        ended = group.create_task(stop.wait_now())
        await asyncio.sleep(0)
        stop.request(2)
        await drained
        assert not ended.done()
        stop.request(2)
