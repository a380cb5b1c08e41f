"""A check, step by step: keys, the way to the service, and three requests that change nothing.

What is safe to ask of a live account, and why:

1. *A plain look-up*, ``GET /1/profile.json`` of an identity that was just made up (128 random
   bits): it reads, there is nobody to be found, and nothing in it is anybody's. It tells whether
   the credentials fit, what time the service has, and whether the account takes plaintext.
2. *The same with a sealed reply* (``Accept``): tells whether encryption is enabled, and whether
   our private key fits, by itself: a GET has no body, so the service's key has no part in it.
3. *A sealed query*, ``POST /1/events.json``: opens a cursor over one day of one event and never
   reads it. The vendor's page documents it with encryption; it can only read, whatever a parameter
   comes to, and the cursor lapses by itself.

An upload would be no such request. ``dryRun=1`` is in no current page: if it were not honoured,
every check would leave a profile in the account; and what the service makes of an empty list of
records is not known.

Invariants:

1. No personal data is sent, and none of a reply is kept (:mod:`ctbatch.api.answers`).
2. The credentials go to the endpoint only, and not at all before name, connection and certificate
   were found in order; where the first two requests are answered 401 there is no third.

What the observations mean is said by :mod:`ctbatch.api.diagnosis`; key files are read by
:mod:`ctbatch.api.inspection`, and the way to the service is looked at by :mod:`ctbatch.api.way`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial

import orjson

from ctbatch.api import diagnosis
from ctbatch.api.answers import Answer, Kind, read_answer
from ctbatch.api.findings import Finding, Status, Step, skipped
from ctbatch.api.inspection import UsableKeys, inspect
from ctbatch.api.transport import Reply, Transport
from ctbatch.api.way import Addresses, look, system_addresses
from ctbatch.api.wire import headers
from ctbatch.crypto.hpke import OpeningKeys, SealingKey
from ctbatch.errors import CtbatchError, ReplyLost, TransportError
from ctbatch.settings import Account, Endpoint, KeyFiles

__all__ = ["EVENT_NAME", "Tell", "check", "skew_of"]

EVENT_NAME = "App Launched"
"""The event of the vendor's example; every account with an SDK has it."""

Tell = Callable[[Finding], None]
"""Called on the event loop with each finding as it is made; must not block."""


async def check(
    *,
    account: Account | None,
    endpoint: Endpoint | None,
    keys: KeyFiles | None,
    tell: Tell,
    timeout_s: float = 30.0,
    clock: Callable[[], float] = time.time,
    addresses: Addresses | None = None,
) -> None:
    """Take every step that can be taken with what is given, and tell what each found.

    ``timeout_s`` is one request. Raises nothing that a finding can say.
    """
    usable, found = await asyncio.to_thread(inspect, keys, account)
    for finding in found:
        tell(finding)
    if endpoint is None:
        _skip(tell, Step.DNS, "there is no endpoint")
        return
    way = await look(endpoint, addresses or system_addresses, clock)
    for finding in diagnosis.of_way(way):
        tell(finding)
    if not way.connected or way.error is not None:
        _skip(tell, Step.CLOCK, "the service cannot be reached")
    elif account is None:
        if way.proxied:
            tell(skipped(Step.TLS, "through a proxy it takes a request"))
        _skip(tell, Step.CLOCK, "it takes account id and passcode")
    else:
        await _Requests(account, endpoint, usable, timeout_s, clock).make(tell)


def _skip(tell: Tell, first: Step, why: str) -> None:
    steps = list(Step)
    for step in steps[steps.index(first) :]:
        tell(skipped(step, why))


