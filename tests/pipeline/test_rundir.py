"""Run directories are private, never mixed up, and held by one process at a time."""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ctbatch.errors import RunDirectoryError
from ctbatch.pipeline.ledger import rundir

ROOT = Path(__file__).parents[2]

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)

HOLD = """
import sys
from pathlib import Path
from ctbatch.pipeline.ledger import rundir
with rundir.locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

TRY = """
import sys
from pathlib import Path
from ctbatch.errors import CtbatchError
from ctbatch.pipeline.ledger import rundir
try:
    with rundir.locked(Path(sys.argv[1])):
        print("held")
except CtbatchError as error:
    print(error)
"""


UNWRITABLE = """
import os, sys
from pathlib import Path
from ctbatch.errors import RunDirectoryError
from ctbatch.pipeline.ledger import rundir
if os.geteuid() == 0:
    os.setuid(65534)  # nobody: root may write everywhere
place = Path(sys.argv[1])
for making in (lambda: rundir.create(place / "x", "-"), lambda: rundir.locked(place).__enter__()):
    try:
        making()
    except RunDirectoryError as error:
        print(error)
os._exit(0)
"""


@contextmanager
def holder(run_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the run directory."""
    command = [sys.executable, "-c", HOLD, str(run_dir)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def try_to_hold(run_dir: Path) -> str:
    """What another process hears."""
    command = [sys.executable, "-c", TRY, str(run_dir)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


# -- making ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first_input", "name"),
    [
        ("data/users.ndjson", "users"),
        ("users.2026.ndjson.gz", "users"),
        ("-", "stdin"),
        ("/dev/fd/63", "63"),
        ("exports/*.ndjson", "-"),
        ("Kunden März.ndjson", "Kunden-M-rz"),
        (".ndjson", "input"),
        ("x" * 200, "x" * 40),
    ],
)
def test_a_run_is_named_by_time_and_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_input: str, name: str
) -> None:
    """UTC time and the first input's stem, whatever that is; private."""
    monkeypatch.chdir(tmp_path)
    made = rundir.create(None, first_input, NOON)
    assert made == Path("ctbatch-runs") / f"20260131T120000Z-{name}"
    assert mode(made) == 0o700


def test_runs_of_the_same_second_are_numbered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs never share a directory."""
    monkeypatch.chdir(tmp_path)
    names = [rundir.create(None, "users.ndjson", NOON).name for _ in range(3)]
    assert [name.removeprefix("20260131T120000Z-") for name in names] == [
        "users",
        "users-1",
        "users-2",
    ]
    assert rundir.create(None, "users.ndjson").is_dir()


def test_a_second_has_room_for_a_thousand_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then something is wrong, and it is said."""
    monkeypatch.chdir(tmp_path)
    first = rundir.create(None, "-", NOON)
    for number in range(1, 1000):
        first.with_name(f"{first.name}-{number}").mkdir()
    with pytest.raises(RunDirectoryError, match="is full"):
        rundir.create(None, "-", NOON)


@pytest.mark.parametrize("base", ["a file", "a dangling link"])
def test_a_base_that_is_no_directory_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    """The remedy is named."""
    monkeypatch.chdir(tmp_path)
    if base == "a file":
        rundir.DEFAULT_BASE.touch()
    else:
        rundir.DEFAULT_BASE.symlink_to("nowhere")
    with pytest.raises(RunDirectoryError, match=r"cannot be made.*--run-dir"):
        rundir.create(None, "users.ndjson", NOON)


def test_a_named_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    """``--run-dir`` may not exist yet."""
    made = rundir.create(tmp_path / "a" / "b", "users.ndjson")
    assert made == tmp_path / "a" / "b"
    assert mode(made) == 0o700


def test_an_empty_directory_is_taken_and_made_private(tmp_path: Path) -> None:
    """Also one in which an earlier run did not get beyond its lock."""
    (tmp_path / ".lock").touch()
    tmp_path.chmod(0o755)
    assert rundir.create(tmp_path, "users.ndjson") == tmp_path
    assert mode(tmp_path) == 0o700


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path) -> None:
    """Somebody's files, or an earlier run, which can be gone on with."""
    (tmp_path / "ledger.sqlite").touch()
    with pytest.raises(RunDirectoryError, match=r"not empty.*ctbatch resume"):
        rundir.create(tmp_path, "users.ndjson")


def test_a_file_is_refused(tmp_path: Path) -> None:
    """A run directory is a directory."""
    (tmp_path / "x").touch()
    with pytest.raises(RunDirectoryError, match="cannot be made"):
        rundir.create(tmp_path / "x", "users.ndjson")


def test_an_unwritable_place_is_refused() -> None:
    """The message names the directory and the reason, without a traceback."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o555)
        command = [sys.executable, "-c", UNWRITABLE, place]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    making, locking = done.stdout.splitlines()
    assert making.endswith("/x: cannot be made (Permission denied)")
    assert locking.endswith(": cannot be written (Permission denied)")


def test_the_newest_run_comes_first(tmp_path: Path) -> None:
    """Names sort by time; what holds no ledger is no run."""
    for name in ("20260101T000000Z-a", "20260301T000000Z-a", "20260201T000000Z-b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ledger.sqlite").touch()
    (tmp_path / "notes").mkdir()
    assert [path.name[4:6] for path in rundir.all_runs(tmp_path)] == ["03", "02", "01"]


# -- holding --------------------------------------------------------------------------------------


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """Two processes never write one ledger; others can see that it is held."""
    assert not rundir.is_locked(tmp_path)
    with holder(tmp_path):
        assert rundir.is_locked(tmp_path)
        with (
            pytest.raises(RunDirectoryError, match="in use by another process"),
            rundir.locked(tmp_path),
        ):
            pass


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    """After kill -9 nothing has to be cleaned up by hand."""
    with holder(tmp_path) as process:
        process.kill()
        process.wait()
        assert not rundir.is_locked(tmp_path)
        with rundir.locked(tmp_path):
            assert try_to_hold(tmp_path).startswith("run directory")
    assert try_to_hold(tmp_path) == "held\n"


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    """A worker that outlives its run for a moment does not block ``resume``: neither a forked one
    nor one with open descriptors.
    """
    code = HOLD.replace(
        "    sys.stdin.read()\n",
        "    import os\n    if os.fork() == 0:\n        print('child', flush=True)\n"
        "        sys.stdin.read()\n        os._exit(0)\n    sys.stdin.read()\n",
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert sorted(process.stdout.readline() for _ in range(2)) == ["child\n", "held\n"]
        assert rundir.is_locked(tmp_path)
        process.kill()
        process.wait()
        assert not rundir.is_locked(tmp_path)  # the child still runs: it waits for its input


def test_looking_does_not_give_the_lock_up(tmp_path: Path) -> None:
    """Closing any descriptor of a file gives up a process's record locks on it; a report drawn in
    the same process must not.
    """
    with rundir.locked(tmp_path):
        assert rundir.is_locked(tmp_path)
        assert "in use by another process" in try_to_hold(tmp_path)
        with pytest.raises(RunDirectoryError, match="in use by this process"):
            rundir.locked(tmp_path).__enter__()
        assert "in use by another process" in try_to_hold(tmp_path)
    assert not rundir.is_locked(tmp_path)
    assert try_to_hold(tmp_path) == "held\n"


def test_the_lock_is_private(tmp_path: Path) -> None:
    """Like everything in a run directory."""
    with rundir.locked(tmp_path):
        assert mode(tmp_path / ".lock") == 0o600
