"""What a run works with besides its input and its ledger: keys, sealing pool, connections, limits.

The only place where the stages after the reader are constructed. Clock, sleep and randomness enter
here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Self

from ctbatch.api.limiter import Controller, Slots
from ctbatch.api.retry import RetryBudget, backoff_s
from ctbatch.api.transport import Transport
from ctbatch.api.wire import headers
from ctbatch.crypto.keyset import to_binary
from ctbatch.notices import Live, Watcher
from ctbatch.pipeline.breaker import Breaker, Tally, Turnstile
from ctbatch.pipeline.checker.check import Rules
from ctbatch.pipeline.keyring import Keyring, KeyWatch
from ctbatch.pipeline.ledger.writer import Ledger
from ctbatch.pipeline.opener import Opener
from ctbatch.pipeline.ordering import OrderGuard
from ctbatch.pipeline.places import batches_held
from ctbatch.pipeline.report.document import Measurements
from ctbatch.pipeline.sealer.pool import Pressure, Sealer, SealerSpec, workers_for
from ctbatch.pipeline.sender import Sender
from ctbatch.pipeline.stages import Stages
from ctbatch.pipeline.stopping import Stop
from ctbatch.pipeline.turns import Turns
from ctbatch.settings import Endpoint, Settings

__all__ = ["Backoff", "Equipment"]

Backoff = Callable[[int, str | None], float]
"""Seconds to pause after so many tries, given the value of a Retry-After."""

RETRIES_PER_SUCCESS = 1.0
"""Retries slow down only where more than half of the attempts fail. The usual fifth starved a run
in which three in ten failed: 6 batches a second where 75 were due (15 slots, 0.1 s a call), since
every place filled with batches that waited up to a minute for the budget. The service is spared by
the slots, the pauses and the outage rule already.
"""

NOWHERE = Endpoint(base_url="http://localhost:9")
"""Where a dry run would send to: nothing does, and nothing listens on the discard port."""


class Equipment:
    """An async context manager: the sealing pool and the connections live as long as it is open."""

    def __init__(
        self,
        settings: Settings,
        keys: Keyring | None,
        *,
        live: Live,
        measured: Measurements,
        watcher: Watcher,
        stop: Stop,
        backoff: Backoff | None = None,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._live = live
        self._measured = measured
        self._watcher = watcher
        self._stop = stop
        self._budget = RetryBudget(per_success=RETRIES_PER_SUCCESS)
        self._rng = random.SystemRandom()
        self._backoff = backoff
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open the pool and the transport; raises :class:`SettingsError` for a bad CA file."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            self._transport = await stack.enter_async_context(
                Transport(settings.endpoint or NOWHERE, timeout_s=settings.delivery.timeout_s)
            )
            workers = await asyncio.to_thread(workers_for, settings.delivery.workers)
            pressure = Pressure(
                time.perf_counter(),
                time.process_time(),
                jobs=batches_held(settings.delivery.concurrency),
            )
            sealer = Sealer(self._spec(self._keys), workers, pressure=pressure)
            self._sealer = await stack.enter_async_context(sealer)
            self._stack = stack.pop_all()
        self._watch = KeyWatch(self._keys, self._watcher, self._rekey)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def stages(self, ledger: Ledger) -> Stages:
        """The stages that the deliveries of this process share."""
        delivery, keys, clock = self._settings.delivery, self._keys, time.monotonic
        breaker = Breaker(
            clock,
            lambda tries: (self._backoff or self._jittered)(tries, None),
            give_up_after_s=delivery.give_up_after_s,
            sealed=keys is not None,
        )
        return Stages(
            sealer=self._sealer,
            turns=Turns(OrderGuard()),
            turnstile=Turnstile(breaker, clock, delivery.concurrency),
            breaker=breaker,
            admissions=asyncio.Semaphore(delivery.concurrency + 2),
            slots=Slots(Controller(delivery.concurrency), clock=clock),
            sender=self._sender(),
            opener=Opener(self._watch, self._measured, self._secrets()),
            keys=self._watch,
            ledger=ledger,
            measured=self._measured,
            tally=Tally(self._live, delivery.max_refused_percent, dry_run=self._settings.dry_run),
            watcher=self._watcher,
            stop=self._stop,
            backoff=self._backoff or self._budgeted,
            budget=self._budget,
            sleep=asyncio.sleep,
            clock=clock,
            on_ambiguous=delivery.on_ambiguous,
            late_s=delivery.timeout_s,
        )

    def _spec(self, keys: Keyring | None) -> SealerSpec:
        settings = self._settings
        return SealerSpec(
            keyset=None if keys is None else to_binary(keys.server.keyset),
            info=b"" if keys is None else keys.info,
            rules=Rules(strict=settings.strict, max_line_bytes=settings.batching.max_line_bytes),
        )

    def _rekey(self, keys: Keyring) -> None:
        self._sealer.rekey(self._spec(keys))

    def _jittered(self, tries: int, retry_after: str | None) -> float:
        return backoff_s(tries, retry_after, self._rng)

    def _budgeted(self, tries: int, retry_after: str | None) -> float:
        return max(self._budget.spend(time.monotonic()), self._jittered(tries, retry_after))

    def _secrets(self) -> tuple[str, ...]:
        account = self._settings.account
        return () if account is None else (account.passcode.reveal(),)

    def _sender(self) -> Sender:
        settings, account = self._settings, self._settings.account
        sealed = self._keys is not None
        lines = (
            headers(account.id, account.passcode.reveal(), sealed=sealed, body=True)
            if account is not None
            else {}
        )
        query = "dryRun=1" if settings.server_dry_run else ""
        return Sender(self._transport, lines, self._live, self._measured, query=query)