class _Requests:
    """The three requests, in order, and what comes of them."""

    def __init__(
        self,
        account: Account,
        endpoint: Endpoint,
        keys: UsableKeys,
        timeout_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._account = account
        self._endpoint = endpoint
        self._keys = keys
        self._timeout_s = timeout_s
        self._clock = clock
        self._skew_s: float | None = None

    async def make(self, tell: Tell) -> None:
        """Make them and tell the findings; a request that breaks ends it."""
        plain: Answer | None = None
        try:
            async with Transport(self._endpoint, timeout_s=self._timeout_s) as transport:
                plain = await self._look_up(transport, sealed=False)
                self._tell_reached(tell)
                reply = await self._look_up(transport, sealed=True)
                query = None
                refused = plain.kind is Kind.UNAUTHORISED is reply.kind
                # Without our own key its answer would say nothing.
                if not refused and self._keys.sealing and self._keys.opening:
                    query = await self._query(transport, self._keys.sealing)
        except CtbatchError as error:
            self._tell_broken(tell, error, reached=plain is not None)
            return
        answers = [answer for answer in (plain, reply, query) if answer is not None]
        tell(diagnosis.of_credentials(answers, self._endpoint.host))
        tell(diagnosis.of_encryption(plain, reply, query))
        if query is not None:
            tell(diagnosis.of_round_trip(query, reply))
        else:
            why = "the credentials are refused" if refused else "it takes both keys"
            tell(skipped(Step.ROUND_TRIP, why))

    def _tell_reached(self, tell: Tell) -> None:
        if self._endpoint.proxy is not None:
            text = "through the proxy; the service's certificate is valid"
            tell(Finding(Step.TLS, Status.OK, text))
        tell(diagnosis.of_clock(self._skew_s))

    def _tell_broken(self, tell: Tell, error: CtbatchError, *, reached: bool) -> None:
        if reached:
            tell(diagnosis.of_broken(Step.CREDENTIALS, error))
        elif self._endpoint.proxy is not None and not isinstance(error, ReplyLost):
            tell(diagnosis.of_broken(Step.TLS, error))
            _skip(tell, Step.CLOCK, "the service cannot be reached")
            return
        else:
            if self._endpoint.proxy is not None:
                tell(skipped(Step.TLS, "no reply came through the proxy"))
            tell(diagnosis.of_clock(self._skew_s))
            tell(diagnosis.of_broken(Step.CREDENTIALS, error))
        _skip(tell, Step.ENCRYPTION, "a request broke")

    async def _look_up(self, transport: Transport, *, sealed: bool) -> Answer:
        nobody = f"ctbatch-check-{secrets.token_hex(16)}"
        ask = partial(
            transport.request,
            "GET",
            "/1/profile.json",
            query=f"identity={nobody}",
            headers=self._headers(sealed=sealed, body=False),
        )
        reply = await _insisting(ask)
        return await self._read(reply, self._keys.opening if sealed else None)

    async def _query(self, transport: Transport, sealing: SealingKey) -> Answer:
        # Yesterday: a day in the future is refused, and where "today" is, is not documented.
        day = datetime.fromtimestamp(self._clock(), UTC) - timedelta(days=1)
        date = int(day.strftime("%Y%m%d"))
        text = orjson.dumps({"event_name": EVENT_NAME, "from": date, "to": date})
        ask = partial(
            transport.request,
            "POST",
            "/1/events.json",
            query="batch_size=50",  # as in the vendor's example
            headers=self._headers(sealed=True, body=True),
            body=await asyncio.to_thread(sealing.seal, text),
        )
        reply = await _insisting(ask)
        return await self._read(reply, self._keys.opening, repeats=EVENT_NAME)

    def _headers(self, *, sealed: bool, body: bool) -> dict[str, str]:
        passcode = self._account.passcode.reveal()
        return headers(self._account.id, passcode, sealed=sealed, body=body)

    async def _read(self, reply: Reply, opening: OpeningKeys | None, repeats: str = "") -> Answer:
        if self._skew_s is None:
            self._skew_s = skew_of(reply.headers.get("Date"), self._clock() - reply.elapsed_s / 2)
        hidden = (self._account.id, self._account.passcode.reveal())
        return await asyncio.to_thread(read_answer, reply, opening, secrets=hidden, repeats=repeats)


async def _insisting(ask: Callable[[], Awaitable[Reply]]) -> Reply:
    """Ask once more where only a kept-alive connection was stale: whatever we ask only reads."""
    try:
        return await ask()
    except TransportError as error:
        if error.result != "stale_connection":
            raise
    return await ask()


def skew_of(date: str | None, now: float) -> float | None:
    """The clock that wrote a ``Date`` header minus ours, which said ``now`` (epoch seconds) in the
    middle of the exchange; ``None`` if it is missing or unreadable.
    """
    try:
        told = parsedate_to_datetime(date or "")
        # Whole seconds were cut off: half of one is the best guess. A `Date` is always in GMT.
        return told.replace(tzinfo=told.tzinfo or UTC).timestamp() + 0.5 - now
    except (ValueError, OverflowError):
        return None
