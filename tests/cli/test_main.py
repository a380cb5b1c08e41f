"""The command ends well whatever happens: one message, the documented exit code, no traceback."""

from __future__ import annotations

import errno
import gzip
import io
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Annotated

import pytest
import typer

from ctbatch import __version__
from ctbatch.cli import main as command_line
from ctbatch.cli import streams
from ctbatch.cli.groups import spread
from ctbatch.cli.main import main
from ctbatch.cli.options import Kind
from ctbatch.errors import BalanceError, InputError, ServiceRefused
from ctbatch.pipeline.report.document import Report

POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX pipes and devices")
LONG = "n" * 300


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CLEVERTAP_", "CTBATCH_")):
            monkeypatch.delenv(name)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Run a command that ends with an error; returns the exit code."""

    def run(error: BaseException) -> int:
        def build(args: object) -> typer.Typer:
            app = typer.Typer(pretty_exceptions_enable=False)

            @app.command()
            def fail() -> None:
                secret_record = "alice@example.com"
                raise error if secret_record else AssertionError

            return app

        monkeypatch.setattr(command_line, "build", build)
        return main([])

    return run


def ctbatch(*args: str, stdout: IO[str] | int) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CTBATCH")}
    return subprocess.run(
        [sys.executable, "-m", "ctbatch", *args],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        timeout=30,
        check=False,
    )


def test_version_is_answered_before_anything_heavy_is_imported() -> None:
    """Scripts ask for the version often; it must cost next to nothing."""
    code = (
        "import sys, runpy; sys.argv = ['ctbatch', '--version']\n"
        "try: runpy.run_module('ctbatch', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'typer', 'rich', 'asyncio', 'aiohttp', 'orjson', 'cryptography'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"ctbatch {__version__}\n", "")


def test_an_interrupt_while_it_is_imported_is_no_traceback() -> None:
    """Half a second of every command goes into that."""
    code = (
        "import sys, runpy\n"
        "class Impatient:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "sys.argv = ['ctbatch', 'run', 'x']\n"
        "runpy.run_module('ctbatch', run_name='__main__')"
    )
    told = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (told.returncode, told.stdout, told.stderr) == (130, b"", b"")


def test_version_is_known_beside_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    """``ctbatch --version run`` asks for the version."""
    assert main(["--version", "run"]) == 0
    assert capsys.readouterr().out == f"ctbatch {__version__}\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run"], "INPUT"),
        (["run", "x", "--concurrency", "0"], "--concurrency"),
        (["run", "x", "--concurrency", "many"], "--concurrency"),
        (["run", "x", "--batch-size", "1001"], "--batch-size"),
        (["run", "x", "--on-ambiguous", "maybe"], "--on-ambiguous"),
        (["run", "x", "--no-such-option"], "--no-such-option"),
        (["run", "x"], "CLEVERTAP_ACCOUNT_ID"),
        (["run", "x", "--account-id", "A"], "CLEVERTAP_PASSCODE"),
        (["run", "x", "--emulator", "--region", "in1"], "--emulator"),
        (["run", "x", "--dry-run", "--emulator"], "--dry-run"),
        (["report"], "RUN_DIR"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], args: list[str], said: str
) -> None:
    """What is wrong is named, nothing is begun, and nobody reads a traceback."""
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert not out
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("a.ndjson", "no such file"), 2, "ctbatch: a.ndjson: no such file\n"),
        (ServiceRefused("refused"), 5, "ctbatch: refused\n"),
        (BalanceError("a", 2, 1), 70, "accounted for"),
        (KeyboardInterrupt(), 130, ""),
        (ExceptionGroup("g", [ExceptionGroup("h", [InputError("a", "b")])]), 2, "ctbatch: a: b\n"),
        (BaseExceptionGroup("g", [KeyboardInterrupt()]), 130, ""),
        (MemoryError(), 4, "too little for it (no more memory)"),
        (ExceptionGroup("g", [OSError(errno.EMFILE, "x")]), 4, "(too many open files)"),
        (SystemExit(7), 7, ""),
        (SystemExit(), 0, ""),
    ],
)
def test_every_error_has_its_exit_code(
    failing: Callable[[BaseException], int],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    """The class carries the code; the message is all that is shown."""
    assert failing(error) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_a_bug_says_so_and_shows_no_data(
    failing: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    """An unexpected error names its type and place; its text might quote a record."""
    assert failing(KeyError("bob@example.com")) == 1
    err = capsys.readouterr().err
    assert "bug" in err
    assert "KeyError in test_main.py, line" in err
    assert "Traceback" not in err
    assert "example.com" not in err


def test_a_bug_shows_its_traceback_when_asked_and_never_local_variables(
    failing: Callable[[BaseException], int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``CTBATCH_LOG_LEVEL=DEBUG`` is for whoever reports it; local variables hold records."""
    monkeypatch.setenv("CTBATCH_LOG_LEVEL", "debug")
    assert failing(KeyError("x")) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "alice@example.com" not in err


