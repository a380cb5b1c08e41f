"""The canary of the other kind: nothing that was seeded shows where it must not."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.command import Desk, until
from tests.e2e.people import counter, line, profile, profiles
from tests.e2e.service import Service

SEEDS = {
    "Name": "Zebulon Quimby",
    "Email": "zebulon.quimby.example.org",  # no address, so that the service refuses it
    "Phone": "not-a-phone-8675309",
    "Card": "4929123412341234",
}
IDENTITY = "person-7f3a9c"


def _seeded() -> list[bytes]:
    refused = [
        line({"type": "profile", "identity": f"{IDENTITY}-{n}", "profileData": {**SEEDS, "n": n}})
        for n in range(5)
    ]
    invalid = [
        b'{"type":"profile","identity":"'
        + IDENTITY.encode()
        + b'","profileData":"Zebulon Quimby"}',
        b'{"type":"Zebulon Quimby","identity":"%s"}' % IDENTITY.encode(),
        b"Zebulon Quimby," + IDENTITY.encode(),
        profile(IDENTITY, **{"Zebulon Quimby" * 20: "x"}),
        profile(IDENTITY + "-twice")[:-1] + b',"identity":"Zebulon Quimby"}',
    ]
    return [*refused, *invalid, profile(IDENTITY + "-poisoned", poison="Zebulon Quimby")]


def _secrets(service: Service) -> list[bytes]:
    """The passcode and the private key's material, as bytes and in every usual spelling."""
    keys = json.loads(service.client_key.read_bytes())
    values = [key["keyData"]["value"] for key in keys["key"]]
    raw = [service.passcode.encode(), *(b64decode(value)[-32:] for value in values)]
    spelt = [spelling for secret in raw for spelling in _spellings(secret)]
    return [*spelt, *(value.rstrip("=").encode() for value in values)]


