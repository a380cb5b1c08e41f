"""A proxy that does to HTTP what networks do, at a chosen request and a chosen byte.

It stands on a free port of the loopback between a client and a plain-HTTP service, passes requests
on and replies back, and plays one fault a request::

    async with FaultProxy(emulator_url, script=[Fault(Kind.RESET_REPLY, at=10)]) as proxy:
        ...  # point the client at proxy.url
    assert proxy.played[Kind.RESET_REPLY] == 1

A script is a sequence (after its end nothing more goes wrong) or a function of the request's
number, such as :func:`weather`. Numbers are given in the order in which requests begin, over all
connections. With ``tls`` it is an HTTPS server to its clients; ``TLS_FAILURE`` then spoils the
handshake of a connection, and takes the number of the request that would have come.

What the service has seen is fixed by the fault, so that a test can compare what a client believes
with what happened. Not passed on: ``SWALLOW_REQUEST``, ``PLAINTEXT_200``, ``TLS_FAILURE``, and
``RESET_REQUEST`` before the request's last byte. Everything else is passed on, whole.

Each request has a connection of its own to the service, and replies are framed anew with a
Content-Length, unless the service itself cut them short.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

__all__ = ["Fault", "FaultProxy", "Kind", "Script", "weather"]


class Kind(StrEnum):
    """What goes wrong. ``at`` counts bytes from the start of the request line or the status line;
    beyond the end it means after the last byte.
    """

    NONE = "none"
    LATENCY = "latency"  # the reply comes `seconds` late
    RESET_REQUEST = "reset_request"  # RST after `at` bytes of the request
    RESET_REPLY = "reset_reply"  # RST after `at` bytes of the reply
    SWALLOW_REQUEST = "swallow_request"  # half-open: all taken, nothing passed on or said
    SWALLOW_REPLY = "swallow_reply"  # half-open: passed on, nothing said
    TRUNCATE = "truncate"  # FIN after `at` bytes of the reply
    TRICKLE = "trickle"  # the first 512 bytes of the reply come one at a time
    LONG_LENGTH = "long_length"  # Content-Length is `at` + 1 too large, then FIN
    SHORT_LENGTH = "short_length"  # Content-Length is `at` + 1 too small, but not below 0
    GARBAGE = "garbage"  # bytes that are no HTTP in place of the reply
    PLAINTEXT_200 = "plaintext_200"  # somebody else says that `at` records were processed
    TLS_FAILURE = "tls_failure"  # an alert in place of the handshake, or of the reply


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, for one request."""

    kind: Kind = Kind.NONE
    at: int = 0
    seconds: float = 0.0


Script = Callable[[int], Fault]


def weather(
    seed: int, share: float, *, kinds: Sequence[Kind] = tuple(Kind), seconds: float = 0.05
) -> Script:
    """Bad weather: a ``share`` of the requests, the same ones for the same seed, meets one of
    ``kinds``; latency is up to ``seconds``.
    """

    def script(number: int) -> Fault:
        rng = random.Random(f"{seed}/{number}")
        if rng.random() >= share:
            return Fault()
        # Messages have a hundred bytes or a few hundred thousand: reach into all of them.
        at = int(10 ** rng.uniform(0, 5)) - 1
        return Fault(rng.choice(kinds), at=at, seconds=rng.uniform(0, seconds))

    return script


