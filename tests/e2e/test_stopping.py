"""Signals, crashes and broken pipes: what is on the wire is finished, or known to be open."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.command import CTBATCH, Desk, Started, living, until
from tests.e2e.people import counter, identities, mixture, profile, profiles
from tests.e2e.service import Service


def _emulators() -> dict[str, int]:
    """The emulators of this machine, with their parents' ids: other tests have theirs."""
    return {
        line.parent.name: int(_read(line.with_name("stat")).rpartition(b")")[2].split()[1])
        for line in Path("/proc").glob("[0-9]*/cmdline")
        if b"ctbatch.emulator" in _read(line)
    }


def _emulators_of(pid: int) -> set[str]:
    return {emulator for emulator, parent in _emulators().items() if parent == pid}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _under_way(service: Service, started: Started) -> None:
    """Wait until requests are being answered, the canary's behind them."""
    started.until(
        "requests on the wire", lambda: len(service.requests()) > 1 and service.inside() > 0
    )


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_one_signal_drains_and_reports(
    desk: Desk, service: Service, number: int, code: int
) -> None:
    """What is on the wire is finished and recorded; the rest is unsent; resume ends the job."""
    service.configure(latency_s=0.1)
    users = desk.write("users.ndjson", *profiles(400))
    args = ("run", users, "--batch-size", 5, "--concurrency", 3, "--json", "--run-dir", "run")
    started = desk.start(*args)
    _under_way(service, started)
    started.send(number)
    ended = started.ended()
    assert ended.code == code
    assert ended.report["state"] == "interrupted"
    counts = ended.report["lines"]
    assert counts["total"] == 400
    assert counts["processed"] + counts["unsent"] == 400
    assert counts["maybe_sent"] == 0
    assert counts["unsent"] > 0
    assert len(service.records()) == counts["processed"]
    assert ended.report["resume"] in ended.err
    service.configure(latency_s=0)
    resumed = desk.ctbatch(*ended.resume_command, "--json")
    assert resumed.code == 0
    assert resumed.report["lines"]["processed"] == 400
    assert sorted(service.identities()) == sorted(identities(400))