def test_groups_of_options_are_declared_once() -> None:
    """A group is spread into its options, and the command gets it back whole."""
    seen: list[object] = []

    @spread
    def command(kind: Kind, name: Annotated[str, typer.Argument()] = "x") -> None:
        seen.append((kind, name))

    app = typer.Typer()
    app.command()(command)
    typer.main.get_command(app).main(["--limit", "3", "y"], standalone_mode=False)
    assert seen == [(Kind(limit=3), "y")]


def closed_pipe() -> io.TextIOWrapper:
    """A patient stream into a pipe whose reader left."""
    reading, writing = os.pipe()
    os.close(reading)
    return io.TextIOWrapper(io.BufferedWriter(streams.PatientFile(writing, closefd=True)))


@POSIX
def test_a_reader_who_left_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written after that goes nowhere, as often as it is tried."""
    with closed_pipe() as stream:
        monkeypatch.setattr("sys.stdout", stream)
        for _ in range(3):
            streams.out("x" * 100_000)
            assert streams.finish(3) == 3


@POSIX
@pytest.mark.parametrize("args", [["--version"], ["run", "--help"]])
def test_a_closed_pipe_is_not_a_traceback(args: list[str]) -> None:
    """``ctbatch … | head`` ends quietly with the exit code it would have had."""
    reading, writing = os.pipe()
    os.close(reading)
    done = ctbatch(*args, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("args", [["--version"], ["run", "--help"]])
def test_a_full_disk_is_an_error(args: list[str]) -> None:
    """A result that could not be written is not a success."""
    with Path("/dev/full").open("w") as full:
        done = ctbatch(*args, stdout=full)
    assert done.returncode == 4
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@POSIX
def test_a_closed_standard_output_is_not_an_error() -> None:
    """``>&-`` is a way to say that nobody listens."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m ctbatch --version >&-', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_any_text_can_be_written_to_any_terminal() -> None:
    """A terminal that knows ASCII only gets escapes, not a traceback."""
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    code = "from ctbatch.cli import streams; streams.prepare(); streams.out('caf\\xe9 \\u2026')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("caf\\xe9 \\u2026", "")


