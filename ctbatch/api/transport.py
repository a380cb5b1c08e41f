"""The only door out: one HTTP request in, one reply or one named failure out.

Invariants:

1. One call is one attempt: nothing is repeated, followed or downgraded. (aiohttp repeats idempotent
   requests on a stale connection by itself; that is stopped here.)
2. The last bytes of a body are handed over in a write of their own, and that is noted before: a
   failure knows whether the service can have had the whole request.
3. A reply takes at most ``4 * sent + 1 MiB`` of memory, whatever it claims, and is never
   decompressed.
4. Certificates are always verified, TLS is at least 1.2, a proxy is used only if it was named, and
   no setting, variable or cookie changes that.
5. No foreign exception leaves, not even as a cause: aiohttp's hold URLs with their query, request
   headers and bytes of the reply.

What a reply or a failure means for records is not decided here: see :mod:`ctbatch.api.wire` and
:mod:`ctbatch.api.breakage`. Headers of the account are made by the caller.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.payload import Payload
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from ctbatch import __version__
from ctbatch.api.breakage import Attempt, Stage, redirected
from ctbatch.api.pool import TRIP, Broke, Pool, Trip, once, tls_context
from ctbatch.api.wire import stands
from ctbatch.errors import CtbatchError, SettingsError, TransportError
from ctbatch.settings import Endpoint

__all__ = ["Reply", "Statistics", "Transport"]

CHUNK_BYTES = 512 * 1024
"""Handed over at a time: a usual batch at once, which saves a third of what posting one costs, and
of a large one not so much that its TLS records would fill the memory.
"""

FIRST_BYTES = 1024
"""The part of a body that is handed over first: aiohttp makes one piece of the head and of what
comes with it, and to copy a whole body costs as much as half of the rest of posting it.
"""

LAST_BYTES = 1024
"""The part of a body that is handed over last: fits one segment, so it costs one more send call."""

REPLY_FACTOR = 4
REPLY_EXTRA_BYTES = 1 << 20
"""A reply may echo every record, altered, with an error text: design, "Transport"."""

WORDS_S = 5.0
"""How long the body of a refusal is waited for: what it says is known without."""

LATE_S = 0.05
"""A deadline is noticed that late only where the process stood still (Ctrl-Z, a machine that was
paused). Its timers are due then before it looks at what has arrived meanwhile, so it takes as long
for that: a reply that is here is read.
"""

KEPT_HEADERS = ("Content-Encoding", "Content-Type", "Date", "Retry-After")
"""All that anybody here reads; the rest of a reply's head is dropped at once."""

