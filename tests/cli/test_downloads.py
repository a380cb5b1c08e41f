"""``events`` and ``profiles`` write every record once, for the owner only, and can go on."""

from __future__ import annotations

import errno
import fcntl
import gzip
import io
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import termios
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from ctbatch.cli.main import main
from ctbatch.cli.notes import Note, note_path
from ctbatch.cli.outputs import OutputFile, Stdout, note_of
from ctbatch.cli.streams import PatientFile
from ctbatch.errors import InputError, OutputBroke, SettingsError
from tests.cli.service import Service, served

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX modes, signals and devices")
EVENTS = ["events", "Bought", "--from", "19700101", "--to", "20241003", "--batch-size", "3"]
NOTE = Note(path="/1/x", account_id="A", host="h", query="q", cursor="")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """An emulator with ten events, and the environment that points at it."""
    for name in list(os.environ):
        if name.startswith(("CLEVERTAP_", "CTBATCH_")):
            monkeypatch.delenv(name)
    with served() as service:
        service.fill(10)
        for name, value in service.env.items():
            monkeypatch.setenv(name, value)
        yield service


def numbers(data: bytes) -> list[int]:
    """The events' numbers in NDJSON."""
    return [orjson.loads(line)["event_props"]["n"] for line in data.splitlines()]


