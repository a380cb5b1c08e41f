"""A user's mistake: exit 2, one clear message with its remedy, nothing made, nothing sent."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from tests.e2e.command import CTBATCH, Desk, Ended
from tests.e2e.people import profile, profiles
from tests.e2e.service import Service


def _refused(ended: Ended, desk: Desk, *words: str) -> None:
    """Exit 2, one message with these words, and no run directory."""
    assert ended.code == 2, ended.err
    for word in words:
        assert word in ended.complaint, ended.complaint
    assert ended.out == ""
    assert not (desk.cwd / "run").exists()
    assert not (desk.cwd / "ctbatch-runs").exists()


def test_an_input_that_is_none(desk: Desk, service: Service) -> None:
    """A missing, unreadable or foreign input is named, with what it is and what to do."""
    desk.write("array.json", b"[", profile("a") + b",", profile("b"), b"]")
    desk.write("users.csv", b"identity,name,email", b"1,Ann,ann@example.org")
    (desk.cwd / "folder").mkdir()
    desk.write("closed.ndjson", *profiles(1)).chmod(0)
    # Root may read every file, but nobody may read this one.
    closed = "/proc/self/mem" if os.geteuid() == 0 else "closed.ndjson"
    cases = {
        "nowhere.ndjson": ["nowhere.ndjson"],
        "nothing-*.ndjson": ["nothing-*.ndjson"],
        "folder": ["folder", "directory"],
        closed: ["cannot be read"],
        "array.json": ["array.json", "JSON array", "jq"],
        "users.csv": ["users.csv", "CSV"],
    }
    started = [desk.start("run", name, "--json", "--run-dir", "run") for name in cases]
    for words, command in zip(cases.values(), started, strict=True):
        _refused(command.ended(), desk, *words)
    assert service.requests() == []


def test_an_array_from_a_pipe_is_refused_before_anything_is_sent(
    desk: Desk, service: Service
) -> None:
    """What a pipe holds shows only when it is read: still exit 2, and nothing sent."""
    array = b"[" + profile("a") + b",\n" + profile("b") + b"]\n"
    ended = desk.ctbatch("run", "-", "--json", "--run-dir", "run", given=array)
    _refused(ended, desk, "JSON array", "jq")
    assert service.requests() == []


def test_a_setting_that_is_missing_or_wrong(desk: Desk, service: Service) -> None:
    """The message names the variable to set or the option to mend."""
    users = desk.write("u.ndjson", *profiles(1))
    cases: list[tuple[list[str], dict[str, str | None], list[str]]] = [
        ([], {"CLEVERTAP_ACCOUNT_ID": None}, ["CLEVERTAP_ACCOUNT_ID"]),
        ([], {"CLEVERTAP_PASSCODE": None}, ["CLEVERTAP_PASSCODE"]),
        ([], {"CTBATCH_SERVER_KEY": None}, ["CTBATCH_SERVER_KEY"]),
        ([], {"CTBATCH_CLIENT_KEY": None}, ["CTBATCH_CLIENT_KEY"]),
        ([], {"CTBATCH_CLIENT_KEY": "gone.json"}, ["gone.json"]),
        (["--region", "mars"], {"CLEVERTAP_BASE_URL": None}, ["mars", "in1"]),
        (["--base-url", "http://example.org"], {}, ["https"]),
        (["--concurrency", "0"], {}, ["--concurrency", "1"]),
        (["--batch-size", "1001"], {}, ["--batch-size", "1,000"]),
        (["--timeout", "nan"], {}, ["--timeout"]),
    ]
    started = [
        desk.start("run", users, *args, "--json", "--run-dir", "run", env=env)
        for args, env, _ in cases
    ]
    for (_, _, words), command in zip(cases, started, strict=True):
        _refused(command.ended(), desk, *words)
    assert service.requests() == []


def test_an_input_that_is_none_after_others_were_sent(desk: Desk, service: Service) -> None:
    """From a pipe it shows late: what was sent stands, and the code says that something was."""
    users = desk.write("u.ndjson", *profiles(300))
    ended = desk.ctbatch(
        *("run", users, "-", "--batch-size", 50, "--concurrency", 1, "--run-dir", "run", "--json"),
        given=b"identity,name\n1,Ann\n" * 20,
    )
    assert ended.code == 4, ended.err
    assert "CSV" in ended.err
    assert ended.report["lines"]["processed"] == 300


def test_the_wrong_half_of_a_key_is_refused(desk: Desk, service: Service) -> None:
    """A private key where the public one belongs, the reverse, and a file that is no key."""
    users = desk.write("u.ndjson", *profiles(1))
    swapped = {
        "CTBATCH_SERVER_KEY": str(service.client_key),
        "CTBATCH_CLIENT_KEY": str(service.server_key),
    }
    _refused(desk.upload(users, env=swapped), desk, "private")
    _refused(desk.upload(users, env={"CTBATCH_SERVER_KEY": str(users)}), desk, "u.ndjson")


def test_a_key_that_others_can_read_is_refused(desk: Desk, service: Service) -> None:
    """The private key must be private, unless the person insists."""
    users, key = desk.write("u.ndjson", *profiles(1)), desk.cwd / "key.json"
    key.write_bytes(service.client_key.read_bytes())
    key.chmod(0o644)
    _refused(desk.upload(users, "--client-key", key), desk, "key.json", "chmod")
    assert desk.upload(users, "--client-key", key, "--insecure-key-permissions").code == 0


def test_a_run_directory_that_exists_is_not_touched(desk: Desk) -> None:
    """``--run-dir`` with something in it is refused; what is in it stays."""
    users, kept = desk.write("u.ndjson", *profiles(1)), desk.cwd / "run" / "kept"
    kept.parent.mkdir()
    kept.write_text("mine")
    ended = desk.upload(users)
    assert ended.code == 2
    assert "not empty" in ended.complaint
    assert [path.name for path in kept.parent.iterdir()] == ["kept"]


def test_a_run_directory_that_cannot_be_made(desk: Desk, service: Service) -> None:
    """Below a file there is no room for a directory: exit 2, nothing sent, nothing left."""
    users = desk.write("u.ndjson", *profiles(1))
    ended = desk.ctbatch("run", users, "--run-dir", users / "run")
    assert ended.code == 2
    assert "u.ndjson" in ended.complaint
    assert service.requests() == []


def test_a_full_disk_while_the_run_directory_is_made(desk: Desk, service: Service) -> None:
    """No room for the ledger: exit 2, one message, nothing sent, nothing half made."""
    users = desk.write("u.ndjson", *profiles(1))
    full = desk.cwd / "sitecustomize.py"
    # A limit on file sizes is what a test can have of a full disk: writes fail with an OSError.
    full.write_text(
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))\n"
    )
    env = {"PYTHONPATH": str(desk.cwd)}
    ended = desk.ctbatch("run", users, "--run-dir", "run", env=env)
    assert ended.code == 2, ended.err
    assert "run" in ended.complaint
    assert service.requests() == []
    assert not (desk.cwd / "run").exists()


def test_a_port_in_use(desk: Desk) -> None:
    """``ctbatch emulator --port`` with a port that is taken: exit 2, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = desk.ctbatch("emulator", "--port", port)
    assert ended.code == 2
    assert f"{port} is in use" in ended.complaint