_RESETS = {Kind.RESET_REQUEST, Kind.RESET_REPLY}
_ENDS = {Kind.TRUNCATE, Kind.LONG_LENGTH, Kind.GARBAGE, Kind.TLS_FAILURE}
_ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # fatal, handshake_failure: RFC 8446, section 6
_BROKE_OFF = (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)
_LENGTH = re.compile(rb"\r\nContent-Length:\s*([0-9]+)", re.IGNORECASE)
_FRAMING = re.compile(rb"\r\n(?:Connection|Transfer-Encoding|Content-Length):[^\r]*", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\nTransfer-Encoding:\s*chunked", re.IGNORECASE)


class FaultProxy:
    """Listens while in ``async with``. ``requests`` counts requests, ``played`` faults by kind."""

    def __init__(
        self,
        upstream: str,
        *,
        script: Script | Sequence[Fault] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        url = urlsplit(upstream)
        assert url.scheme == "http", "the service behind the proxy speaks plain HTTP"
        self._upstream = (url.hostname or "", url.port or 80)
        self._script = script
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self._links: dict[asyncio.Task[object], asyncio.StreamWriter] = {}
        self.requests = 0
        self.played: Counter[Kind] = Counter()

    async def __aenter__(self) -> Self:
        outer = self._talk if self._tls is None else self._shake_hands
        self._servers.append(await asyncio.start_server(outer, "127.0.0.1", 0))
        if self._tls is not None:
            # TLS is spoken by a second server behind the first, which so sees what comes before it.
            inner = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=self._tls)
            self._servers.append(inner)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self._servers:
            server.close()
        links = dict(self._links)
        for task in links:
            task.cancel()
        await asyncio.gather(*links, return_exceptions=True)
        for writer in links.values():
            writer.transport.abort()
        for _ in range(3):  # aborted connections are gone after the loop's next turns
            await asyncio.sleep(0)

    @property
    def url(self) -> str:
        """Where clients are to be pointed."""
        port = self._servers[0].sockets[0].getsockname()[1]
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{port}"

    def _fault(self) -> Fault:
        """The fault of the request that comes next."""
        if callable(self._script):
            return self._script(self.requests)
        return self._script[self.requests] if self.requests < len(self._script) else Fault()

    def _play(self) -> Fault:
        """The same, and its number is used up."""
        fault = self._fault()
        self.requests += 1
        self.played[fault.kind] += 1
        return fault

    @contextlib.contextmanager
    def _link(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        """A connection, from accepted to closed; either side may break it off."""
        task = asyncio.current_task()
        assert task is not None
        self._links[task] = writer
        try:
            # Only __aexit__ cancels, and asyncio's server would log it.
            with contextlib.suppress(asyncio.CancelledError, *_BROKE_OFF):
                yield
        finally:
            writer.close()
            del self._links[task]

    async def _shake_hands(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass a TLS connection on to the second server, or refuse it."""
        with self._link(writer):
            if self._fault().kind is Kind.TLS_FAILURE:
                self._play()
                await reader.read(1)
                writer.write(_ALERT)
                return
            address = self._servers[1].sockets[0].getsockname()
            inner_reader, inner_writer = await asyncio.open_connection(*address)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pipe(reader, inner_writer))
                    group.create_task(_pipe(inner_reader, writer))
            except* ConnectionError:  # a RST goes through, in either direction
                _reset(writer)
            finally:
                _reset(inner_writer)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The requests of one connection, one after the other."""
        with self._link(writer):
            goes_on = True
            while goes_on:
                head = await reader.readuntil(b"\r\n\r\n")
                goes_on = await self._exchange(self._play(), head, reader, writer)

    async def _exchange(
        self,
        fault: Fault,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """One request and its fault; says whether the connection can take another."""
        length = _length(head)
        if fault.kind is Kind.RESET_REQUEST and fault.at < len(head) + length:
            await reader.readexactly(max(0, fault.at - len(head)))
            _reset(writer)
            return False
        body = await reader.readexactly(length)
        if fault.kind is Kind.SWALLOW_REQUEST:
            await _hold(reader)
            return False
        if fault.kind in {Kind.PLAINTEXT_200, Kind.TLS_FAILURE}:
            reply = b""
        else:
            reply = await self._pass_on(head, body)
        if fault.kind is Kind.SWALLOW_REPLY:
            await _hold(reader)
            return False
        await asyncio.sleep(fault.seconds if fault.kind is Kind.LATENCY else 0)
        await _say(_spoiled(fault, reply), writer, trickling=fault.kind is Kind.TRICKLE)
        if fault.kind in _RESETS:
            await asyncio.sleep(0.01)  # or the RST overtakes what was said
            _reset(writer)
        return fault.kind not in _RESETS | _ENDS and (
            _is_whole(reply) or fault.kind is Kind.PLAINTEXT_200
        )

    async def _pass_on(self, head: bytes, body: bytes) -> bytes:
        """The service's reply, framed anew if it is whole."""
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            bare = _FRAMING.sub(b"", head[:-2])
            size = b"Content-Length: %d\r\n" % len(body) if _LENGTH.search(head) else b""
            writer.write(bare + size + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
            raw = b""
            with contextlib.suppress(ConnectionError):  # what came before it is passed on
                while data := await reader.read(1 << 16):
                    raw += data
                    if (whole := _reframed(raw)) is not None:
                        return whole
        finally:
            writer.transport.abort()
        return raw


def _length(head: bytes) -> int:
    found = _LENGTH.search(head)
    return int(found[1]) if found else 0


def _is_whole(reply: bytes) -> bool:
    head, end, body = reply.partition(b"\r\n\r\n")
    return bool(end) and _length(head) == len(body)


def _reframed(raw: bytes) -> bytes | None:
    """A whole reply, with a length; ``None`` while it is not whole."""
    head, end, body = raw.partition(b"\r\n\r\n")
    if _CHUNKED.search(head):
        parts: list[bytes] = []
        size, rest = -1, body
        while size and b"\r\n" in rest:
            line, _, rest = rest.partition(b"\r\n")
            size = int(line, 16)
            parts.append(rest[:size])
            rest = rest[size + 2 :]
        body, end = b"".join(parts), (end if size == 0 else b"")
    elif not _is_whole(raw):
        return None
    return (
        _FRAMING.sub(b"", head) + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        if end
        else None
    )


def _spoiled(fault: Fault, reply: bytes) -> bytes:
    """What is said in place of ``reply``."""
    match fault.kind:
        case Kind.RESET_REPLY | Kind.TRUNCATE:
            said = reply[: fault.at]
        case Kind.LONG_LENGTH | Kind.SHORT_LENGTH:
            more = fault.at + 1 if fault.kind is Kind.LONG_LENGTH else -fault.at - 1
            size = max(0, _length(reply) + more)
            said = _LENGTH.sub(b"\r\nContent-Length: %d" % size, reply, count=1)
        case Kind.PLAINTEXT_200:
            lie = b'{"status":"success","processed":%d,"unprocessed":[]}' % fault.at
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            said = head + b"Content-Length: %d\r\n\r\n" % len(lie) + lie
        case _:
            instead = {Kind.RESET_REQUEST: b"", Kind.TLS_FAILURE: _ALERT}
            instead[Kind.GARBAGE] = random.Random(fault.at).randbytes(300)
            said = instead.get(fault.kind, reply)
    return said


async def _say(data: bytes, writer: asyncio.StreamWriter, *, trickling: bool) -> None:
    slow = 512 if trickling else 0
    for byte in data[:slow]:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    writer.write(data[slow:])
    await writer.drain()


async def _hold(reader: asyncio.StreamReader) -> None:
    """Take everything until the other side gives up."""
    while await reader.read(1 << 16):
        pass


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a RST, if it has not ended yet."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is None:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