def test_events_go_to_standard_output(
    service: Service, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Records and nothing else there; where they come from and how many on standard error."""
    assert main(EVENTS) == 0
    out, err = capfdbinary.readouterr()
    assert numbers(out) == list(range(10))
    assert b"end-to-end encrypted, account TEST-EMU-0001" in err
    assert b"10 records in 4 pages" in err
    assert main([*EVENTS, "--quiet"]) == 0
    assert not capfdbinary.readouterr().err


@POSIX
@pytest.mark.parametrize(
    ("name", "unpack"),
    [("e.ndjson", bytes), ("e.ndjson.gz", gzip.decompress), ("e.zst", zstd.decompress)],
)
def test_a_file_is_new_private_and_whole(
    service: Service, tmp_path: Path, name: str, unpack: Callable[[bytes], bytes]
) -> None:
    """Compressed by its name; no note is left; it is not written over."""
    path = tmp_path / name
    assert main([*EVENTS, "-o", str(path)]) == 0
    assert numbers(unpack(path.read_bytes())) == list(range(10))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == [name]
    assert main([*EVENTS, "-o", str(path)]) == 2
    assert numbers(unpack(path.read_bytes())) == list(range(10))


@pytest.mark.parametrize("name", ["e", "e.gz", "e.zst"])
def test_nothing_found_is_an_ordinary_file(service: Service, tmp_path: Path, name: str) -> None:
    """Also where it is compressed: an archive of nothing."""
    path = tmp_path / name
    args = ["events", "Bought", "--from", "20240101", "--to", "20240102", "-o", str(path)]
    assert main(args) == 0
    data = path.read_bytes()
    unpack = {"e.gz": gzip.decompress, "e.zst": zstd.decompress}.get(name, bytes)
    assert unpack(data) == b""


@pytest.mark.parametrize("name", ["e.ndjson", "e.ndjson.gz", "e.zst"])
def test_an_interrupted_download_goes_on(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """With the command that was printed; half a page that was written is cut off first."""
    path = tmp_path / name
    service.configure(faults=("401=after-3",))
    assert main([*EVENTS, "-o", str(path)]) == 5
    err = capsys.readouterr().err
    note = Note.load(note_path(path))
    assert note.records == 6
    assert stat.S_IMODE(note_path(path).stat().st_mode) == 0o600
    assert note.cursor not in err
    with path.open("ab") as file:
        file.write(b"half a page")
    found = re.search(r"go on with\n(ctbatch .*)\n", err)
    assert found is not None
    command = shlex.split(found[1])
    service.configure(faults=())
    assert main(command[1:]) == 0
    unpack = {"e.ndjson.gz": gzip.decompress, "e.zst": zstd.decompress}.get(name, bytes)
    assert numbers(unpack(path.read_bytes())) == list(range(10))
    assert [found.name for found in tmp_path.iterdir()] == [name]
    assert main(command[1:]) == 2
    assert "nothing to go on with" in capsys.readouterr().err


def test_the_command_to_go_on_talks_as_before(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In plaintext, say: where an account has no keys, it would find none."""
    path = tmp_path / "e"
    args = ["--plaintext", "--timeout", "5", "--wait", "7", "--log-level", "error"]
    service.configure(faults=("401=after-3",))
    assert main([*EVENTS, "-o", str(path), *args]) == 5
    found = re.search(r"go on with\n(ctbatch .*)\n", capsys.readouterr().err)
    assert found is not None
    command = shlex.split(found[1])
    assert command[4:] == [
        "--plaintext", "--timeout", "5.0", "--wait", "7.0", "--log-level", "error",
    ]  # fmt: skip
    service.configure(faults=())
    assert main(command[1:]) == 0
    assert numbers(path.read_bytes()) == list(range(10))


def test_going_on_refuses_what_is_not_the_same(
    service: Service,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another query, account or output would mix two downloads."""
    path = tmp_path / "e"
    service.configure(faults=("401=after-2",))
    assert main([*EVENTS, "-o", str(path)]) == 5
    service.configure(faults=())
    note = str(note_path(path))
    for args, said in (
        (["events", "Other", *EVENTS[2:], "--continue", note], "another query"),
        (["profiles", "--continue", note], "another endpoint"),
        (["events", "--continue", note, "-o", str(tmp_path / "f")], "another file"),
        (["events", "--continue", note, "--account-id", "TEST-OTHER-1"], "another account"),
        (["events", "--continue", str(tmp_path / "f")], "nothing to go on"),
        ([*EVENTS, "-o", str(path)], "--continue"),
    ):
        assert main(args) == 2
        assert said in capsys.readouterr().err
    assert main([*EVENTS, "--continue", str(path), "-o", str(path)]) == 0
    assert numbers(path.read_bytes()) == list(range(10))


def test_a_failure_before_the_first_page_leaves_nothing_behind(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command works once it is mended."""
    path = tmp_path / "e"
    args = ["events", "Sold", *EVENTS[2:], "-o", str(path)]
    assert main(args) == 5
    err = capsys.readouterr().err
    assert "Invalid event" in err
    assert "go on with" not in err
    assert [found.name for found in tmp_path.iterdir()] == []


@POSIX
def test_a_download_killed_before_its_first_answer_is_begun_again(
    service: Service, tmp_path: Path
) -> None:
    """With the same command: the empty file that it leaves is nobody's loss."""
    service.configure(latency_s=30.0)
    path = tmp_path / "e"
    command = [*EVENTS, "-o", str(path)]
    with subprocess.Popen(
        [sys.executable, "-m", "ctbatch", *command], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()  # from where: the file is made by then
        assert main(command) == 2
        process.kill()
    assert path.read_bytes() == b""
    service.configure(latency_s=0.0)
    assert main(command) == 0
    assert numbers(path.read_bytes()) == list(range(10))


@POSIX
@pytest.mark.parametrize("what", ["other mode", "noted", "second name", "link", "pipe", "written"])
def test_nothing_else_that_is_there_is_taken_over(tmp_path: Path, what: str) -> None:
    """What is not an empty file of our making may be somebody's."""
    path, other = tmp_path / "e", tmp_path / "other"
    if what == "pipe":
        os.mkfifo(path, 0o600)
    elif what == "link":
        other.touch(0o600)
        path.symlink_to(other)
    else:
        path.touch(0o644 if what == "other mode" else 0o600)
    if what == "noted":
        note_path(path).touch()
    elif what == "second name":
        other.hardlink_to(path)
    elif what == "written":
        path.write_bytes(b"\n")
    with pytest.raises(SettingsError, match="exists already"):
        OutputFile(path, note=NOTE)
    assert os.path.lexists(path)


def test_an_expired_cursor_is_not_offered_to_go_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how to start again."""
    now = [20_000 * 86_400.0]
    with served(clock=lambda: now[0]) as service:
        for name, value in service.env.items():
            monkeypatch.setenv(name, value)
        service.fill(10)
        service.configure(faults=("401=after-2",))
        path = tmp_path / "e"
        assert main([*EVENTS, "-o", str(path)]) == 5
        service.configure(faults=())
        capsys.readouterr()
        now[0] += 5 * 3600
        assert main(["events", "--continue", str(path)]) == 4
    err = capsys.readouterr().err
    assert "has expired" in err
    assert "tart again" in err
    assert "go on with" not in err


def test_a_refused_cursor_is_not_offered_to_go_on_with(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in a first download nor where it was gone on with: it would be refused again."""
    path = tmp_path / "e"
    service.configure(faults=("400=after-2",))
    assert main([*EVENTS, "-o", str(path), "--plaintext"]) == 5
    assert note_path(path).is_file()
    for said in ("the service's own", "of another account"):
        err = capsys.readouterr().err
        assert "the service refused the cursor" in err
        assert said in err
        assert "into a new file" in err
        assert "go on with" not in err
        assert "--continue" not in err
        assert main(["events", "--continue", str(path), "--plaintext"]) == 5


def test_profiles_come_by_a_query_file(
    service: Service,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From a file, with a BOM or without, or standard input."""
    query = b'{"event_name": "Bought", "from": 19700101, "to": 20241003}'
    (tmp_path / "q.json").write_bytes(BOM_UTF8 + query)
    assert main(["profiles", "--query", str(tmp_path / "q.json")]) == 0
    out = capfdbinary.readouterr().out
    assert [orjson.loads(line)["identity"] for line in out.splitlines()] == ["a"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(query)))
    assert main(["profiles", "--query", "-", "-o", "-"]) == 0
    assert capfdbinary.readouterr().out == out
    assert main(["events", "--query", str(tmp_path / "q.json")]) == 0
    assert numbers(capfdbinary.readouterr().out) == list(range(10))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["events"], "NAME"),
        (["events", "A", "--from", "20240101"], "--to"),
        (["events", "A", "--from", "yesterday", "--to", "20240101"], "--from"),
        ([*EVENTS, "--batch-size", "5001"], "--batch-size"),
        ([*EVENTS, "--timeout", "0"], "--timeout"),
        ([*EVENTS, "--give-up-after", "-1"], "--give-up-after"),
        ([*EVENTS, "--log-level", "loud"], "--log-level"),
        ([*EVENTS, "--query", "no/such/file"], "no/such/file"),
        ([*EVENTS, "-o", "no/such/directory/e"], "cannot be made"),
        (["profiles"], "--query"),
        ([*EVENTS, "-o", "e.cursor"], "--output: e.cursor would be taken for the note"),
        ([*EVENTS, "-o", ""], "--output: names no file"),
        (["events", "--continue", "-"], "--continue: names no file"),
        (["events", "--continue", ""], "--continue: names no file"),
        (["events", "--continue", "/"], "--continue: names no file"),
        (["events", "--continue", ".cursor"], "--continue: names no file"),
        (["events", "\udcff", *EVENTS[2:]], "NAME: is not text"),
        ([*EVENTS, "--hpke-info", "\udcff"], "--hpke-info: is not text"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    service: Service, capsys: pytest.CaptureFixture[str], args: list[str], said: str
) -> None:
    """Nothing is sent."""
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert not out
    assert "Traceback" not in err


def test_missing_settings_name_what_to_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Account first, then keys; plaintext is asked for by name."""
    for name in list(os.environ):
        if name.startswith(("CLEVERTAP_", "CTBATCH_")):
            monkeypatch.delenv(name)
    assert main(EVENTS) == 2
    assert "CLEVERTAP_ACCOUNT_ID" in capsys.readouterr().err
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "TEST-1")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "secret-secret")
    assert main(EVENTS) == 2
    assert "--server-key" in capsys.readouterr().err


def test_plaintext_is_in_plain_sight(
    service: Service,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first line on standard error says so."""
    assert main([*EVENTS, "--plaintext"]) == 0
    out, err = capfdbinary.readouterr()
    assert numbers(out) == list(range(10))
    assert b"PLAINTEXT" in err.splitlines()[0]


@POSIX
def test_a_signal_ends_it_and_says_how_to_go_on(service: Service, tmp_path: Path) -> None:
    """What was written stands."""
    service.configure(in_progress=1_000_000)
    path = tmp_path / "e"
    with subprocess.Popen(
        [sys.executable, "-m", "ctbatch", *EVENTS, "-o", str(path)],
        env={**os.environ, **service.env},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "still working" in line:
                break
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert f"ctbatch events --continue {path}" in err
    assert note_path(path).is_file()


@POSIX
@pytest.mark.parametrize("command", [EVENTS, ["call", "POST", "/1/long.json", "--data", "body"]])
def test_a_reader_who_pauses_keeps_no_signal_waiting(
    service: Service, tmp_path: Path, command: list[str]
) -> None:
    """Of a pipe that is full and that nobody reads; what comes to it otherwise is whole."""
    (tmp_path / "body").write_bytes(orjson.dumps({"long": "x" * 200_000}))
    service.fill(900)
    command = [part if part != "3" else "900" for part in command]
    with subprocess.Popen(
        [sys.executable, "-m", "ctbatch", *command, "--log-level", "debug"],
        cwd=tmp_path,
        env={**os.environ, **service.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        while fcntl.ioctl(process.stdout, termios.FIONREAD, bytes(4)) != b"\0\x10\0\0":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130


@POSIX
def test_a_reader_who_left_ends_the_download(service: Service) -> None:
    """Nobody wants the rest: no error, and no more pages are asked for."""
    with subprocess.Popen(
        [sys.executable, "-m", "ctbatch", *EVENTS],
        env={**os.environ, **service.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 0
    assert b"Traceback" not in err


@POSIX
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 4: what was noted stands."""
    sink = OutputFile(tmp_path / "e", note=NOTE)
    sink.put(b"{}\n")
    sink.mark("c", 1)
    full = open("/dev/full", "wb", buffering=0)  # noqa: PTH123, SIM115  # closed by the sink
    kept, sink._file = sink._file, full
    kept.close()
    with pytest.raises(OutputBroke, match="No space left") as caught:
        sink.put(b"{}\n")
    assert caught.value.exit_code == 4
    sink.close()
    assert Note.load(note_path(tmp_path / "e")).bytes == 3


@POSIX
def test_a_disk_that_stays_full_is_told_once(tmp_path: Path) -> None:
    """What is left in a buffer does not make closing fail over what was told."""
    sink = OutputFile(tmp_path / "e", note=NOTE)
    sink.put(b"{}\n")
    kept, sink._file = sink._file, open("/dev/full", "wb")  # noqa: PTH123, SIM115  # closed by it
    kept.close()
    with pytest.raises(OutputBroke, match="No space left"):
        sink.put(b"{}\n")
    sink.close()


@POSIX
def test_what_is_no_note_is_not_replaced_by_one(tmp_path: Path) -> None:
    """A file of the user's may have the name that the note would have; an old note may stand."""
    theirs = tmp_path / "e.cursor"
    theirs.write_bytes(b"mine\n")
    with pytest.raises(SettingsError, match="is there and no note of a download"):
        OutputFile(tmp_path / "e", note=NOTE)
    assert theirs.read_bytes() == b"mine\n"
    assert not (tmp_path / "e").exists()
    NOTE.save(theirs)
    OutputFile(tmp_path / "e", note=NOTE).close()


@POSIX
def test_a_full_disk_is_told_whenever_it_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the sync of a page or of the end, and on standard output."""
    sink = OutputFile(tmp_path / "e", note=NOTE)
    sink.put(b"{}\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OutputBroke, match="No space left"):
            sink.mark("c", 1)
        with pytest.raises(OutputBroke, match="No space left"):
            sink.finish()
    sink.close()
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123  # a device
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(OutputBroke, match="standard output"):
            Stdout().put(b"{}\n" * 10_000)
        full.buffer.raw.close()  # type: ignore[attr-defined]  # or closing would flush


def full_disk(_: int) -> None:
    """What a file system says that has no room."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@POSIX
def test_standard_output_may_be_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text stream of a host program, or a pipe that nobody reads any more."""
    text = io.StringIO()
    monkeypatch.setattr("sys.stdout", text)
    Stdout().put(b'{"a":"\xc3\xa9"}\n')
    assert text.getvalue() == '{"a":"é"}\n'
    reading, writing = os.pipe()
    with io.TextIOWrapper(io.BufferedWriter(PatientFile(writing, closefd=True))) as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        sink = Stdout()
        sink.put(b"{}\n")
        assert not sink.gone
        os.close(reading)
        sink.put(b"{}\n")
        assert sink.gone


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schema":2}',
        b'{"schema":1,"path":"x"}',
        b'{"schema":1,"path":"x","account_id":"a","host":"h","query":"q","cursor":1,"bytes":0}',
    ],
)
def test_a_note_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    """Somebody named the wrong file."""
    (tmp_path / "e.cursor").write_bytes(text)
    with pytest.raises(InputError, match="is not a note"):
        Note.load(tmp_path / "e.cursor")
    with pytest.raises(InputError, match="cannot be read"):
        Note.load(tmp_path)


@POSIX
def test_a_file_that_changed_or_is_in_use_is_not_gone_on_with(tmp_path: Path) -> None:
    """Shorter than its note counts, gone, or another process's."""
    path = tmp_path / "e"
    sink = OutputFile(path, note=NOTE)
    sink.put(b"{}\n")
    sink.mark("c", 1)
    sink.close()
    note = Note.load(note_path(path))
    first = OutputFile(path, note=note, goes_on=True)
    with pytest.raises(InputError, match="another process"):
        OutputFile(path, note=note, goes_on=True)
    first.close()
    fresh = OutputFile(tmp_path / "f", note=NOTE)
    with pytest.raises(InputError, match="another process"):
        note_of(tmp_path / "f")
    with pytest.raises(InputError, match="another process"):
        OutputFile(tmp_path / "f", note=NOTE)
    fresh.put(b"{}\n")
    fresh.mark("c", 1)
    with pytest.raises(InputError, match="another process"):
        OutputFile(tmp_path / "f", note=note_of(tmp_path / "f"), goes_on=True)
    fresh.close()
    path.write_bytes(b"{")
    with pytest.raises(InputError, match="shorter"):
        OutputFile(path, note=note, goes_on=True)
    path.unlink()
    with pytest.raises(InputError, match="cannot be gone on with"):
        OutputFile(path, note=note, goes_on=True)
    with pytest.raises(SettingsError, match="cannot be made"):
        OutputFile(tmp_path / "no" / "e")
