"""A run directory that cannot be written any more: what cannot be recorded is not sent."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import Desk
from tests.e2e.people import counter, identities, profiles
from tests.e2e.service import Service


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for little; skipped where none may be mounted."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def _remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)


def test_a_disk_that_fills_up_stops_the_run(desk: Desk, service: Service, small_disk: Path) -> None:
    """The run stops with 4 and says how to go on; nothing was sent that is not recorded, so that
    with room again every counter arrives once.
    """
    service.configure(latency_s=0.01)
    names = identities(900)
    lines = [counter(name) if n % 3 == 0 else b"{" + b" " * 300 for n, name in enumerate(names)]
    users = desk.write("users.ndjson", *lines)
    run_dir = small_disk / "run"
    args = ("run", users, "--batch-size", 10, "--concurrency", 2, "--run-dir", run_dir, "--json")
    ended = desk.ctbatch(*args)
    assert ended.code == 4, ended.err
    assert "ledger" in ended.err
    assert ended.report["lines"]["unsent"] > 0
    stored = service.identities()
    assert 0 < len(stored) < 300
    _remount(small_disk, "size=8m")
    resumed = desk.ctbatch(*ended.resume_command, "--json")
    assert resumed.code == 3, resumed.err
    counts = resumed.report["lines"]
    stored = service.identities()
    assert len(stored) == len(set(stored))
    assert counts["invalid"] == 600
    assert counts["processed"] + counts["unknown"] == 300
    assert counts["processed"] <= len(stored)
    assert counts["unknown"] <= 4 * 10  # as many batches as --concurrency, and two


def test_a_directory_gone_read_only_is_refused(
    desk: Desk, service: Service, small_disk: Path
) -> None:
    """Read-only after a crash: ``resume`` ends with 2 and its name, sending nothing, ``report``
    still reads it; writable again, the job is done.
    """
    service.configure(faults=["hang=after-3"])
    users = desk.write("users.ndjson", *profiles(40))
    run_dir = small_disk / "run"
    args = ("run", users, "--batch-size", 5, "--concurrency", 2, "--run-dir", run_dir)
    started = desk.start(*args)
    started.until("requests that hang", lambda: len(service.requests()) >= 5)
    started.kill()
    service.configure(faults=[])
    _remount(small_disk, "ro")
    sent = len(service.requests())
    refused = desk.ctbatch("resume", run_dir)
    assert refused.code == 2, refused.err
    assert str(run_dir) in refused.complaint
    assert len(service.requests()) == sent
    told = desk.ctbatch("report", run_dir, "--json")
    assert told.code == 0, told.err
    _remount(small_disk, "rw")
    ended = desk.ctbatch("resume", run_dir, "--json")
    assert ended.code == 0, ended.err
    assert ended.report["lines"]["processed"] == 40


@pytest.mark.parametrize("fate", ["moved", "removed"])
def test_a_directory_that_goes_away_does_not_take_the_report_along(
    desk: Desk, service: Service, fate: str
) -> None:
    """Everything was sent: that is told, and that the run stopped, and nobody is asked to name a
    run directory. One that was moved can be gone on with.
    """
    service.configure(latency_s=0.05)
    lines = [b"{" if n % 7 == 0 else line for n, line in enumerate(profiles(60))]
    users = desk.write("users.ndjson", *lines)
    started = desk.start(
        *("run", users, "--batch-size", 5, "--concurrency", 2, "--run-dir", "run", "--json")
    )
    started.until("a few requests", lambda: len(service.requests()) >= 4)
    (desk.cwd / "run").rename(desk.cwd / "moved")
    if fate == "removed":
        shutil.rmtree(desk.cwd / "moved")
    ended = started.ended()
    assert ended.code == 4, ended.err
    counts = ended.report["lines"]
    assert (counts["processed"], counts["invalid"], counts["unsent"]) == (51, 9, 0)
    if fate == "removed":
        return
    told = desk.ctbatch("report", "moved", "--json")
    assert told.report["resume"].startswith("ctbatch resume moved")
    resumed = desk.ctbatch("resume", "moved", "--json")
    assert resumed.code == 3, resumed.err
    assert resumed.report["lines"] == counts
    assert len((desk.cwd / "moved" / "rejected.ndjson").read_bytes().splitlines()) == 9
    assert len(service.identities()) == 51


def test_the_report_of_a_damaged_ledger_is_none(desk: Desk, service: Service) -> None:
    """That is said, without a traceback; and an empty one is not called one that never began."""
    users = desk.write("users.ndjson", *profiles(300), b"{")
    assert desk.ctbatch("run", users, "--batch-size", 5, "--run-dir", "run").code == 3
    ledger = desk.cwd / "run" / "ledger.sqlite"
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    for command in ("report", "resume"):
        told = desk.ctbatch(command, "run")
        assert told.code == 2
        assert "damaged" in told.complaint
    for spoilt in ledger.parent.glob("ledger.sqlite*"):
        spoilt.unlink()
    ledger.touch()
    for command in ("report", "resume"):
        told = desk.ctbatch(command, "run")
        assert (told.code, "what was sent is not known" in told.complaint) == (2, True)
