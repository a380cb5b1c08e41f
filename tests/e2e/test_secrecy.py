"""The canary of the other kind: nothing that was seeded shows where it must not."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

from tests.e2e.command import Desk
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
    """The passcode and the private key's material, as text and as bytes."""
    found = [service.passcode.encode()]
    keys = json.loads(service.client_key.read_bytes())
    for key in keys["key"]:
        value = key["keyData"]["value"]
        found += [value.encode(), b64decode(value)[-32:]]
    return found


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
    files = {path.name: path.read_bytes() for path in desk.run.path.iterdir()}
    originals = files.pop("rejected.ndjson") + files.pop("unknown.ndjson", b"")
    assert b"Zebulon Quimby" in originals
    personal = [*(value.encode() for value in SEEDS.values()), IDENTITY.encode(), b"8675309"]
    for name, content in {"output": told, **files}.items():
        for seed in [*personal, *_secrets(service)]:
            assert seed not in content, f"{seed!r} in {name}"
    for secret in _secrets(service):
        assert secret not in originals


def test_secrets_are_on_no_command_line(desk: Desk, service: Service) -> None:
    """Neither the command's nor its children's arguments hold the passcode."""
    service.configure(faults=["hang=after-1"])
    users = desk.write("users.ndjson", *profiles(40))
    args = ("run", users, "--batch-size", 10, "--workers", 1, "--run-dir", "run")
    started = desk.start(*args)
    started.until("requests that hang", lambda: len(service.requests()) >= 3)
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:
            continue
    started.kill()
    assert any(b"ctbatch.pipeline.sealer" in text for text in lines)
    assert not [text for text in lines for secret in _secrets(service) if secret in text]