def _spellings(secret: bytes) -> list[bytes]:
    """A secret raw, in hexadecimal, in the forms of Base64 wherever it stands in a longer text, and
    as Python shows it.
    """
    shifted = [b64encode(b"." * lead + secret)[-(-lead * 8 // 6) :] for lead in range(3)]
    # The last characters depend on what follows.
    base64 = [text.rstrip(b"=")[:-1] for text in shifted]
    urlsafe = [text.translate(bytes.maketrans(b"+/", b"-_")) for text in base64]
    digits = secret.hex().encode()
    return [secret, digits, digits.upper(), *base64, *urlsafe, repr(secret)[2:-1].encode()]


def _personal() -> list[bytes]:
    return [*(value.encode() for value in SEEDS.values()), IDENTITY.encode(), b"8675309"]


def _artefacts(run: Path) -> dict[str, bytes]:
    """Every file of a run directory but the two of original lines."""
    originals = {"rejected.ndjson", "unknown.ndjson"}
    return {path.name: path.read_bytes() for path in run.iterdir() if path.name not in originals}


def _look(where: Mapping[str, bytes], seeds: Sequence[bytes]) -> None:
    for name, content in where.items():
        for seed in seeds:
            assert seed not in content, f"{seed!r} in {name}"


def test_nothing_seeded_is_found_outside_the_originals(desk: Desk, service: Service) -> None:
    """Personal data, passcode and key material are in no output, log, report, reason or ledger,
    at DEBUG, through refusals, isolation, an unknown record and a resume.
    """
    service.configure(faults=["poison", "truncated=only-4"])
    unknown = counter(f"{IDENTITY}-counted")
    lines = [*profiles(20), *_seeded(), *profiles(8, "more"), unknown, *profiles(20, "rest")]
    users = desk.write("users.ndjson", *lines)
    outputs = [
        desk.ctbatch("run", users, "--batch-size", 20, "--run-dir", "run", "--log-level", "debug"),
        desk.ctbatch("report", "run", env={"CTBATCH_LOG_LEVEL": "DEBUG"}),
        desk.ctbatch("report", "run", "--json", env={"CTBATCH_LOG_LEVEL": "DEBUG"}),
    ]
    assert outputs[0].code == 3, outputs[0].err
    told = b"".join((ended.out + ended.err).encode() for ended in outputs)
    originals = b"\n".join(desk.run.lines("rejected") + desk.run.lines("unknown"))
    assert b"Zebulon Quimby" in originals
    _look({"output": told, **_artefacts(desk.run.path)}, [*_personal(), *_secrets(service)])
    _look({"originals": originals}, _secrets(service))


def test_a_killed_run_has_said_nothing(desk: Desk, service: Service) -> None:
    """kill -9 at DEBUG with refused, unknown and hanging records: neither the log so far, nor the
    ledger with its companions, nor a later resume and its log hold anything seeded.
    """
    service.configure(faults=["truncated=only-2", "hang=after-5"])
    unknown = counter(f"{IDENTITY}-counted")
    users = desk.write("users.ndjson", *profiles(4), *_seeded()[:-1], unknown, *profiles(30, "x"))
    debug = ("--log-level", "debug")
    args = ("run", users, "--batch-size", 5, "--concurrency", 2, "--run-dir", "run", *debug)
    started = desk.start(*args)
    started.until("requests that hang", lambda: len(service.requests()) >= 7)
    started.kill()
    killed = _artefacts(desk.run.path)
    assert "ledger.sqlite-wal" in killed
    seeds = [*_personal(), *_secrets(service)]
    _look({"log": started.err.encode(), **killed}, seeds)
    service.configure(faults=[])
    ended = desk.ctbatch("resume", "run", *debug)
    assert ended.code == 3, ended.err
    _look({"log": ended.err.encode(), **_artefacts(desk.run.path)}, seeds)


BUG = """
import sys
if "ctbatch" in sys.orig_argv:
    from ctbatch.pipeline.settlement import Settlement
    def believed(self, entries):
        lines = self._batch.lines()
        try:
            raise KeyError(lines[0])
        except KeyError:
            raise ValueError(f"cannot use {lines!r}")
    Settlement.believed = believed
"""
"""A mistake of ours whose error quotes a whole batch."""


def test_a_crash_quotes_nothing(desk: Desk, service: Service) -> None:
    """A bug at DEBUG shows where it is, and none of what it had in hand."""
    users = desk.write("users.ndjson", *_seeded()[:5], *profiles(5))
    (desk.cwd / "sitecustomize.py").write_text(BUG)
    env = {"PYTHONPATH": str(desk.cwd), "CTBATCH_LOG_LEVEL": "DEBUG"}
    started = desk.start("run", users, "--run-dir", "run", env=env)
    until("its end", started.is_over)
    assert started.code == 1, started.err
    assert "Traceback" in started.err
    assert "in believed" in started.err
    told = {"log": started.err.encode(), **_artefacts(desk.run.path)}
    _look(told, [*_personal(), *_secrets(service)])


def test_secrets_are_in_no_process_list(desk: Desk, service: Service) -> None:
    """Neither the arguments of the command and its children nor the environment of a child hold
    the passcode or a key.
    """
    service.configure(faults=["hang=after-1"])
    users = desk.write("users.ndjson", *profiles(40))
    args = ("run", users, "--batch-size", 10, "--workers", 1, "--run-dir", "run")
    started = desk.start(*args)
    started.until("requests that hang", lambda: len(service.requests()) >= 3)
    listed = {pid: _proc(pid, "cmdline") for pid in _all_pids()}
    (worker,) = [
        pid
        for pid, line in listed.items()
        if b"ctbatch.pipeline.sealer.serving" in line and _session(pid) == started.pid
    ]
    environ = _proc(worker, "environ")
    started.kill()
    assert b"PATH=" in environ
    _look({"arguments": b"".join(listed.values()), "environment": environ}, _secrets(service))


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _proc(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def _session(pid: int) -> int:
    return int(_proc(pid, "stat").rpartition(b")")[2].split()[3])