_TARGET = re.compile(r"[\x21-\x7e]*")
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,253}")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, whole. ``headers`` are a few, found in any case; ``content_type`` is lower case
    and without parameters. ``elapsed_s`` is from the start of the attempt to the last byte.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    elapsed_s: float
    content_type: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a transport did: ``reused`` of the ``requests`` went over a kept-alive connection."""

    requests: int
    connections: int
    reused: int
    open: int


class Transport:
    """Requests to one endpoint over a pool of kept-alive connections.

    ``timeout_s`` is one attempt, from connecting to the last byte of the reply. ``max_connections``
    0 is no bound: whoever sends bounds what is in flight.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float,
        connect_timeout_s: float = 10.0,
        max_connections: int = 0,
        reply_extra_bytes: int = REPLY_EXTRA_BYTES,
    ) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._connect_timeout_s = min(connect_timeout_s, timeout_s)
        self._max_connections = max_connections
        self._reply_extra_bytes = reply_extra_bytes
        self._base = endpoint.base_url.rstrip("/")
        self._peer = urlsplit(endpoint.proxy).netloc if endpoint.proxy else endpoint.host
        self._secure = urlsplit(endpoint.base_url).scheme == "https"
        self._session: aiohttp.ClientSession | None = None
        self._pool: Pool | None = None
        self._requests = 0

    async def __aenter__(self) -> Self:
        """Load the CA certificates; raises :class:`SettingsError` if ``--ca-file`` is unusable."""
        context = None
        if self._secure:  # on a thread: OpenSSL reads the system's certificates from disk
            context = await asyncio.to_thread(tls_context, self._endpoint.ca_file)
        self._pool = Pool(context, self._connect_timeout_s, self._max_connections)
        self._session = aiohttp.ClientSession(
            connector=self._pool,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"ctbatch/{__version__}", "Accept-Encoding": "identity"},
            skip_auto_headers=("Content-Type",),
            auto_decompress=False,
            middlewares=(once,),
            trust_env=False,
            # Both deadlines are asyncio's own, here and in the pool.
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None),
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every connection and wait until the last one is gone."""
        session, pool = self._session, self._pool
        self._session = None
        if session is not None and pool is not None:
            await session.close()
            await pool.vanish()

    def __repr__(self) -> str:
        state = "open" if self._session is not None else "closed"
        return f"<Transport to {self._endpoint.host}, {state}: {self.statistics()}>"

    def statistics(self) -> Statistics:
        """What was done since it was opened."""
        pool = self._pool
        if pool is None:
            return Statistics(requests=0, connections=0, reused=0, open=0)
        return Statistics(self._requests, pool.made, pool.reused, len(pool.links))

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Mapping[str, str],
        body: bytes | None = None,
        fresh: bool = False,
    ) -> Reply:
        """Make one attempt.

        ``query`` is sent as it is. ``fresh`` asks for a connection that has not been idle for more
        than ``JUST_USED_S``. Raises :class:`~ctbatch.errors.NotSent` or
        :class:`~ctbatch.errors.ReplyLost` for what may be tried again,
        :class:`~ctbatch.errors.ServiceRefused` for a certificate that is not valid or a redirect,
        and :class:`~ctbatch.errors.SettingsError` for what HTTP cannot carry.
        """
        url = self._url(path, query)
        now = perf_counter()
        trip = Trip(self._endpoint.host, self._peer, self._secure, fresh=fresh, started=now)
        trip.due = now + self._timeout_s
        self._requests += 1
        try:
            async with _deadline(self._timeout_s):
                return await self._exchange(trip, method, url, headers, body)
        except Broke as broke:
            failure = trip.failure(broke.error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = trip.failure(error)
        # Raised out here so that the foreign exception is not even its context; and not kept by
        # this frame, or the two would hold each other, and the body with them, until a collection.
        try:
            raise failure
        finally:
            del failure

    def _url(self, path: str, query: str) -> URL:
        if not path.startswith("/") or "?" in path or "#" in path or "#" in query:
            raise SettingsError("the request", "needs a path that starts with / and has no ? or #")
        if not _TARGET.fullmatch(path) or not _TARGET.fullmatch(query):
            raise SettingsError("the request", "has a character in its path or query to be escaped")
        # encoded=True: a cursor goes back byte for byte as it was received.
        return URL(f"{self._base}{path}?{query}" if query else f"{self._base}{path}", encoded=True)

    async def _exchange(
        self,
        trip: Trip,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> Reply:
        if self._session is None:
            raise RuntimeError("the transport is not open: use it in `async with`")
        TRIP.set(trip)
        trip.handed_over = not body  # without a body the head is all, and aiohttp writes that
        try:
            async with self._session.request(
                method,
                url,
                headers=headers,
                data=_Body(body, trip) if body else None,
                proxy=self._endpoint.proxy,
                allow_redirects=False,
            ) as response:
                trip.stage = Stage.READING
                content = await self._read(trip, response, len(body or b""))
        except BaseException:
            trip.abort()
            raise
        kept = CIMultiDict((n, response.headers[n]) for n in KEPT_HEADERS if n in response.headers)
        return Reply(
            status=response.status,
            headers=CIMultiDictProxy(kept),
            body=content,
            elapsed_s=perf_counter() - trip.started,
            content_type=kept.get("Content-Type", "").partition(";")[0].strip().lower(),
        )

    async def _read(self, trip: Trip, response: aiohttp.ClientResponse, sent: int) -> bytes:
        """Take the body, unless the head already says that it must not be."""
        status = response.status
        if 300 <= status < 400:
            raise redirected(trip.host, status, _host_of(response.headers.get("Location")))
        if status < 200:
            raise trip.broken("malformed_http", f"{trip.host} switched protocols unasked")
        bound = REPLY_FACTOR * sent + self._reply_extra_bytes
        if stands(status, retry_after=response.headers.get("Retry-After")):
            return await self._words(trip, response, bound)
        content = await _bounded(trip, response, bound)
        if not trip.handed_over:
            raise trip.broken("early_reply", f"{trip.host} answered before it had the request")
        return content

    async def _words(self, trip: Trip, response: aiohttp.ClientResponse, bound: int) -> bytes:
        """The body of a refusal, which stands whatever had arrived by then, and without a body, if
        that breaks off, does not come or does not end.
        """
        left_s = trip.due - perf_counter()
        try:
            async with _deadline(min(WORDS_S, 0.8 * max(0.0, left_s))):
                return await _bounded(trip, response, bound)
        except (aiohttp.ClientError, OSError, TransportError):
            trip.abort()
            return b""


class _Body(Payload):
    """A body that says when its last bytes are handed to the transport."""

    _autoclose = True  # nothing to close: bytes in memory

    def __init__(self, data: bytes, trip: Trip) -> None:
        super().__init__(data)
        self._data = memoryview(data)
        self._trip = trip

    @property
    def size(self) -> int:
        """Known beforehand, so that Content-Length is sent and nothing is chunked."""
        return len(self._data)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Never: a body is not for reading."""
        raise TypeError("a body is not text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all but the end, look whether the connection still stands, write the end."""
        start, end = 0, max(0, len(self._data) - LAST_BYTES)
        while start < end:
            stop = min(start + (CHUNK_BYTES if start else FIRST_BYTES), end)
            await writer.write(self._data[start:stop])
            await writer.drain()
            start = stop
        # Two turns of the loop: one to hear of a FIN or RST that is already here, one to act on it.
        # So a kept-alive connection that had gone stale is mostly found while nothing is lost (from
        # Python 3.12 on aiohttp gets here without a single turn since it took the connection).
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if self._trip.broke_off():
            raise aiohttp.ClientConnectionResetError("closing")
        if perf_counter() > self._trip.due:  # it stood still: nobody would wait for the reply
            raise TimeoutError
        self._trip.handed_over = True
        await writer.write(self._data[end:])


@asynccontextmanager
async def _deadline(after_s: float) -> AsyncIterator[None]:
    """Raise :class:`TimeoutError` after that time, or, where it has long passed when that is
    noticed, after a look at what has arrived.
    """
    loop = asyncio.get_running_loop()
    due_s = loop.time() + after_s
    async with asyncio.timeout(None) as end:

        def over() -> None:
            now_s = loop.time()
            end.reschedule(now_s + (LATE_S if now_s > due_s + LATE_S else 0))

        timer = loop.call_at(due_s, over)
        try:
            yield
        finally:
            timer.cancel()


def _host_of(location: str | None) -> str | None:
    """The host in a ``Location``, if it is one; nothing else of it may be shown."""
    try:
        host = urlsplit(location or "").netloc.rpartition("@")[2]
    except ValueError:
        return None
    return host if _HOST.fullmatch(host) else None


async def _bounded(trip: Trip, response: aiohttp.ClientResponse, bound: int) -> bytes:
    """Take the body while it is within bounds and the connection lives."""
    if (response.content_length or 0) > bound:
        raise _oversized(trip, bound)
    content = response.content

    def gone(_: object) -> None:
        # A chunk that cannot be parsed after the head has been: aiohttp (3.14.5) closes the
        # connection and leaves whoever reads the body to wait for ever.
        if not content.is_eof() and content.exception() is None:
            error = aiohttp.ClientPayloadError()
            error.__cause__ = HttpProcessingError()
            content.set_exception(error)

    if content.is_eof():  # it came with the head
        if content.total_bytes > bound:
            raise _oversized(trip, bound)
        return content.read_nowait()
    assert trip.link is not None, "a reply comes over a connection"
    trip.link.closed.add_done_callback(gone)
    parts: list[bytes] = []
    size = 0
    try:
        async for part in content.iter_any():
            size += len(part)
            if size > bound:
                raise _oversized(trip, bound)
            parts.append(part)
    finally:
        trip.link.closed.remove_done_callback(gone)
    return b"".join(parts)


def _oversized(attempt: Attempt, bound: int) -> CtbatchError:
    return attempt.broken("oversized", f"the reply of {attempt.host} is over {bound:,} bytes")
