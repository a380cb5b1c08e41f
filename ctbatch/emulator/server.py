"""The socket: the emulator in this process, or in one of its own that dies with it.

Invariants:

1. Loopback only, HTTP/1.1 in the clear.
2. Keys and passcode that were made up live in a private directory and go with the emulator.
3. :class:`EmulatorProcess` hands secrets over by pipe, and the child ends when that pipe does.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import orjson
from aiohttp import ClientSession, web

from ctbatch.api.wire import ACCOUNT_HEADER, PASSCODE_HEADER
from ctbatch.emulator.admin import ADMIN_PREFIX, Admin, stats_of
from ctbatch.emulator.app import Service
from ctbatch.emulator.keys import Keys, passcode_of, prepare
from ctbatch.emulator.reply import Fate, Reply
from ctbatch.emulator.state import Config, Journal, Store
from ctbatch.errors import SettingsError
from ctbatch.settings import Secret

__all__ = ["Emulator", "EmulatorProcess", "run"]

_HOST: Final = "127.0.0.1"
_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 5.0


class Emulator:
    """The emulator on the running loop, on ``config.port`` (0: a free one)."""

    base_url: str
    account_id: str
    passcode: Secret
    server_key: Path
    client_key: Path

    def __init__(
        self,
        config: Config | None = None,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._config = config or Config()
        self._clock = clock
        self._sleep = sleep
        self._open = contextlib.AsyncExitStack()
        self._closing = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Emulator {getattr(self, 'base_url', 'not started')}>"

    async def __aenter__(self) -> Self:
        """Raises :class:`SettingsError` if the port or a file cannot be had."""
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._open = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._closing.set()
        await self._open.aclose()

    def records(self) -> list[dict[str, Any]]:
        """Each acceptance of a record in order; see :meth:`ctbatch.emulator.state.Store.rows`."""
        return list(self._service.store.rows())

    def requests(self) -> list[dict[str, Any]]:
        """The latest calls, in the order in which they were answered."""
        return [
            {name: getattr(call, name) for name in call.__slots__}
            for call in self._service.tally.calls
        ]

    def stats(self) -> dict[str, Any]:
        """Counts since the start; see :func:`ctbatch.emulator.admin.stats_of`."""
        return stats_of(self._service)

    def configure(self, changes: Mapping[str, Any] | None = None, /, **options: Any) -> None:
        """Change options (:data:`ctbatch.emulator.state.CHANGEABLE`) from the next request on."""
        self._service.configure(self._service.config.changed({**(changes or {}), **options}))

    async def rotate(self) -> None:
        """Rotate the service's key: the file ``server_key`` changes, the previous one still
        opens.
        """
        await asyncio.to_thread(self._keys.rotate)

    async def take_client_key(self) -> None:
        """Seal to what lies in ``client-public.json`` now: the customer handed over a new key."""
        await asyncio.to_thread(self._keys.take_client_key)

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        config = self._config
        directory = config.keys_dir
        if directory is None:
            directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="ctbatch-emulator-"))
            stack.push_async_callback(asyncio.to_thread, shutil.rmtree, directory, True)
        await asyncio.to_thread(prepare, directory)
        self.account_id = config.account_id
        self.passcode = await asyncio.to_thread(passcode_of, directory, config.passcode)
        self._keys = await asyncio.to_thread(
            Keys.open_or_make, directory, config.account_id.encode(), raw=config.raw_keys
        )
        self.server_key, self.client_key = self._keys.server_public, self._keys.client_private
        journal = Journal(config.state_file) if config.state_file else None
        store = await stack.enter_async_context(Store(forget=config.forget, journal=journal))
        self._service = Service(
            config,
            passcode=self.passcode.reveal(),
            keys=self._keys,
            store=store,
            clock=self._clock,
            sleep=self._sleep,
        )
        self._admin = Admin(
            self._service,
            self.passcode.reveal(),
            self.configure,
            {"rotate": self.rotate, "client-key": self.take_client_key},
        )
        self.base_url = await self._listen(stack)

    async def _listen(self, stack: contextlib.AsyncExitStack) -> str:
        config = self._config
        server = web.Server(
            self._handle,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=config.idle_close_s,
        )
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        try:
            await web.TCPSite(runner, _HOST, config.port).start()
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = f"{config.port} is in use" if taken else f"{config.port} cannot be had ({error})"
            raise SettingsError(
                "--port", why, "choose another, or leave it out for a free one"
            ) from None
        return f"http://{_HOST}:{runner.addresses[0][1]}"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith(ADMIN_PREFIX):
            return _response(await self._admin.handle(request))
        reply = await self._service.handle(request)
        if reply.fate in {Fate.RESET, Fate.GONE}:
            _reset(request.transport)
        elif reply.fate is Fate.HUNG:
            await self._closing.wait()
            _reset(request.transport)
        elif reply.fate is Fate.CUT:
            return await _cut(request, reply)
        return _response(reply)


class EmulatorProcess:
    """The emulator as its own process, in its own session (so that Ctrl-C at the terminal does
    not reach it). It ends with this one, kill -9 included.
    """

    base_url: str
    account_id: str
    passcode: Secret
    server_key: Path
    client_key: Path

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or Config()

    def __repr__(self) -> str:
        return f"<EmulatorProcess {getattr(self, 'base_url', 'not started')}>"

    async def __aenter__(self) -> Self:
        """Raises :class:`SettingsError` if it cannot start."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ctbatch.emulator",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # It is nobody's account: the real one's passcode is not for its environment.
            env={k: v for k, v in os.environ.items() if not k.startswith("CLEVERTAP_")},
            start_new_session=True,
        )
        try:
            told = await self._introduce()
        except BaseException:
            await self._stop()
            raise
        self.base_url = told["base_url"]
        self.account_id = self._config.account_id
        self.passcode = Secret(told["passcode"])
        self.server_key, self.client_key = Path(told["server_key"]), Path(told["client_key"])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._stop()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def records(self) -> list[dict[str, Any]]:
        """As :meth:`Emulator.records`."""
        return [orjson.loads(row) for row in (await self._ask("GET", "records")).splitlines()]

    async def requests(self) -> list[dict[str, Any]]:
        """As :meth:`Emulator.requests`."""
        return [orjson.loads(row) for row in (await self._ask("GET", "requests")).splitlines()]

    async def stats(self) -> dict[str, Any]:
        """As :meth:`Emulator.stats`."""
        told: dict[str, Any] = orjson.loads(await self._ask("GET", "stats"))
        return told

    async def configure(self, **options: Any) -> None:
        """As :meth:`Emulator.configure`."""
        await self._ask("POST", "config", orjson.dumps(options))

    async def rotate(self) -> None:
        """As :meth:`Emulator.rotate`."""
        await self._ask("POST", "rotate")

    async def take_client_key(self) -> None:
        """As :meth:`Emulator.take_client_key`."""
        await self._ask("POST", "client-key")

    async def _introduce(self) -> dict[str, str]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(self._config.to_json() + b"\n")
        async with asyncio.timeout(_START_TIMEOUT_S):
            line = await stdout.readline()
        if not line:
            raise SettingsError("the emulator", "did not start", "its last words are above")
        told: dict[str, str] = orjson.loads(line)
        if "why" in told:
            raise SettingsError(**told)
        return told

    async def _stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _ask(self, method: str, what: str, body: bytes | None = None) -> bytes:
        headers = {ACCOUNT_HEADER: self.account_id, PASSCODE_HEADER: self.passcode.reveal()}
        url = f"{self.base_url}{ADMIN_PREFIX}{what}"
        async with (
            ClientSession(trust_env=False) as session,
            session.request(method, url, data=body, headers=headers) as response,
        ):
            answer = await response.read()
        if response.status != 200:
            raise SettingsError("the emulator", orjson.loads(answer)["error"])
        return answer