def test_what_is_no_run_directory_has_no_report(desk: Desk) -> None:
    """``report`` and ``resume`` of something else: exit 2 and one message."""
    cases = (("report", "nowhere"), ("report", "."), ("resume", "nowhere"), ("resume",))
    for command in [desk.start(*args) for args in cases]:
        ended = command.ended()
        assert ended.code == 2
        assert ended.complaint


def test_an_unknown_option_is_a_usage_error(desk: Desk) -> None:
    """A typo in an option: exit 2, and the option is named."""
    ended = desk.ctbatch("run", "u.ndjson", "--dryrun")
    assert ended.code == 2
    assert "--dryrun" in ended.err


@pytest.mark.parametrize(
    ("redirection", "given", "why"),
    [
        ("<&-", "-", "standard input is closed"),
        ("<&-", "/dev/stdin", "standard input is closed"),
        ("3> out", "/dev/fd/3", "is open for writing only"),
        *(("", f"/dev/fd/{n}", "cannot be read (Bad file descriptor)") for n in (3, 5, 7, 9, 11)),
    ],
)
def test_a_descriptor_that_was_not_handed_over_is_refused(
    desk: Desk, redirection: str, given: str, why: str
) -> None:
    """Most of all one that the event loop would have: to read from it would be the end of it."""
    script = f'"$@" {redirection}'
    command = [*CTBATCH, "run", given, "--dry-run", "--run-dir", "run"]
    told = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        check=False,
        cwd=desk.cwd,
        env=desk.env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (told.returncode, told.stderr) == (2, f"ctbatch: {given}: {why}\n")
    assert not (desk.cwd / "run").exists()
