"""On a terminal: a passphrase is asked for, and a terminal that is closed ends the run in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from ctbatch.crypto.keyset import Form, load_private, to_form
from ctbatch.settings import Secret
from tests.e2e.command import DEADLINE_S, Desk, until
from tests.e2e.people import profiles
from tests.e2e.service import Service

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")

_ON_A_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
from ctbatch.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
WORD = "correct horse"


class Terminal:
    """The other end of a pseudo-terminal on which a command has its standard error."""

    def __init__(self, ours: int, process: subprocess.Popen[bytes]) -> None:
        self._ours = ours
        self.process = process
        self.shown = b""

    def read_until(self, text: bytes) -> None:
        """Read what is shown until a text comes."""
        while text not in self.shown:
            self.shown += os.read(self._ours, 1000)

    def type(self, text: str) -> None:
        """Press keys, and return."""
        os.write(self._ours, f"{text}\n".encode())

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self._ours)
        self._ours = -1

    def close(self) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.process.communicate()
        if self._ours >= 0:
            os.close(self._ours)


@contextmanager
def _terminal(desk: Desk, *args: object, **variables: Path) -> Iterator[Terminal]:
    import pty  # noqa: PLC0415  # not on Windows

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_A_TERMINAL, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=desk.cwd,
        env=desk.env({name: str(path) for name, path in variables.items()}),
        start_new_session=True,
    )
    os.close(theirs)
    terminal = Terminal(ours, process)
    try:
        yield terminal
    finally:
        terminal.close()


def _locked(desk: Desk, service: Service) -> Path:
    """The key that the service seals to, by itself: another test may have rotated its keyset."""
    keyset = load_private(service.client_key)
    alone = replace(keyset, keys=(keyset.primary,))
    path = desk.cwd / "client.pem"
    path.touch(0o600)
    path.write_bytes(to_form(alone, Form.PEM, passphrase=Secret(WORD)))
    return path


def test_a_run_asks_for_the_passphrase_of_a_locked_key(desk: Desk, service: Service) -> None:
    """Also where the lines come by standard input; what is typed is not shown."""
    pem = _locked(desk, service)
    args = ("run", "-", "--json", "--run-dir", "run")
    with _terminal(desk, *args, CTBATCH_CLIENT_KEY=pem) as terminal:
        terminal.read_until(b"client.pem: ")
        terminal.type(WORD)
        out, _ = terminal.process.communicate(b"\n".join(profiles(5)), timeout=DEADLINE_S)
        with suppress(OSError):  # the other side has closed it
            terminal.read_until(b"never")
    assert terminal.process.returncode == 0, terminal.shown
    assert json.loads(out)["lines"]["processed"] == 5
    assert b"horse" not in terminal.shown + out


def test_without_a_terminal_the_passphrase_comes_from_a_file(desk: Desk, service: Service) -> None:
    """Nobody can be asked: exit 2, which says so, before anything was sent; the file will do."""
    env = {"CTBATCH_CLIENT_KEY": str(_locked(desk, service))}
    users = desk.write("users.ndjson", *profiles(5))
    for command in (("run", users), ("profile", "--identity", "u1"), ("call", "GET", "/1/x")):
        ended = desk.ctbatch(*command, env=env)
        assert ended.code == 2
        assert "protected by a passphrase. pass --passphrase-file" in ended.complaint
    assert service.requests() == []
    word = desk.write("word", WORD.encode())
    word.chmod(0o600)
    ended = desk.upload(users, "--passphrase-file", word, env=env)
    assert ended.code == 0, ended.err
    ended = desk.ctbatch("check", "--passphrase-file", word, env=env)
    assert ended.code == 0, ended.out


def test_a_closed_terminal_ends_the_run_resumably(desk: Desk, service: Service) -> None:
    """The window is closed: what is on the wire is finished, the run is resumable, exit 143."""
    service.configure(latency_s=0.05)
    users = desk.write("users.ndjson", *profiles(600))
    args = ("run", users, "--batch-size", 10, "--concurrency", 2, "--run-dir", "run")
    with _terminal(desk, *args) as terminal:
        until("a few answers", lambda: len(service.requests()) >= 5)
        terminal.hang_up()
        assert terminal.process.wait(DEADLINE_S) == 143
    told = desk.run.report
    assert told["state"] == "interrupted"
    assert 0 < told["lines"]["processed"] < 600
    assert told["lines"]["maybe_sent"] == told["lines"]["unknown"] == 0
    service.configure(latency_s=0)
    assert desk.ctbatch("resume", "run").code == 0
    assert len(service.identities()) == 600