def run(
    config: Config,
    ready: Callable[[Emulator], None],
    until: Callable[[Callable[[], None]], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; the process is the emulator's alone. ``ready`` is called once
    it listens; ``until`` is given a function that stops the emulator, callable from any thread.
    """

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        if until is not None:
            until(lambda: _threadsafe(loop, stop.set))
        for number in (signal.SIGINT, signal.SIGTERM):
            # Windows has no such handlers: there Ctrl-C arrives as KeyboardInterrupt.
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, stop.set)
        async with Emulator(config) as emulator:
            ready(emulator)
            await stop.wait()

    factory = None
    if sys.platform != "win32":
        import uvloop  # noqa: PLC0415  # not on Windows

        factory = uvloop.new_event_loop
    # Parsed records are thousands of containers that live for a millisecond and hold no cycles: the
    # collector's default took half of the emulator's CPU (6.0 against 3.6 us a record).
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)
    with asyncio.Runner(loop_factory=factory) as runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(serve())


def _threadsafe(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    # The loop may have ended by itself.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


def _response(reply: Reply) -> web.Response:
    headers = {"Content-Type": reply.media_type, **reply.headers}
    response = web.Response(status=reply.status or 500, body=reply.body, headers=headers)
    if reply.close:
        response.force_close()
    return response


def _reset(transport: asyncio.Transport | None) -> None:
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    # A linger of 0 s makes the close a reset rather than an orderly end.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _cut(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers={"Content-Type": reply.media_type})
    response.content_length = len(reply.body) or 1
    await response.prepare(request)
    await response.write(reply.body[: len(reply.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
