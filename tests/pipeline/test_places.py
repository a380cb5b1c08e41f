"""Memory is bounded by batches and by bytes, and one batch always finds a place."""

from __future__ import annotations

import asyncio

import pytest

from ctbatch.pipeline.places import HELD_BYTES, Places, batches_held, places_for


async def _is_free(places: Places) -> bool:
    waiter = asyncio.create_task(places.free())
    await asyncio.sleep(0)
    free = waiter.done()
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    return free


@pytest.mark.parametrize("size", [1, 99, 100, 10**9])
async def test_one_batch_always_finds_a_place(size: int) -> None:
    """However large it is."""
    places = Places(1, 100)
    assert await _is_free(places)
    places.take(size)
    assert not await _is_free(places)


async def test_batches_are_bounded() -> None:
    """Two places are two places, be the batches ever so small."""
    places = Places(2, 100)
    places.take(0)
    assert await _is_free(places)
    places.take(0)
    assert places.held == 2
    assert not await _is_free(places)
    places.give_back(0)
    assert await _is_free(places)


async def test_bytes_are_bounded() -> None:
    """Another is let in while there is room; the last one may exceed it."""
    places = Places(10, 100)
    places.take(99)
    assert await _is_free(places)
    places.take(50)
    assert not await _is_free(places)
    places.give_back(50)
    assert await _is_free(places)


async def test_whoever_waits_is_woken() -> None:
    """For a place, and for all of them."""
    places = Places(2, 100)
    places.take(1)
    places.take(1)
    async with asyncio.TaskGroup() as group:
        one = group.create_task(places.free())
        every = group.create_task(places.all_free())
        await asyncio.sleep(0)
        places.give_back(1)
        await one
        assert not every.done()
        places.give_back(1)
    assert places.held == 0
    await places.all_free()


async def test_a_run_holds_half_as_many_again_as_it_sends() -> None:
    """And a few, so that the slots of a run with few are full as well; and their bytes."""
    assert [batches_held(concurrency) for concurrency in (1, 2, 15)] == [5, 7, 26]
    places = places_for(1)
    places.take(3 * HELD_BYTES - 1)
    assert await _is_free(places)
    places.take(1)
    assert not await _is_free(places)