@pytest.mark.parametrize("args", [[], ["run"], ["bench"], ["keys"], ["keys", "generate"]])
def test_flags_take_no_value(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody tries ``--quiet true`` because the help seems to ask for it."""
    assert main([*args, "--help"]) == 0
    out = capsys.readouterr().out
    assert "--help" in out
    assert "bool" not in out


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    """Who has nothing yet can try; who has keys can upload; every command is listed."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for said in ("ctbatch run users.ndjson --emulator", "CLEVERTAP_PASSCODE", "Exit codes"):
        assert said in text
    for command in ("run", "resume", "report", "keys", "emulator"):
        assert f" {command} " in text


def test_a_report_of_what_is_no_run_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong directory is one message."""
    assert main(["report", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_resume_without_an_unfinished_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a run to go on with, nothing is begun."""
    monkeypatch.chdir(tmp_path)
    assert main(["resume"]) == 2
    assert "no unfinished run" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_is_checked_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``run --dry-run`` needs nothing but a file; ``report`` shows the same again."""
    monkeypatch.chdir(tmp_path)
    record = '{"type":"profile","identity":"1","profileData":{"a":1}}'
    Path("users.ndjson").write_text(f"{record}\n\nnot json\n", encoding="utf-8")
    args = ["run", "users.ndjson", "--dry-run", "--workers", "0", "--run-dir", "d"]
    assert main([*args, "--quiet"]) == 3
    first = capsys.readouterr().out
    assert "1 line invalid" in first
    assert main(["report", "d"]) == 0
    assert capsys.readouterr().out == first
    assert main(["report", "d", "--json"]) == 0
    assert Report.from_json(capsys.readouterr().out.encode()).lines.total == 3
    assert main([*args, "--quiet"]) == 2
    assert "not empty" in capsys.readouterr().err


def test_a_run_whose_report_cannot_be_written_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command is named, and without a name it is the run that is found."""
    monkeypatch.chdir(tmp_path)
    Path("users.ndjson").write_text('{"type":"profile","identity":"1","profileData":{}}\n')
    assert main(["run", "users.ndjson", "--dry-run", "--workers", "0", "--quiet"]) == 0
    [report] = Path("ctbatch-runs").glob("*/report.json")
    report.unlink()
    report.mkdir()
    capsys.readouterr()
    assert main(["resume", str(report.parent), "--quiet"]) == 4
    err = capsys.readouterr().err
    assert f"ctbatch: {report} cannot be written: Is a directory. Nothing is lost" in err
    assert f"go on with\nctbatch resume {report.parent}\n" in err
    report.rmdir()
    assert main(["resume", "--quiet"]) == 0
    assert Report.from_json(report.read_bytes()).state == "complete"
    assert main(["resume", "--quiet"]) == 2
    assert "no unfinished run" in capsys.readouterr().err


def test_a_ledger_that_cannot_be_written_at_the_start_names_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first write of a resume fails as any other does: exit 4, and the command."""
    monkeypatch.chdir(tmp_path)
    Path("users.ndjson").write_text('{"type":"profile","identity":"1","profileData":{}}\n')
    args = ["--dry-run", "--workers", "0", "--run-dir", "d"]
    assert main(["run", "users.ndjson", *args, "--quiet"]) == 0
    with sqlite3.connect("d/ledger.sqlite") as db:
        db.execute(
            "CREATE TRIGGER full BEFORE INSERT ON meta WHEN NEW.key = 'state'"
            " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    db.close()
    capsys.readouterr()
    assert main(["resume", "d", "--quiet"]) == 4
    err = capsys.readouterr().err
    assert "cannot be written: database or disk is full. Nothing unrecorded was sent." in err
    assert "go on with\nctbatch resume d\n" in err


def test_an_input_that_broke_is_not_called_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged archive without a whole line is one error; only what is empty is called so."""
    monkeypatch.chdir(tmp_path)
    Path("cut.gz").write_bytes(gzip.compress(b"{}\n")[:12])
    Path("empty").touch()
    args = ["--dry-run", "--workers", "0", "--run-dir"]
    assert main(["run", "cut.gz", *args, "a"]) == 4
    err = capsys.readouterr().err
    assert "cut short" in err
    assert "empty" not in err
    assert main(["run", "empty", *args, "b"]) == 0
    assert "the input is empty" in capsys.readouterr().err


def test_the_command_that_resumes_can_be_pasted_whatever_the_directory_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes that are no text come as escapes that a shell reads, on the terminal and in the report;
    nothing in a name reaches the terminal.
    """
    monkeypatch.chdir(tmp_path)
    Path("cut.gz").write_bytes(gzip.compress(b"{}\n")[:12])
    name, command = "r\udcff\x1b[31m", r"ctbatch resume $'r\xff\x1b[31m'"
    assert main(["run", "cut.gz", "--dry-run", "--workers", "0", "--run-dir", name]) == 4
    out, err = capsys.readouterr()
    assert f"ctbatch: go on with\n{command}\n" in err
    assert "\x1b" not in out + err
    report = Report.from_json(Path(name, "report.json").read_bytes())
    assert report.resume == command


class Broken(io.StringIO):
    """A stream without a descriptor that cannot be written."""

    def flush(self) -> None:
        """Fail as a full disk does."""
        raise OSError(28, "No space left on device")


def test_a_stream_of_a_host_program_may_fail_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stream that is no file is used as it is, and its failure told like any other."""
    broken = Broken()
    monkeypatch.setattr("sys.stdout", broken)
    monkeypatch.setattr("sys.__stdout__", broken)
    streams.prepare()
    assert sys.stdout is broken
    assert streams.finish(0) == 4
    assert streams.finish(3) == 3
    assert "No space left" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ["run", "u.ndjson", "--server-key", LONG, "--client-key", LONG],
        ["run", "u.ndjson", "--plaintext", "--ca-file", LONG],
        ["keys", "show", LONG],
        ["events", "--plaintext", "--continue", LONG],
        ["bench", "u.ndjson", "--svg", LONG],
        ["bench", "u.ndjson", "--svg", f"{LONG}/c.svg"],
    ],
)
def test_a_name_that_may_not_be_looked_at_is_no_bug(
    args: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Too long for the system, as what is in a directory that may not be searched: exit code 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "A")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "P")
    Path("u.ndjson").write_bytes(b'{"type":"profile","identity":"u","profileData":{}}\n')
    assert main(args) == 2
    err = capsys.readouterr().err
    assert LONG in err
    assert "bug" not in err
