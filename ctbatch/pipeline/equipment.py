"""What a run works with besides its input and its ledger: keys, sealing pool, connections, limits.

The only place where stages are constructed. Clock, sleep and randomness enter here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

from ctbatch.api.limiter import Controller, Slots
from ctbatch.api.retry import RetryBudget, backoff_s
from ctbatch.api.transport import Transport
from ctbatch.api.wire import headers
from ctbatch.crypto.hpke import OpeningKeys
from ctbatch.crypto.keyset import Keyset, load_private, load_public, to_binary
from ctbatch.notices import Live, Watcher
from ctbatch.pipeline.breaker import Breaker, Tally, Turnstile
from ctbatch.pipeline.checker import Rules
from ctbatch.pipeline.delivery import Stages
from ctbatch.pipeline.ledger import Ledger
from ctbatch.pipeline.opener import Opener
from ctbatch.pipeline.ordering import OrderGuard
from ctbatch.pipeline.report import Measurements
from ctbatch.pipeline.sealer import Sealer, SealerSpec, workers_for
from ctbatch.pipeline.sender import Sender
from ctbatch.pipeline.stopping import Stop
from ctbatch.pipeline.turns import Turns
from ctbatch.settings import Endpoint, Settings

__all__ = ["Backoff", "Equipment", "Keyring", "load_keys"]

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


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keysets of a run and the HPKE ``info`` that both directions share."""

    server: Keyset
    client: Keyset
    info: bytes


def load_keys(settings: Settings) -> Keyring | None:
    """Load the keys that a run needs; ``None`` where it needs none.

    Raises:
        KeysetError: a key file is missing, unusable, or open to others.
    """
    files, account = settings.keys, settings.account
    if settings.plaintext or settings.dry_run or files is None or account is None:
        return None
    insecure = files.insecure_permissions
    return Keyring(
        server=load_public(files.server, insecure_permissions=insecure),
        client=load_private(
            files.client, passphrase=files.passphrase, insecure_permissions=insecure
        ),
        info=(files.info or account.id).encode(),
    )


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
        settings, keys = self._settings, self._keys
        async with AsyncExitStack() as stack:
            self._transport = await stack.enter_async_context(
                Transport(settings.endpoint or NOWHERE, timeout_s=settings.delivery.timeout_s)
            )
            spec = SealerSpec(
                keyset=None if keys is None else to_binary(keys.server),
                info=b"" if keys is None else keys.info,
                rules=Rules(
                    strict=settings.strict, max_line_bytes=settings.batching.max_line_bytes
                ),
            )
            workers = workers_for(settings.delivery.workers, self._live.bytes_total)
            self._sealer = await stack.enter_async_context(Sealer(spec, workers))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def stages(self, ledger: Ledger) -> Stages:
        """The stages that the deliveries of this process share."""
        delivery, keys, clock = self._settings.delivery, self._keys, time.monotonic
        opening = None if keys is None else OpeningKeys(keys.client, keys.info)
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
            opener=Opener(opening, self._measured, self._secrets()),
            ledger=ledger,
            measured=self._measured,
            tally=Tally(self._live, delivery.max_refused_percent),
            watcher=self._watcher,
            stop=self._stop,
            backoff=self._backoff or self._budgeted,
            budget=self._budget,
            sleep=asyncio.sleep,
            clock=clock,
            on_ambiguous=delivery.on_ambiguous,
            late_s=delivery.timeout_s,
        )

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
