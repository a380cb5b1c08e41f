"""A server that says exactly the bytes it is told to, and remembers the bytes it was sent.

Each connection plays one script (the last one again when there are more connections). A script that
fails fails the test at the end of the ``async with``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

__all__ = ["OK", "RawServer", "Script", "Talk", "answer", "ok", "relay"]

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\nhi"


class Talk:
    """One connection, seen from the server."""

    def __init__(
        self, server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """Take one request, head and body, off the wire; ``b""`` at the end of the connection."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        whole = head + await self.reader.readexactly(length)
        self._server.requests.append(whole)
        return whole

    async def send(self, data: bytes) -> None:
        """Say it. Nobody may be listening any more: that is not this side's failure."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    def reset(self) -> None:
        """End the connection with a RST."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def hold(self) -> None:
        """Take everything and say nothing until the other side goes away."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass


Script = Callable[[Talk], Awaitable[None]]


class RawServer:
    """Listens on a free port of the loopback while in ``async with``."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self._scripts = scripts
        self._tls = tls
        self._tasks: set[asyncio.Task[object]] = set()
        self._failures: list[BaseException] = []
        self.requests: list[bytes] = []
        self.talks: list[Talk] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for talk in self.talks:
            talk.writer.transport.abort()
        for _ in range(3):  # connections are told that they are lost in the loop's next turns
            await asyncio.sleep(0)
        if self._failures and exc is None:
            raise self._failures[0]

    @property
    def url(self) -> str:
        """Its base URL, by address."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = Talk(self, reader, writer)
        self.talks.append(talk)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._scripts[min(len(self.talks), len(self._scripts)) - 1](talk)
        except asyncio.CancelledError:
            pass  # only __aexit__ cancels, and start_server would log it
        except Exception as error:  # told to the test by __aexit__
            self._failures.append(error)
        finally:
            self._tasks.discard(task)
            writer.close()


def answer(reply: bytes) -> Script:
    """A script that gives every request on the connection the same reply."""

    async def script(talk: Talk) -> None:
        while await talk.request():
            await talk.send(reply)

    return script


ok = answer(OK)


async def relay(talk: Talk, port: int, *, spoil: asyncio.Event | None = None) -> None:
    """Pass bytes to and from ``port``; say nonsense in between once ``spoil`` is set."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def up() -> None:
        while data := await talk.reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.transport.abort()

    async def down() -> None:
        while data := await reader.read(1 << 16):
            await talk.send(data)
        talk.writer.close()

    async def spoiled() -> None:
        if spoil is not None:
            await spoil.wait()
            await talk.send(b"nonsense" * 9)

    try:
        await asyncio.gather(up(), down(), spoiled(), return_exceptions=True)
    finally:
        writer.transport.abort()
