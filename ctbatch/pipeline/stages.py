"""What the deliveries of a run share: its stages, its bounds, its clock; a value, no behaviour.

Made in :mod:`~ctbatch.pipeline.equipment` only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ctbatch.api.limiter import Slots
from ctbatch.api.retry import RetryBudget
from ctbatch.notices import Watcher
from ctbatch.pipeline.breaker import Breaker, Tally, Turnstile
from ctbatch.pipeline.keyring import KeyWatch
from ctbatch.pipeline.ledger.writer import Ledger
from ctbatch.pipeline.opener import Opener
from ctbatch.pipeline.report.measurements import Measurements
from ctbatch.pipeline.sealer.pool import Sealer
from ctbatch.pipeline.sender import Sender
from ctbatch.pipeline.stopping import Stop
from ctbatch.pipeline.turns import Turns
from ctbatch.settings import OnAmbiguous

__all__ = ["Stages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """What a delivery uses; one set a run. Times are seconds of ``clock``.

    ``late_s`` is how long the identities of a batch stay reserved after a time-out: what the
    service applies later than that is outside any client's reach. ``backoff`` says how long to
    pause before try *n*, given a Retry-After.
    """

    sealer: Sealer
    turns: Turns
    turnstile: Turnstile
    breaker: Breaker
    admissions: asyncio.Semaphore
    slots: Slots
    sender: Sender
    opener: Opener
    keys: KeyWatch
    ledger: Ledger
    measured: Measurements
    tally: Tally
    watcher: Watcher
    stop: Stop
    backoff: Callable[[int, str | None], float]
    budget: RetryBudget
    sleep: Callable[[float], Awaitable[None]]
    clock: Callable[[], float]
    on_ambiguous: OnAmbiguous
    late_s: float
