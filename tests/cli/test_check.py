"""``ctbatch check`` tells where each setting comes from, what is wrong and what mends it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ctbatch.api.findings import Status
from ctbatch.cli.main import main
from ctbatch.cli.options import Connection
from ctbatch.cli.origins import origins, settle
from ctbatch.emulator.server import Emulator


@dataclass
class Service:
    """An emulator on a thread of its own, for a command that brings its own loop."""

    emulator: Emulator
    env: dict[str, str]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One service for all tests."""
    started, stop = threading.Event(), asyncio.Event()
    held: list[tuple[Emulator, asyncio.AbstractEventLoop]] = []

    async def serve() -> None:
        async with Emulator() as emulator:
            held.append((emulator, asyncio.get_running_loop()))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(10)
    emulator, loop = held[0]
    env = {
        "CLEVERTAP_ACCOUNT_ID": emulator.account_id,
        "CLEVERTAP_PASSCODE": emulator.passcode.reveal(),
        "CLEVERTAP_BASE_URL": emulator.base_url,
        "CTBATCH_SERVER_KEY": str(emulator.server_key),
        "CTBATCH_CLIENT_KEY": str(emulator.client_key),
    }
    yield Service(emulator, env)
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)


@pytest.fixture
def check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run the command with these variables and no others; exit code and standard output."""
    for name in list(os.environ):
        if name.startswith(("CLEVERTAP_", "CTBATCH_")):
            monkeypatch.delenv(name)

    def run(*args: str, env: Mapping[str, str]) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            code = main(["check", *args])
        return code, capsys.readouterr().out

    return run


Check = Callable[..., tuple[int, str]]


def test_all_is_well_with_exit_code_0(service: Service, check: Check) -> None:
    """Every line begins with ok, and no line shows the passcode."""
    code, out = check(env=service.env)
    assert code == 0
    *lines, blank, last = out.splitlines()
    assert all(line.startswith("ok  ") for line in lines)
    assert (blank, last) == ("", "All is well: account, keys and endpoint can talk.")
    assert service.env["CLEVERTAP_PASSCODE"] not in out
    assert service.emulator.records() == []


def test_nothing_set_is_exit_code_2_and_a_remedy_each(check: Check) -> None:
    """A first-time user learns all that is missing at once."""
    code, out = check("--base-url", "http://127.0.0.1:1", env={})
    assert code == 2
    for missing in ("CLEVERTAP_ACCOUNT_ID", "CLEVERTAP_PASSCODE", "CTBATCH_SERVER_KEY"):
        assert f"-> set {missing}" in out or f"and set {missing}" in out
    assert "ctbatch keys generate" in out
    assert "5 things are to be mended on this machine first" in out  # the fifth is the port


def test_a_refusing_service_is_exit_code_5(service: Service, check: Check) -> None:
    """The way is clear; the remedy is the account's."""
    code, out = check(env={**service.env, "CLEVERTAP_PASSCODE": "wrong-passcode"})
    assert code == 5
    assert "\n!!  credentials  the service answered 401" in out
    assert "--region" in out
    assert "one thing is to be mended with the account" in out
    assert "wrong-passcode" not in out


def test_json_holds_every_finding(service: Service, check: Check) -> None:
    """For programs: the same findings, statuses and remedies, and the exit code."""
    code, out = check("--json", env={**service.env, "CTBATCH_SERVER_KEY": "/nowhere/server.json"})
    told = json.loads(out)
    assert (told["schema"], told["ok"], told["exit_code"], code) == (1, False, 2, 2)
    bad = [finding for finding in told["findings"] if finding["status"] == "local"]
    assert [(finding["step"], finding["facts"]["key"]) for finding in bad] == [
        ("keys", "server key")
    ]
    assert bad[0]["remedies"]
    settings = [f["facts"] for f in told["findings"] if f["step"] == "settings"]
    assert {
        "setting": "account id",
        "value": service.emulator.account_id,
        "origin": "CLEVERTAP_ACCOUNT_ID",
    } in settings
    assert {finding["status"] for finding in told["findings"]} <= {
        status.value for status in Status
    }


