"""The command as a person starts it: a process of its own, its output in files, its exit code.

Every child runs with Python's warnings as errors and in development mode, and its processes too, so
that a leaked socket or an un-awaited coroutine shows on its standard error; :meth:`Started.ended`
looks for that, and for a traceback, whatever the test is about.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CTBATCH", "Desk", "Ended", "Rows", "Started", "living", "until"]

DEADLINE_S = 30.0
"""No step of a test takes longer, not even on a busy machine."""

CTBATCH = (sys.executable, "-W", "error", "-X", "dev", "-m", "ctbatch")

# Development mode has asyncio tell of callbacks over 0.1 s; on a busy machine an import is one.
_SLOW_CALLBACK = re.compile(r"^.*asyncio: Executing .* took .* seconds\n", re.MULTILINE)
_UNTIDY = re.compile(
    r"Traceback|Warning|Exception ignored|never awaited|never retrieved|this is a bug"
)


def until(what: str, condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Wait until a condition holds that only another process can bring about."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {deadline_s} s"
        time.sleep(0.01)  # between two looks: nothing tells us


def living(session: int) -> list[str]:
    """The living processes of a session, by command line."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            line = stat.with_name("cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(line)
    return found


@dataclass(frozen=True)
class Ended:
    """How it ended."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """What ``--json`` printed."""
        told: dict[str, Any] = json.loads(self.out)
        return told

    @property
    def complaint(self) -> str:
        """The one message of a command that refused to begin."""
        lines = [line for line in self.err.splitlines() if line.startswith("ctbatch: ")]
        assert len(lines) == 1, self.err
        return lines[0]

    @property
    def resume_command(self) -> list[str]:
        """The line that resumes it, split as a shell does."""
        found = [line for line in self.err.splitlines() if line.startswith("ctbatch resume ")]
        assert len(found) == 1, self.err
        return shlex.split(found[0])[1:]


class Started:
    """A command under way."""

    def __init__(
        self, args: Sequence[str], env: Mapping[str, str], cwd: Path, name: str, stdin: int | None
    ) -> None:
        self._out, self._err = cwd / f".{name}.out", cwd / f".{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [*CTBATCH, *args],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=out,
                stderr=err,
                # A session of its own: a test that fails half-way takes all of it down.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process's id, and its session's."""
        return self._process.pid

    @property
    def stdin(self) -> Any:
        """Its standard input, if that is a pipe."""
        return self._process.stdin

    @property
    def err(self) -> str:
        """What it has said so far."""
        return self._err.read_text()

    @property
    def code(self) -> int | None:
        """Its exit code; a signal's number, negated, where one ended it."""
        return self._process.returncode

    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds while it runs."""
        until(what, lambda: self.is_over() or condition())
        assert not self.is_over(), self.err

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait(DEADLINE_S)
        self._close()

    def ended(self) -> Ended:
        """Wait for its end; nothing untidy may stand on its standard error."""
        code = self._process.wait(DEADLINE_S)
        self._close()
        ended = Ended(code, self._out.read_text(), _SLOW_CALLBACK.sub("", self._err.read_text()))
        assert not _UNTIDY.search(ended.err), ended.err
        return ended

    def abandon(self) -> None:
        """Leave nothing behind, whatever happened."""
        if not self.is_over():
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(DEADLINE_S)
        self._close()

    def _close(self) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()


class Desk:
    """A directory to work in, and an environment that knows nothing but what it is given."""

    def __init__(self, cwd: Path, service: Mapping[str, str]) -> None:
        self.cwd = cwd
        self.service = dict(service)
        self._started: list[Started] = []

    def env(self, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """The environment of a child; ``None`` takes a variable away."""
        ours = ("CLEVERTAP_", "CTBATCH_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        env |= {"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1", **self.service}
        # Coverage is measured by the tests of the parts; here it would double the time.
        env.pop("COVERAGE_PROCESS_CONFIG", None)
        env["PYTHONMALLOC"] = "pymalloc"  # its debug hooks look for C's mistakes, and take a tenth
        for name, value in (changes or {}).items():
            env.pop(name, None)
            if value is not None:
                env[name] = value
        return env

    def write(self, name: str, *lines: bytes) -> Path:
        """A file of lines."""
        path = self.cwd / name
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    def start(
        self, *args: object, env: Mapping[str, str | None] | None = None, stdin: int | None = None
    ) -> Started:
        """Start ``ctbatch`` with these arguments."""
        name = f"{len(self._started)}"
        started = Started([str(arg) for arg in args], self.env(env), self.cwd, name, stdin)
        self._started.append(started)
        return started

    def ctbatch(
        self,
        *args: object,
        env: Mapping[str, str | None] | None = None,
        given: bytes | None = None,
    ) -> Ended:
        """Run ``ctbatch`` to its end; ``given`` is its standard input."""
        if given is None:
            return self.start(*args, env=env).ended()
        path = self.cwd / f".{len(self._started)}.in"
        path.write_bytes(given)
        feeder = subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE)
        assert feeder.stdout is not None
        with feeder.stdout as pipe:
            started = self.start(*args, env=env, stdin=pipe.fileno())
        ended = started.ended()
        feeder.wait(DEADLINE_S)
        return ended

    def upload(self, *args: object, env: Mapping[str, str | None] | None = None) -> Ended:
        """``ctbatch run … --json --run-dir run``."""
        return self.ctbatch("run", *args, "--json", "--run-dir", "run", env=env)

    @property
    def run(self) -> Rows:
        """The run directory of :meth:`upload`."""
        return self.rows("run")

    def rows(self, name: str) -> Rows:
        """A run directory by its name."""
        return Rows(self.cwd / name)

    def remove(self, name: str) -> None:
        """Remove a directory, if it is there."""
        shutil.rmtree(self.cwd / name, ignore_errors=True)

    def close(self) -> None:
        """End what still runs."""
        for started in self._started:
            started.abandon()


@dataclass(frozen=True)
class Rows:
    """A run directory."""

    path: Path

    @property
    def report(self) -> dict[str, Any]:
        """Its report.json."""
        told: dict[str, Any] = json.loads((self.path / "report.json").read_bytes())
        return told

    def lines(self, name: str) -> list[bytes]:
        """The original lines of ``rejected`` or ``unknown``; none if there is no such file."""
        path = self.path / f"{name}.ndjson"
        return path.read_bytes().splitlines() if path.exists() else []

    def reasons(self, name: str) -> list[dict[str, Any]]:
        """The rows that say why."""
        path = self.path / f"{name}.reasons.ndjson"
        text = path.read_bytes() if path.exists() else b""
        return [json.loads(row) for row in text.splitlines()]

    def places(self, name: str) -> list[tuple[int, str, object]]:
        """The same as (line, state, code)."""
        return [(row["line"], row["state"], row["code"]) for row in self.reasons(name)]
