"""Rubbish in the input and rubbish from the service: a reason for each, in bounded memory."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from ctbatch.crypto.hpke import SealingKey
from ctbatch.crypto.keyset import load_public
from tests.e2e.command import DEADLINE_S, Desk, Ended
from tests.e2e.people import profile, profiles
from tests.e2e.service import Service
from tests.pipeline.lines import NOT_RECORDS, WRONG_RECORDS

MOST_MB = 250
"""What the command may take; Python with its libraries is about 70."""

_MEASURED = """
import sys
from pathlib import Path
from ctbatch.cli.main import main
code = main(sys.argv[1:])
for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmHWM:"):
        Path("peak").write_text(line.split()[1])
sys.exit(code)
"""
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc says what the peak was")


@dataclass(frozen=True)
class Measured:
    """How a command ended and the most memory that it had."""

    ended: Ended
    peak_mb: float


def _measured(desk: Desk, *args: object, **variables: str) -> Measured:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *map(str, args), "--json", "--run-dir", "run"],
        cwd=desk.cwd,
        env=desk.env(variables),
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    peak_kb = int((desk.cwd / "peak").read_text())
    return Measured(Ended(done.returncode, done.stdout, done.stderr), peak_kb / 1024)


# -- lines ----------------------------------------------------------------------------------------


def test_every_kind_of_rubbish_has_its_line_number_and_its_reason(
    desk: Desk, service: Service
) -> None:
    """Bad lines of all kinds among good ones: each refused by name and kept byte for byte, every
    good one arrives.
    """
    rubbish = [
        (code, line)
        for table in (NOT_RECORDS, WRONG_RECORDS)
        for code, lines in table.items()
        for line in lines
    ]
    good = profiles(len(rubbish))
    mixed = [
        line for pair in zip(good, [line for _, line in rubbish], strict=True) for line in pair
    ]
    ended = desk.upload(desk.write("users.ndjson", *mixed), "--batch-size", 50)
    assert ended.code == 3, ended.err
    assert desk.run.places("rejected") == [
        (2 * n, "invalid", code) for n, (code, _) in enumerate(rubbish, 1)
    ]
    kept = (desk.cwd / "run" / "rejected.ndjson").read_bytes()
    assert kept == b"".join(line + b"\n" for _, line in rubbish)
    assert sorted(service.identities()) == sorted(f"u{n}" for n in range(1, len(good) + 1))


@pytest.mark.parametrize("how", ["", "--dry-run"])
def test_junk_identities_are_sent_and_warned_about(desk: Desk, service: Service, how: str) -> None:
    """The vendor's imports refuse them, for uploads nothing is published: a warning once, a count
    and the first place in report and summary, over an interruption too.
    """
    lines = [*profiles(20, "a"), *[profile("null")] * 3, *profiles(20, "b"), profile("N/A")]
    users = desk.write("users.ndjson", *lines)
    args = ("run", users, "--batch-size", 5, "--run-dir", "run", *filter(None, [how]))
    ended = desk.ctbatch(*args)
    assert ended.code == 0, ended.err
    text = "identity is a placeholder that the vendor's imports refuse"
    assert ended.err.count(text) == 1
    assert f"line 21: {text}" in ended.err
    assert f"4 lines: {text}, first at {users}:21" in ended.out
    (warned,) = desk.run.report["warnings"]
    assert warned == {"text": text, "count": 4, "first_line": [str(users), 21]}
    assert len(service.records()) == (0 if how else 44)


def test_warnings_are_counted_once_over_an_interruption(desk: Desk, service: Service) -> None:
    """What is read again is not warned about twice in the report."""
    service.configure(faults=["502=after-4"])
    users = desk.write("users.ndjson", *[profile("none")] * 50)
    ended = desk.upload(users, "--batch-size", 5, "--give-up-after", 0.5)
    assert ended.code == 4, ended.err
    service.configure(faults=[])
    resumed = desk.ctbatch(*ended.resume_command, "--json")
    assert resumed.code == 0, resumed.err
    assert [warned["count"] for warned in resumed.report["warnings"]] == [50]


@only_linux
@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_line_of_600_mb_is_skipped_without_being_held(
    desk: Desk, service: Service, packed: bool
) -> None:
    """It is invalid, with its place and size; the lines around it arrive."""
    path = desk.cwd / "users.ndjson"
    with gzip.open(path, "wb", 1) if packed else path.open("wb") as file:
        file.write(b"\n".join([*profiles(3, "a"), b'{"type":"profile","x":"']))
        for _ in range(600):
            file.write(b"x" * 1_000_000)
        file.write(b"\n".join([b'"}', *profiles(3, "b")]))
    found = _measured(desk, "run", path, "--workers", 0)
    assert found.ended.code == 3, found.ended.err
    assert desk.run.places("rejected") == [(4, "invalid", "line_too_long")]
    assert desk.run.reasons("rejected")[0]["length"] > 600_000_000
    assert found.ended.report["lines"]["processed"] == len(service.identities()) == 6
    assert found.peak_mb < MOST_MB


@pytest.mark.parametrize("at", [1, 100, -1])
def test_a_truncated_archive_is_never_a_silent_end(desk: Desk, service: Service, at: int) -> None:
    """Cut in a later member: what came before is uploaded, exit 4 names file and line; mended, the
    run is complete.
    """
    first, second = (gzip.compress(b"\n".join(profiles(50, name)) + b"\n") for name in "ab")
    path = desk.cwd / "users.gz"
    path.write_bytes(first + second[:at])
    ended = desk.upload(path)
    assert ended.code == 4, ended.err
    assert "users.gz" in ended.err
    assert ended.report["lines"]["processed"] >= 50
    path.write_bytes(first + second)
    resumed = desk.ctbatch(*ended.resume_command, "--json")
    assert resumed.code == 0, resumed.err
    assert len(set(service.identities())) == resumed.report["lines"]["processed"] == 100


# -- replies --------------------------------------------------------------------------------------

Answer = Callable[[BaseHTTPRequestHandler, SealingKey], None]

CHUNK = bytes(1 << 20)
MOST_CHUNKS = 200
"""Far more than is read; an end, should the client ever read all."""


def _say(
    handler: BaseHTTPRequestHandler, body: bytes, *, length: int | None = None, encoding: str = ""
) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    if encoding:
        handler.send_header("Content-Encoding", encoding)
    handler.end_headers()
    handler.wfile.write(body)


def _ten_gigabytes(handler: BaseHTTPRequestHandler, key: SealingKey) -> None:
    _say(handler, b"", length=10 << 30)
    for _ in range(MOST_CHUNKS):
        handler.wfile.write(CHUNK)


def _without_end(handler: BaseHTTPRequestHandler, key: SealingKey) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for _ in range(MOST_CHUNKS):
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))


def _bomb(handler: BaseHTTPRequestHandler, key: SealingKey) -> None:
    _say(handler, _packed(), encoding="gzip")


@cache
def _packed() -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return b"".join([*(packer.compress(CHUNK) for _ in range(500)), packer.flush()])


def _sealed(plain: bytes) -> Answer:
    return lambda handler, key: _say(handler, key.seal(plain))


_MILLION = b'{"status":"success","processed":0,"unprocessed":[' + b"{}," * 999_999 + b"{}]}"

HOSTILE: dict[str, tuple[Answer, str]] = {
    "10 GB": (_ten_gigabytes, "is over 5,"),
    "no end": (_without_end, "is over 5,"),
    "bomb": (_bomb, "open"),
    "a million entries": (_sealed(_MILLION), "wrong_counts"),
    "a million nulls": (_sealed(_MILLION.replace(b"{}", b"null")), "wrong_counts"),
    "nested": (_sealed(b'{"processed":' + b"[" * 1_000_000), "unreadable"),
}


class _Liar(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer: ClassVar[Answer]
    key: ClassVar[SealingKey]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        try:
            type(self).answer(self, self.key)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Be quiet."""


@contextmanager
def _liar(answer: Answer, service: Service) -> Iterator[str]:
    public = load_public(service.client_key.with_name("client-public.json"))
    key = SealingKey(public, service.account_id.encode())
    handler = type("Liar", (_Liar,), {"answer": staticmethod(answer), "key": key})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@only_linux
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_reply_is_named_and_counts_for_nothing(
    desk: Desk, service: Service, name: str
) -> None:
    """Whatever it is, memory is bounded, no line is counted as stored or refused, and the run is
    resumable.
    """
    answer, word = HOSTILE[name]
    _packed()
    users = desk.write(
        "users.ndjson", *(profile(f"u{n}", a="x" * 500, b="y" * 500) for n in range(1000))
    )
    with _liar(answer, service) as base_url:
        found = _measured(
            desk, "run", users, "--workers", 0, "--give-up-after", 1, CLEVERTAP_BASE_URL=base_url
        )
    ended = found.ended
    assert ended.code in {4, 5}, ended.err
    assert word in ended.err
    counts = ended.report["lines"]
    assert counts["unsent"] == counts["maybe_sent"] == counts["total"] == 1000
    assert found.peak_mb < MOST_MB
    assert "ctbatch resume" in ended.err