def test_a_time_out_out_of_range_is_refused(check: Check) -> None:
    """The bounds are those of every command's --timeout."""
    assert check("--timeout", "0", env={})[0] == 2


# Where settings come from


ENV = {
    "CLEVERTAP_ACCOUNT_ID": "of-env",
    "CLEVERTAP_PASSCODE": "secret-of-env",
    "CLEVERTAP_REGION": "in1",
    "CTBATCH_SERVER_KEY": "env-server.json",
    "CTBATCH_CLIENT_KEY": "env-client.json",
}


def told_by(connection: Connection, env: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Value and origin by setting."""
    return {found.name: (found.value, found.origin) for found in origins(connection, env)}


def test_a_flag_goes_before_its_variable(tmp_path: Path) -> None:
    """What is shown is what is used, of flags and of variables."""
    passcode = tmp_path / "passcode"
    passcode.write_text("secret-of-file")
    passcode.chmod(0o600)
    flags = Connection(
        account_id="of-flag",
        passcode_file=passcode,
        base_url="https://api.example",
        server_key=Path("flag-server.json"),
        client_key=Path("flag-client.json"),
    )
    for connection, env in ((flags, ENV), (Connection(), ENV), (flags, {})):
        told, used = told_by(connection, env), settle(connection, env)
        assert used.account is not None
        assert used.endpoint is not None
        assert used.keys is not None
        assert told["account id"][0] == used.account.id
        assert used.account.passcode.reveal() == (
            "secret-of-file" if connection is flags else "secret-of-env"
        )
        assert told["server key"][0] == str(used.keys.server)
        assert told["client key"][0] == str(used.keys.client)
        from_flags = {origin.startswith("--") for _, origin in list(told.values())[:5]}
        assert from_flags == {connection is flags}
        assert "secret" not in repr(used.findings)
    assert told_by(Connection(), ENV)["endpoint"] == ("region in1", "CLEVERTAP_REGION")
    assert told_by(flags, ENV)["endpoint"] == ("https://api.example", "--base-url")
    assert told_by(Connection(region="us1"), ENV)["endpoint"] == ("region us1", "--region")


def test_what_is_given_nowhere_has_its_default() -> None:
    """The region and the HPKE context have one; account and keys have none."""
    told = told_by(Connection(), {})
    assert told["endpoint"] == ("region eu1", "default")
    assert told["HPKE info"] == ("the account id", "default")
    assert told["passcode"] == ("", "")
    assert "proxy" not in told


def test_what_is_rarely_given_is_shown_where_it_is() -> None:
    """A forgotten flag is a frequent cause."""
    told = told_by(
        Connection(
            hpke_info="x",
            ca_file=Path("ca.pem"),
            proxy="http://me:secret@proxy.example",
            passphrase_file=Path("p"),
            insecure_key_permissions=True,
        ),
        {"CLEVERTAP_BASE_URL": "https://me:secret@api.example"},
    )
    assert told["HPKE info"] == ("x", "--hpke-info")
    assert told["trusted certificates"] == ("ca.pem", "--ca-file")
    assert told["passphrase"] == ("p", "--passphrase-file")
    assert told["key permissions"][1] == "--insecure-key-permissions"
    assert "secret" not in repr(told)


def test_settings_that_are_there_and_wrong_are_findings_too() -> None:
    """One wrong setting does not hide the others."""
    env = {**ENV, "CLEVERTAP_ACCOUNT_ID": " blank ", "CLEVERTAP_BASE_URL": "https://api.example"}
    settled = settle(Connection(passphrase_file=Path("/nowhere/p")), env)
    assert (settled.account, settled.endpoint, settled.keys) == (None, None, None)
    wrong = [finding for finding in settled.findings if finding.status is Status.LOCAL]
    assert [finding.text.partition(":")[0] for finding in wrong] == [
        "--account-id",
        "--region and --base-url (CLEVERTAP_REGION, CLEVERTAP_BASE_URL)",
        "--passphrase-file",
    ]
    assert wrong[1].remedies == ("give one of them",)