@pytest.mark.parametrize(
    ("wished", "code"),
    [
        (signal.SIGHUP, 143),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("command", ["bench", "tune"])
def test_a_trial_that_is_ended_leaves_no_refused_line_behind(
    desk: Desk, command: str, wished: signal.Signals, code: int
) -> None:
    """Also by the terminal being closed: its directory goes, which may hold copies of lines."""
    users = desk.write("users.ndjson", *profiles(400), b'{"identity":"u1"}')
    room = desk.cwd / "room"
    room.mkdir()
    started = desk.start(command, users, "--latency", "0.3", env={"TMPDIR": str(room)})
    started.until("a trial", lambda: any(room.glob("ctbatch-trial-*/run/ledger.*")))
    started.send(wished)
    ended = started.ended()
    assert ended.code == code, ended.err
    assert not list(room.iterdir())


def test_a_second_signal_stops_at_once(desk: Desk, service: Service) -> None:
    """Twice: what is on the wire is cut, and the ledger says that it may have arrived."""
    service.configure(faults=["hang=after-2"])
    users = desk.write("users.ndjson", *profiles(60))
    started = desk.start(
        "run", users, "--batch-size", 5, "--concurrency", 2, "--json", "--run-dir", "run"
    )
    started.until("three requests", lambda: len(service.requests()) >= 3)
    started.send(signal.SIGINT)
    started.until("the first signal to be seen", lambda: _draining(desk, started))
    started.send(signal.SIGINT)
    ended = started.ended()
    assert ended.code == 130
    assert ended.report["lines"]["maybe_sent"] > 0
    service.configure(faults=[])
    resumed = desk.ctbatch(*ended.resume_command, "--json")
    assert resumed.code == 0
    assert resumed.report["lines"]["processed"] == 60
    assert set(service.identities()) == set(identities(60))


def _draining(desk: Desk, started: Started) -> bool:
    """Whether the signal was taken: its handler has run once nothing is pending any more."""
    status = Path(f"/proc/{started.pid}/status").read_text()
    pending = [
        line.split()[1] for line in status.splitlines() if line.startswith(("ShdPnd", "SigPnd"))
    ]
    return all(int(mask, 16) == 0 for mask in pending)


def test_ctrl_c_while_a_pipe_is_idle(desk: Desk, service: Service) -> None:
    """The reader blocks on a pipe that says nothing; one signal ends it, with a report."""
    read_end, write_end = os.pipe()
    args = ("run", "-", "--linger", "0.1", "--json", "--run-dir", "run")
    started = desk.start(*args, stdin=read_end)
    os.close(read_end)
    with os.fdopen(write_end, "wb", buffering=0) as pipe:
        pipe.write(profile("a") + b"\n")
        started.until("the first line", lambda: service.identities() == ["a"])
        started.send(signal.SIGINT)
        ended = started.ended()
    assert ended.code == 130
    assert ended.report["lines"]["processed"] == ended.report["lines"]["total"] == 1
    assert ended.report["counted_to_end"] is False


def test_kill_leaves_no_process(desk: Desk, service: Service) -> None:
    """kill -9: workers and the emulator of ``--emulator`` end with the process they served."""
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb", buffering=0) as pipe:
        args = ("run", "-", "--emulator", "--workers", 2, "--linger", "0.1", "--run-dir", "run")
        started = desk.start(*args, stdin=read_end)
        os.close(read_end)
        pipe.write(profile("a") + b"\n")
        until(
            "its children",
            lambda: len(living(started.pid)) >= 2 and _emulators_of(started.pid) != set(),
        )
        born = _emulators_of(started.pid)
        started.kill()
        until("the end of its workers", lambda: not living(started.pid))
        until("the end of its emulator", lambda: born.isdisjoint(_emulators()))


def test_a_closed_standard_output_is_no_traceback(desk: Desk) -> None:
    """``ctbatch run … | head -1``: no traceback, whatever was still to be printed."""
    users = desk.write("users.ndjson", *mixture(30))
    shell = (
        '"$@" --run-dir 1 2> err | true; echo ${PIPESTATUS[0]} > codes; '
        '"$@" --run-dir 2 2>> err | head -c 1; echo ${PIPESTATUS[0]} >> codes'
    )
    command = ["bash", "-c", shell, "bash", *CTBATCH, "run", str(users)]
    subprocess.run(command, cwd=desk.cwd, env=desk.env(), stdout=subprocess.PIPE, check=True)
    err = (desk.cwd / "err").read_text()
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
    assert "Exception ignored" not in err
    assert "bug" not in err
    for code in (desk.cwd / "codes").read_text().split():
        assert code in {"3", "141"}, err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_descriptor_is_no_trap(desk: Desk, closed: str) -> None:
    """No socket gets the number of a standard stream, here or in a child: the run ends as ever, and
    what could not be said elsewhere is not said on standard output.
    """
    users = desk.write("users.ndjson", *mixture(30))
    command = [*CTBATCH, "run", str(users), "--emulator", "--workers", "1", "--run-dir", "run"]
    told = subprocess.run(
        ["bash", "-c", f'"$@" {closed}', "bash", *command],
        check=False,
        cwd=desk.cwd,
        env=desk.env(),
        capture_output=True,
        text=True,
    )
    assert told.returncode == 3
    assert desk.run.report["state"] == "complete"
    assert told.stdout[:4] == ("" if ">&-" in closed.replace("2>&-", "") else "Run ")
    assert ("EMULATOR" in told.stderr) == ("2>&-" not in closed)


def test_a_full_disk_under_standard_output_is_told(desk: Desk) -> None:
    """The run is recorded all the same; a short result is noticed as well as a long one."""
    users = desk.write("users.ndjson", *mixture(300))
    run = [*CTBATCH, "run", str(users), "--run-dir", "run", "--json", "--quiet"]
    reports = [*CTBATCH, "report", "run"], [*CTBATCH, "report", "run", "--json"]
    with open("/dev/full", "wb") as full:  # noqa: PTH123  # a device
        for command, code in ((run, 3), (reports[0], 4), (reports[1], 4)):
            ended = subprocess.run(
                command,
                check=False,
                cwd=desk.cwd,
                env=desk.env(),
                stdout=full,
                stderr=subprocess.PIPE,
            )
            assert ended.returncode == code
            assert b"standard output cannot be written: " in ended.stderr
            assert b"No space left" in ended.stderr
            assert b"bug" not in ended.stderr
    assert desk.run.report["state"] == "complete"


def test_the_report_of_a_run_says_where_it_stands(desk: Desk, service: Service) -> None:
    """``report`` tells running, killed and finished runs apart; a running one stays untouched."""
    service.configure(faults=["hang=after-2"])
    users = desk.write("users.ndjson", *profiles(100))
    args = ("run", users, "--batch-size", 5, "--concurrency", 2, "--run-dir", "run")
    started = desk.start(*args)
    started.until("requests that hang", lambda: len(service.requests()) >= 4)
    running = desk.ctbatch("report", "run", "--json")
    assert running.code == 0
    assert running.report["state"] == "running"
    assert running.report["resume"] is None
    second = desk.ctbatch("resume", "run")
    assert second.code == 2
    assert "another process" in second.complaint
    assert not started.is_over()
    started.kill()
    killed = desk.ctbatch("report", "run", "--json")
    assert killed.report["state"] == "killed"
    assert killed.report["resume"] == "ctbatch resume run"
    assert killed.report["lines"]["maybe_sent"] >= 10
    service.configure(faults=[])
    finished = desk.ctbatch("resume", "--json", "run")
    assert finished.code == 0
    assert finished.report["state"] == "complete"
    assert desk.ctbatch("report", "run", "--json").report == finished.report


def test_what_must_not_be_repeated_is_held_back_after_a_crash(desk: Desk, service: Service) -> None:
    """kill -9 with counters on the wire: they become unknown and are listed, never sent twice."""
    service.configure(faults=["hang=after-2"])
    lines = [profile("a"), profile("b"), *[counter(name) for name in identities(8)]]
    users = desk.write("users.ndjson", *lines)
    started = desk.start("run", users, "--batch-size", 1, "--concurrency", 2, "--run-dir", "run")
    started.until("requests that hang", lambda: len(service.requests()) >= 4)
    started.kill()
    service.configure(faults=[])
    ended = desk.ctbatch("resume", "run", "--json")
    assert ended.code == 3
    unknown = desk.run.lines("unknown")
    assert 2 <= len(unknown) <= 4  # as many as --concurrency, and two that were next
    assert ended.report["lines"]["unknown"] == len(unknown)
    assert ended.report["lines"]["processed"] == 10 - len(unknown)
    assert [state for _, state, _ in desk.run.places("unknown")] == ["unknown"] * len(unknown)
    # A profile that was stored right before the kill goes again, which changes nothing.
    stored = [name for name in service.identities() if name not in {"a", "b"}]
    assert len(stored) == len(set(stored))
