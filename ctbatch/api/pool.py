"""Connections: made verified, reused while fit, and known until they are gone.

Invariants:

1. A kept-alive connection is given out only if it is younger in idleness than the attempt asks for,
   and nothing arrived on it unasked.
2. Every connection that was made is known until the operating system has it back.
3. One attempt of ours is one request of aiohttp's.

What goes over a connection is not here: see :mod:`ctbatch.api.transport`.
"""

from __future__ import annotations

import asyncio
import ssl
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from ctbatch.api.breakage import Attempt, Stage
from ctbatch.errors import SettingsError

__all__ = ["TRIP", "Broke", "Pool", "Trip", "once", "tls_context"]

IDLE_S = 4.0
"""No connection is kept idle for longer: Node's and Apache's servers close after 5 s by default."""

JUST_USED_S = 1.0
"""An attempt that asked for a fresh connection takes one that has rested for no longer than this.

A new one each time would cost every event upload two or three round trips, which is as much as the
upload itself; a server that closes within a second of its last answer announces it with
``Connection: close``.
"""

CLOSE_S = 2.0
"""Aborted connections are gone within a turn or two of the loop; this bounds a surprise."""


class Broke(Exception):
    """Carries an exception through aiohttp, which would repeat the request at some of them."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@dataclass(slots=True, eq=False)
class Link:
    """One connection, from when it is made until it is gone. ``idle_since`` 0: never used yet."""

    transport: asyncio.Transport | None
    closed: asyncio.Future[None]
    idle_since: float = 0.0

    def rest(self) -> None:
        """Note when its last use ended."""
        self.idle_since = asyncio.get_running_loop().time()

    def abort(self) -> None:
        """End it at once."""
        if self.transport is not None:
            self.transport.abort()


@dataclass(slots=True, eq=False)
class Trip(Attempt):
    """An attempt and the connection it uses; ``fresh``: not one that idled over ``JUST_USED_S``.

    ``started`` and ``due`` are of ``perf_counter``: a loop's own clock may stand still for a whole
    exchange.
    """

    fresh: bool = False
    started: float = 0.0
    due: float = float("inf")
    link: Link | None = None

    def broke_off(self) -> bool:
        """Whether its connection takes no more bytes."""
        transport = None if self.link is None else self.link.transport
        return transport is None or transport.is_closing()

    def abort(self) -> None:
        """End its connection without flushing what is buffered, or waiting for the other side."""
        if self.link is not None:
            self.link.abort()


TRIP: ContextVar[Trip] = ContextVar("ctbatch-trip")
"""The attempt that the task which asks for a connection is making."""


async def once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A middleware with which aiohttp makes one attempt only."""
    try:
        return await handler(request)
    except (aiohttp.ClientError, OSError) as error:
        raise Broke(error) from None


class Pool(aiohttp.TCPConnector):
    """aiohttp's pool, with three differences.

    It knows which attempt a connection is for (:data:`TRIP`); it gives out no kept-alive connection
    that is too old for the attempt or on which something arrived unasked (that would be taken for
    the reply of the next request); and it can wait until every connection is gone, also those that
    aiohttp has already forgotten while they say goodbye.
    """

    def __init__(
        self, context: ssl.SSLContext | None, connect_timeout_s: float, limit: int
    ) -> None:
        super().__init__(
            ssl=context or True,  # True: verified, too
            limit=limit,
            keepalive_timeout=IDLE_S,
            resolver=aiohttp.ThreadedResolver(),  # the system's, whatever else is installed
        )
        self._connect_timeout_s = connect_timeout_s
        self.links: dict[object, Link] = {}
        self.made = 0
        self.reused = 0

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Give out a connection that is fit for the attempt that ``TRIP`` names."""
        trip = TRIP.get()
        while True:
            connection = await super().connect(req, traces, timeout)
            link = self._link_of(connection)
            if not link.idle_since or _is_fit(connection, link, fresh=trip.fresh):
                break
            connection.close()
        trip.reused = link.idle_since > 0
        trip.stage = Stage.WAITING
        trip.link = link
        self.reused += trip.reused
        connection.add_callback(link.rest)
        return connection

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        """Make a connection within the connect time-out."""
        async with asyncio.timeout(self._connect_timeout_s):
            return await super()._create_connection(req, traces, timeout)

    def _link_of(self, connection: Connection) -> Link:
        """The link of a connection, noted until it is gone."""
        protocol = connection.protocol
        assert protocol is not None, "aiohttp gives out connections with a protocol"
        known = self.links.get(protocol)
        if known is not None:
            return known
        closed = protocol.closed
        if closed is None:  # it is gone already
            closed = asyncio.get_running_loop().create_future()
            closed.set_result(None)
        self.made += 1
        link = self.links[protocol] = Link(connection.transport, closed)

        def gone(future: asyncio.Future[None]) -> None:
            future.cancelled() or future.exception()  # looked at, or asyncio would complain
            del self.links[protocol]

        closed.add_done_callback(gone)
        return link

    async def vanish(self) -> None:
        """Wait until the last connection is gone; call it once the pool is closed."""
        leaving = list(self.links.values())
        for link in leaving:
            link.abort()
        if leaving:
            await asyncio.wait([link.closed for link in leaving], timeout=CLOSE_S)


def _is_fit(connection: Connection, link: Link, *, fresh: bool) -> bool:
    """Whether a kept-alive connection may be used once more."""
    protocol = connection.protocol
    if protocol is None or protocol.should_close:
        return False
    return not fresh or asyncio.get_running_loop().time() - link.idle_since <= JUST_USED_S


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """The system's CAs and ``ca_file``'s; blocks."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except ssl.SSLError:
            raise SettingsError("--ca-file", f"{ca_file} holds no PEM certificate") from None
        except OSError as error:
            why = f"{ca_file} cannot be read: {error.strerror}"
            raise SettingsError("--ca-file", why) from None
    return context
