"""A service that costs next to nothing: it takes whole requests and gives one canned answer.

It never looks into a body, so that what is measured is the client. Its weather is four numbers:
the latency of an answer, a ``cap`` on requests at a time (more are answered 429), a ``capacity``
that requests share (with more than that, each takes longer in proportion), and how many of them
are ``failing`` (answered 500).

:func:`running` starts it in a process of its own, which ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, cast

import trustme
import uvloop

from benchmarks.inputs import ROOT

__all__ = ["Running", "Seen", "Weather", "running"]

BUFFER_BYTES = 1 << 18
REFUSAL = b'{"status":"fail","error":"Too many concurrent requests","code":429}'
FAILURE = b'{"status":"fail","error":"Internal error","code":500}'
REFUSE_AFTER_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How the sink answers; 0 is no bound."""

    latency_ms: float = 200.0
    cap: int = 0
    capacity: int = 0
    failing_percent: float = 0.0


@dataclass(slots=True, kw_only=True)
class Seen:
    """What the sink saw; times are of the clock that all processes share."""

    requests: int = 0
    refused: int = 0
    failed: int = 0
    peak_in_flight: int = 0
    body_bytes: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    cpu_s: float = 0.0


class _Sink:
    """What the connections share."""

    def __init__(self, weather: Weather, reply: bytes) -> None:
        self._weather = weather
        self._answer = _response(b"200 OK", b"application/octet-stream+hpke", reply)
        self._refusal = _response(b"429 Too Many Requests", b"application/json", REFUSAL)
        self._failure = _response(b"500 Internal Server Error", b"application/json", FAILURE)
        self._luck = random.Random(7)
        self._loop = asyncio.get_running_loop()
        self._in_flight = 0
        self.seen = Seen()

    def begun(self, length: int) -> None:
        """A request's head is here."""
        seen = self.seen
        seen.first_s = seen.first_s or time.monotonic()
        seen.requests += 1
        seen.body_bytes += length
        self._in_flight += 1
        seen.peak_in_flight = max(seen.peak_in_flight, self._in_flight)

    def received(self, transport: asyncio.Transport) -> None:
        """A request is whole: answer it when it is time."""
        weather, now = self._weather, self._in_flight
        answer, after_s = self._answer, weather.latency_ms / 1000
        if weather.cap and now > weather.cap:
            self.seen.refused += 1
            answer, after_s = self._refusal, REFUSE_AFTER_S
        elif weather.capacity and now > weather.capacity:
            after_s *= now / weather.capacity
        if answer is self._answer and self._luck.random() * 100 < weather.failing_percent:
            self.seen.failed += 1
            answer = self._failure
        self._loop.call_later(after_s, self._send, transport, answer)

    def _send(self, transport: asyncio.Transport, answer: bytes) -> None:
        self._in_flight -= 1
        self.seen.last_s = time.monotonic()
        if not transport.is_closing():
            transport.write(answer)


class _Connection(asyncio.BufferedProtocol):
    """Requests one after the other, read into one buffer and counted."""

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self._buffer = bytearray(BUFFER_BYTES)
        self._filled = 0
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if not self._left:
            self._filled += nbytes
            end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
            if end < 0:
                return
            self._left = _length_in(bytes(self._buffer[:end]))
            self._sink.begun(self._left)
            nbytes, self._filled = self._filled - end - 4, 0
        self._left -= nbytes
        if not self._left:
            self._sink.received(self._transport)


def _length_in(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("a request without Content-Length")


def _response(status: bytes, media_type: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (status, media_type, len(body)) + body


async def _serve(weather: Weather, reply: bytes, tls: ssl.SSLContext | None) -> Seen:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    sink = _Sink(weather, reply)
    server = await loop.create_server(lambda: _Connection(sink), "127.0.0.1", 0, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    server.close()
    return sink.seen


def main() -> None:
    """The sink's process: the reply in hex is the first line of its standard input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-ms", type=float, default=200.0)
    parser.add_argument("--cap", type=int, default=0)
    parser.add_argument("--capacity", type=int, default=0)
    parser.add_argument("--failing-percent", type=float, default=0.0)
    parser.add_argument("--tls", type=Path, help="PEM file with key and certificate")
    args = vars(parser.parse_args())
    tls: Path | None = args.pop("tls")
    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls)
    weather = Weather(**args)
    reply = bytes.fromhex(sys.stdin.buffer.readline().decode())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(_serve(weather, reply, context))
    seen.cpu_s = time.process_time()
    print(json.dumps(asdict(seen)), flush=True)


class Running:
    """A sink that runs; :meth:`end` says what it saw."""

    def __init__(self, process: subprocess.Popen[bytes], ca_file: Path | None) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout
        self.ca_file = ca_file

    def begin(self, reply: bytes) -> Self:
        """Hand over the reply and learn the address."""
        self._stdin.write(reply.hex().encode() + b"\n")
        self._stdin.flush()
        scheme = "https" if self.ca_file else "http"
        self.url = f"{scheme}://127.0.0.1:{int(self._stdout.readline())}"
        return self

    def end(self) -> Seen:
        """Stop it."""
        self._stdin.close()
        said = self._stdout.read()
        self._process.wait()
        self._stdout.close()
        return Seen(**json.loads(said))


@contextmanager
def running(weather: Weather, reply: bytes, tls_dir: Path | None = None) -> Iterator[Running]:
    """A sink in a process of its own; ``tls_dir`` is where its certificates are put, for HTTPS."""
    command = [sys.executable, "-m", "benchmarks.sink"]
    for name, value in asdict(weather).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    ca_file = None
    if tls_dir is not None:
        ca_file, certificate = tls_dir / "ca.pem", tls_dir / "sink.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(ca_file))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            str(certificate)
        )
        command += ["--tls", str(certificate)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as process:
        try:
            yield Running(process, ca_file).begin(reply)
        finally:
            process.kill()  # unless it has ended


if __name__ == "__main__":
    main()
