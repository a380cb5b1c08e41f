"""What README and samples say is what happens."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from textwrap import indent

import pytest

from tests.e2e.command import Desk, Ended
from tests.e2e.people import line, profiles
from tests.e2e.service import Service

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SAMPLES = sorted((ROOT / "samples").glob("*.ndjson"))
SCRIPTS = sorted((ROOT / "samples").glob("*.py"))

JANUARY_2024 = 1_704_500_000
"""Within the dates of the README's example."""

_STATES = ("processed", "unprocessed", "invalid", "unknown", "unsent", "blank")


def _blocks(language: str) -> list[str]:
    """The README's fenced blocks of a language."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", README, re.MULTILINE | re.DOTALL)
    assert found
    return found


def _script(desk: Desk, path: Path, *args: object, env: dict[str, str | None]) -> Ended:
    """Run a Python file with warnings as errors; nothing untidy on its standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", str(path), *map(str, args)],
        cwd=desk.cwd,
        env=desk.env(env),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_every_sample_can_be_uploaded(desk: Desk, path: Path) -> None:
    """Each sample goes through: every line in one state, some refused on purpose, none lost."""
    ended = desk.upload(path)
    assert ended.code in {0, 3}, ended.err
    counts = ended.report["lines"]
    assert counts["total"] == len(path.read_bytes().splitlines())
    assert counts["unsent"] == counts["unknown"] == 0
    assert counts["processed"] > counts["total"] / 2
    rejected = counts["unprocessed"] + counts["invalid"]
    assert len(desk.run.lines("rejected")) == rejected
    assert (ended.code == 3) == bool(rejected)


def test_the_first_command_does_what_the_readme_says(desk: Desk) -> None:
    """The README's first command, from where it installs on: the counts shown are the counts."""
    command = next(text for text in _blocks("sh") if "--emulator" in text)
    words = shlex.split(command.rpartition("&&")[2])
    assert words[0].endswith("ctbatch")
    assert words[1:] == ["run", "samples/users.ndjson", "--emulator"]
    ended = desk.ctbatch("run", ROOT / words[2], *words[3:])
    assert ended.code in {0, 3}
    told = _counts(ended.out)
    assert told["processed"] > 0
    assert _counts(_blocks("text")[0]) == told


def _counts(text: str) -> Counter[str]:
    """The states and their counts in a summary."""
    rows = re.findall(rf"^ *({'|'.join(_STATES)}) +([0-9,]+)", text, re.MULTILINE)
    return Counter({name: int(number.replace(",", "")) for name, number in rows})


def test_the_readmes_commands_are_commands(desk: Desk) -> None:
    """Each ``ctbatch …`` of the README names a command and options that exist."""
    asked: dict[str, list[list[str]]] = {}
    for text in _blocks("sh"):
        for found in re.finditer(r"(?:^|[ /])ctbatch ([a-z].*)", text, re.MULTILINE):
            words = shlex.split(found[1])
            size = 2 if words[0] == "keys" else 1
            asked.setdefault(" ".join(words[:size]), []).append(words)
    wide = {"COLUMNS": "200"}
    started = {name: desk.start(*name.split(), "--help", env=wide) for name in asked}
    known = {name: command.ended().out for name, command in started.items()}
    for name, commands in asked.items():
        for option in (word for words in commands for word in words if word.startswith("--")):
            assert option in known[name], name
    assert {"run", "resume", "emulator", "keys generate"} <= known.keys()


def _fill_in(desk: Desk, service: Service, program: str) -> Path:
    """A program of the README with its placeholders filled in, and the files it names."""
    desk.write("users.ndjson", *profiles(5))
    (desk.cwd / "clevertap-public.json").write_bytes(service.server_key.read_bytes())
    keys = desk.cwd / "ctbatch-keys"
    keys.mkdir()
    (keys / "client-private.json").write_bytes(service.client_key.read_bytes())
    (keys / "client-private.json").chmod(0o600)
    for placeholder, value in (
        ('"XXX-XXX-XXXX"', repr(service.account_id)),
        ('"..."', repr(service.passcode)),
        ('ctbatch.Endpoint.of_region("in1")', f"ctbatch.Endpoint(base_url={service.base_url!r})"),
    ):
        assert placeholder in program
        program = program.replace(placeholder, value)
    path = desk.cwd / "program.py"
    path.write_text(program)
    return path


def test_the_readmes_program_runs(desk: Desk, service: Service) -> None:
    """The library's example, with its placeholders filled in, uploads a file."""
    ended = _script(desk, _fill_in(desk, service, _blocks("python")[0]), env={})
    assert ended.code == 0, ended.err
    assert ended.out == "5 processed\n"
    assert len(service.records()) == 5


def test_the_readmes_client_runs(desk: Desk, service: Service) -> None:
    """The client's example does as well, in place of the upload, for an event that was stored."""
    paid = line({"type": "event", "identity": "u1", "evtName": "Paid", "ts": JANUARY_2024})
    assert desk.upload(desk.write("events.ndjson", paid)).code == 0
    program, fragment = _blocks("python")
    start = program.index("    report = await")
    end = program.index("\n\n\nasyncio.run")
    given = "account=settings.account, endpoint=settings.endpoint, keys=settings.keys"
    client = fragment.replace("account=..., endpoint=..., keys=...", given)
    client = client.replace("App Launched", "Paid").replace("...  #", "print(event)  #")
    program = program[:start] + indent(client, "    ") + program[end:]
    ended = _script(desk, _fill_in(desk, service, program), env={})
    assert ended.code == 0, ended.err
    assert ended.out.count("u1") == 1


def test_the_file_sample_uploads_to_whoever_is_set(desk: Desk, service: Service) -> None:
    """samples/upload_file.py: to the account in the environment, else to the emulator."""
    script = ROOT / "samples" / "upload_file.py"
    users = desk.write("few.ndjson", *profiles(5))
    ended = _script(desk, script, users, env={})
    assert ended.code == 0, ended.err
    assert "5 of 5 lines processed" in ended.out
    assert len(service.records()) == 5
    alone = _script(desk, script, users, env=dict.fromkeys(service.env))
    assert alone.code == 0, alone.err
    assert "5 of 5 lines processed" in alone.out
    assert len(service.records()) == 5


def test_the_records_sample_shows_a_verdict_per_record(desk: Desk, service: Service) -> None:
    """samples/upload_records.py: two processed, one refused with its code."""
    ended = _script(desk, ROOT / "samples" / "upload_records.py", env=dict.fromkeys(service.env))
    assert ended.code == 0, ended.err
    rows = ended.out.splitlines()
    assert rows[1].startswith("1002 unprocessed 515 ")
    assert rows[-1] == "2 of 3 processed"


def test_no_sample_script_is_left_out() -> None:
    """A new script in samples/ needs a test here."""
    assert {path.name for path in SCRIPTS} == {"upload_file.py", "upload_records.py"}


def test_the_readmes_record_is_a_record(desk: Desk) -> None:
    """The example of an input line is accepted, also by the strict check."""
    (example,) = _blocks("json")
    assert json.loads(example)["type"] == "profile"
    ended = desk.upload(desk.write("users.ndjson", example.strip().encode()), "--strict")
    assert ended.code == 0, ended.err
