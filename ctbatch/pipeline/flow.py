"""The whole flow on one page.

::

    source ──▶ batcher ──▶ sealer ──▶ sender ──▶ opener ──▶ ledger ──▶ report
     lines      Batch    SealedBatch   Reply    Verdict    durable     counts

A loop takes a place (that bounds memory), takes the next batch, and starts its delivery, which
seals, admits, sends, opens and records (:mod:`~ctbatch.pipeline.delivery`). When the run is asked
to end, reading stops, what is on the wire is finished, and everything else is left for ``resume``.

Opening and closing a run is not done here (:mod:`~ctbatch.pipeline.runs`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from ctbatch.errors import CtbatchError
from ctbatch.models import Batch, Span
from ctbatch.notices import Phase
from ctbatch.pipeline.delivery import Delivery
from ctbatch.pipeline.ledger.accounts import Recorded
from ctbatch.pipeline.places import Places
from ctbatch.pipeline.processor import Processor
from ctbatch.pipeline.source.reader import Reader
from ctbatch.pipeline.stages import Stages

__all__ = ["Flow"]

CPU_EVERY_S = 0.2
"""Between two looks at the thread's clocks: each can take a fraction of a millisecond."""


class Flow:
    """One execution: ``recorded`` are the spans that an earlier process left unfinished."""

    def __init__(
        self,
        reader: Reader,
        places: Places,
        stages: Stages,
        recorded: Mapping[Span, Recorded],
        *,
        drain_s: float,
        make: type[Delivery] = Delivery,
    ) -> None:
        self._reader = reader
        self._places = places
        self._stages = stages
        self._recorded = recorded
        self._drain_s = drain_s
        self._make = make
        self._deliveries: dict[asyncio.Task[None], Delivery] = {}
        self._processor = Processor()
        self._look_at = 0.0

    async def run(self) -> None:
        """Deliver every batch; returns when all are, or when the run has been drained."""
        async with asyncio.TaskGroup() as group:
            wishes = [group.create_task(self._obey_stop()), group.create_task(self._obey_keys())]
            broken = await self._deliver_all(group)
            await self._places.all_free()
            for obeying in wishes:
                obeying.cancel()
        self._look_at = 0.0
        self._show()
        live = self._stages.tally.live
        self._stages.measured.used(live.slots_s, live.cpu_s, concurrency=live.concurrency)
        if broken is not None:
            self._stages.stop.fail(broken)

    async def _deliver_all(self, group: asyncio.TaskGroup) -> CtbatchError | None:
        """Read to the end and start a delivery for each batch; returns what broke the input."""
        try:
            seq = 0
            while (batch := await self._next()) is not None:
                recorded = self._recorded.get(batch.span)
                if recorded is not None:  # the tally began with what was settled of it
                    self._stages.tally.live.lines_read -= recorded.counts.accounted
                delivery = self._make(self._stages, seq, batch, recorded)
                task = group.create_task(delivery.run())
                self._deliveries[task] = delivery
                task.add_done_callback(partial(self._delivered, size=len(batch.data)))
                seq += 1
        except CtbatchError as error:
            return error
        self._stages.tally.live.input_ended = not self._stages.stop.draining
        return None

    async def _next(self) -> Batch | None:
        """Take a place, then the next batch; ``None`` at the end, or when the run is to end."""
        stages, places = self._stages, self._places
        await places.free()
        if stages.stop.draining:
            return None
        asked = stages.clock()
        batch = await self._reader.next()
        stages.measured.add_time("reading", stages.clock() - asked)
        if batch is None or stages.stop.draining:
            return None
        places.take(len(batch.data))
        live = stages.tally.live
        live.lines_read += batch.span.lines
        live.bytes_read = self._reader.stored_bytes_read
        self._show()
        return batch

    def _delivered(self, task: asyncio.Task[None], size: int) -> None:
        """A delivery is over, also one that was cancelled before it began."""
        del self._deliveries[task]
        self._places.give_back(size)
        if not self._places.held:
            self._stages.breaker.idle()
        self._show()

    def _show(self) -> None:
        live, stages = self._stages.tally.live, self._stages
        live.in_progress, live.limit = self._places.held, stages.slots.limit
        if (now := stages.clock()) >= self._look_at:
            live.slots_s = stages.slots.usage
            self._look_at, used_s = now + CPU_EVERY_S, self._processor.used_s
            sending_s = max(0.0, used_s - stages.sealer.here_s)
            live.cpu_s = sending_s, used_s, self._processor.waited_s
        if not stages.stop.draining:
            live.phase = stages.breaker.phase

    async def _obey_stop(self) -> None:
        """When the run is asked to end: stop reading, drain, and at the deadline cancel."""
        stop = self._stages.stop
        await stop.wait()
        self._stages.tally.live.phase = Phase.DRAINING
        self._reader.stop()
        for task, delivery in list(self._deliveries.items()):
            if not delivery.on_wire:
                task.cancel()
        try:
            async with asyncio.timeout(self._drain_s):
                await stop.wait_now()
        except TimeoutError:
            pass
        for task in list(self._deliveries):
            task.cancel()

    async def _obey_keys(self) -> None:
        """Whenever it is asked for, read the key files again."""
        while True:
            await self._stages.stop.wait_keys()
            await self._stages.keys.look(insist=True)
