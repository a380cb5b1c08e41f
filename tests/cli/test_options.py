"""Flags over environment over default, and one clear message for whatever cannot work."""

from __future__ import annotations

import logging
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ctbatch.cli.main import main
from ctbatch.cli.options import Connection, Environment, Kind, Output, Tuning, as_flags
from ctbatch.cli.targets import connect, run_settings
from ctbatch.errors import SettingsError
from ctbatch.models import Mode
from ctbatch.settings import Batching, Delivery, OnAmbiguous, Settings

ENV = {
    "CLEVERTAP_ACCOUNT_ID": "ENV-ID",
    "CLEVERTAP_PASSCODE": "env-passcode",
    "CLEVERTAP_REGION": "in1",
    "CTBATCH_SERVER_KEY": "server.json",
    "CTBATCH_CLIENT_KEY": "client.json",
}


def made(
    connection: Connection | None = None,
    tuning: Tuning | None = None,
    kind: Kind | None = None,
    env: Environment = ENV,
) -> Settings:
    """The settings of ``ctbatch run users.ndjson`` with these options."""
    options = (connection or Connection(), tuning or Tuning(), kind or Kind())
    return run_settings(["users.ndjson"], *options, env)


def without(*names: str) -> dict[str, str]:
    """The environment without some variables."""
    return {name: value for name, value in ENV.items() if name not in names}


@pytest.fixture
def passcode_file(tmp_path: Path) -> Path:
    """A private file with a passcode."""
    path = tmp_path / "passcode"
    path.write_bytes(b"file passcode\n")
    path.chmod(0o600)
    return path


def test_the_environment_is_enough() -> None:
    """Five variables and an input make a run."""
    settings = made()
    assert settings.account is not None
    assert settings.endpoint is not None
    assert settings.keys is not None
    assert (settings.account.id, settings.account.passcode.reveal()) == ("ENV-ID", "env-passcode")
    assert settings.endpoint.host == "in1.api.clevertap.com"
    assert (settings.keys.server, settings.keys.client) == (
        Path("server.json"),
        Path("client.json"),
    )
    assert (settings.batching, settings.delivery) == (Batching(), Delivery())
    assert settings.resume_flags == ()


def test_a_flag_wins_over_its_variable(passcode_file: Path) -> None:
    """Flag over environment, also where region and URL exclude each other."""
    settings = made(
        Connection(
            account_id="FLAG-ID",
            passcode_file=passcode_file,
            base_url="https://eu.example",
            server_key=Path("s2"),
        )
    )
    assert settings.account is not None
    assert settings.endpoint is not None
    assert settings.keys is not None
    assert settings.account.id == "FLAG-ID"
    assert settings.account.passcode.reveal() == "file passcode"
    assert settings.endpoint.base_url == "https://eu.example"
    assert (settings.keys.server, settings.keys.client) == (Path("s2"), Path("client.json"))


@pytest.mark.parametrize(
    ("env", "variable"),
    [
        ({}, "CLEVERTAP_ACCOUNT_ID"),
        (without("CLEVERTAP_ACCOUNT_ID"), "CLEVERTAP_ACCOUNT_ID"),
        (without("CLEVERTAP_PASSCODE"), "CLEVERTAP_PASSCODE"),
        (ENV | {"CLEVERTAP_PASSCODE": ""}, "CLEVERTAP_PASSCODE"),
        (without("CTBATCH_SERVER_KEY"), "CTBATCH_SERVER_KEY"),
        (without("CTBATCH_CLIENT_KEY"), "CTBATCH_CLIENT_KEY"),
        (without("CTBATCH_CLIENT_KEY", "CTBATCH_SERVER_KEY"), "ctbatch keys generate"),
    ],
)
def test_what_is_missing_names_the_variable_to_set(env: Environment, variable: str) -> None:
    """A first-time user reads which variable to set."""
    with pytest.raises(SettingsError, match=variable):
        made(env=env)


def test_region_and_base_url_exclude_each_other() -> None:
    """Two places to go are none, as flags and as variables."""
    with pytest.raises(SettingsError, match="exclude each other"):
        made(Connection(region="in1", base_url="https://x.example"))
    with pytest.raises(SettingsError, match="CLEVERTAP_BASE_URL"):
        made(env=ENV | {"CLEVERTAP_BASE_URL": "https://x.example"})


def test_certificates_must_be_there(tmp_path: Path) -> None:
    """A misspelt CA file is said at once, not at the first handshake."""
    with pytest.raises(SettingsError, match="--ca-file"):
        made(Connection(ca_file=tmp_path / "none.pem"))
    (tmp_path / "ca.pem").touch()
    settings = made(Connection(ca_file=tmp_path / "ca.pem"))
    assert settings.endpoint is not None
    assert settings.endpoint.ca_file == tmp_path / "ca.pem"


def test_the_emulator_reads_no_setting_of_account_keys_or_endpoint() -> None:
    """A trial can never reach a real account, even with broken variables around."""
    settings = made(kind=Kind(emulator=True), env=ENV | {"CLEVERTAP_REGION": "mars"})
    assert (settings.account, settings.endpoint, settings.keys) == (None, None, None)


@pytest.mark.parametrize(
    "connection",
    [Connection(account_id="X"), Connection(region="in1"), Connection(client_key=Path("k"))],
)
def test_the_emulator_excludes_flags_that_name_another_place(connection: Connection) -> None:
    """A flag that would silently mean nothing is refused."""
    with pytest.raises(SettingsError, match="--emulator"):
        made(connection, kind=Kind(emulator=True))


def test_a_flag_that_is_wrong_is_told_in_a_dry_run_too() -> None:
    """The command that goes on repeats the flags: no login in a URL may get that far."""
    for wrong in (
        Connection(proxy="http://me:hunter2@x"),
        Connection(base_url="https://a:hunter2@x"),
    ):
        with pytest.raises(SettingsError, match="user") as error:
            made(wrong, kind=Kind(dry_run=True))
        assert "hunter2" not in str(error.value)


def test_a_dry_run_needs_nothing() -> None:
    """A file can be checked without account and keys."""
    settings = made(kind=Kind(dry_run=True), env={})
    assert (settings.account, settings.keys) == (None, None)


def test_plaintext_is_asked_for_by_name_and_takes_no_keys() -> None:
    """No silent downgrade, and no keys that would seem to be used."""
    assert made(kind=Kind(plaintext=True)).keys is None
    with pytest.raises(SettingsError, match="--plaintext"):
        made(Connection(server_key=Path("s")), kind=Kind(plaintext=True))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        (Kind(), Mode.SEALED),
        (Kind(plaintext=True), Mode.PLAINTEXT),
        (Kind(plaintext=True, emulator=True), Mode.EMULATOR),
        (Kind(dry_run=True, plaintext=True), Mode.DRY_RUN),
        (Kind(server_dry_run=True), Mode.SERVER_DRY_RUN),
    ],
)
def test_the_mode_follows_from_the_flags(kind: Kind, mode: Mode) -> None:
    """What is sent where is one word."""
    assert kind.mode is mode


def test_every_tuning_option_reaches_its_setting() -> None:
    """Nothing that is given is dropped on the way."""
    settings = made(
        tuning=Tuning(
            concurrency=3,
            batch_size=10,
            max_batch_bytes=5000,
            max_line_bytes=500,
            linger=0.5,
            workers="0",
            timeout=5,
            give_up_after=6,
            on_ambiguous=OnAmbiguous.HOLD,
            max_refused="5%",
        ),
        kind=Kind(strict=True, limit=7, run_dir=Path("d")),
    )
    assert settings.batching == Batching(
        batch_size=10, max_batch_bytes=5000, max_line_bytes=500, linger_s=0.5
    )
    assert settings.delivery == Delivery(
        concurrency=3,
        workers=0,
        timeout_s=5,
        give_up_after_s=6,
        on_ambiguous=OnAmbiguous.HOLD,
        max_refused_percent=5,
    )
    assert (settings.strict, settings.limit, settings.run_dir) == (True, 7, Path("d"))


def test_given_holds_only_what_was_given() -> None:
    """Resume takes the rest from the run; ``auto`` is given as well."""
    assert Tuning().given() == {}
    assert Tuning(workers="auto", linger=0.0).given() == {"workers": None, "linger_s": 0.0}


@pytest.mark.parametrize(
    ("tuning", "option"),
    [
        (Tuning(concurrency=0), "--concurrency"),
        (Tuning(batch_size=1001), "--batch-size"),
        (Tuning(workers="many"), "--workers"),
        (Tuning(workers="-1"), "--workers"),
        (Tuning(max_refused="lots"), "--max-refused"),
        (Tuning(max_refused="101%"), "--max-refused"),
        (Tuning(timeout=float("nan")), "--timeout"),
    ],
)
def test_what_is_out_of_range_names_its_option(tuning: Tuning, option: str) -> None:
    """Each wrong value is one message that names the option."""
    with pytest.raises(SettingsError, match=option):
        made(tuning=tuning)


def test_flags_to_repeat_are_those_that_were_given() -> None:
    """The command that resumes names endpoint, account and key files again."""
    connection = Connection(
        account_id="A", server_key=Path("my key"), hpke_info="-x", insecure_key_permissions=True
    )
    flags = as_flags(connection, Tuning(timeout=5))
    assert flags == (
        "--account-id", "A", "--server-key", "my key", "--hpke-info=-x",
        "--insecure-key-permissions", "--timeout", "5",
    )  # fmt: skip


@pytest.mark.parametrize(
    "option",
    ["--account-id", "--passcode-file", "--region", "--base-url", "--server-key", "--client-key",
     "--passphrase-file", "--ca-file", "--proxy", "--run-dir", "--log-level"],
)  # fmt: skip
def test_an_empty_flag_is_refused_and_not_as_none(
    option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unset shell variable must not send the file to the default host: one line, exit code 2."""
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    assert main(["run", "users.ndjson", option, ""]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"ctbatch: {option}")


@pytest.mark.parametrize(
    "command",
    [
        ["keys", "generate", "--out", ""], ["emulator", "--keys-dir", ""], ["resume", ""],
        ["report", ""], ["keys", "show", ""], ["bench", "x", "--svg", ""],
        ["call", "POST", "/1/x", "--data", ""], ["profiles", "--query", ""],
        ["events", "--query", ""], ["profile", "--from-file", ""],
    ],
)  # fmt: skip
def test_an_empty_directory_is_not_the_working_directory(
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No keys are put where nobody meant them to be."""
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    err = capsys.readouterr().err
    assert err.startswith("ctbatch: ")
    assert ": is empty" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("account", ["", "café", " x", "caf\udce9"])
def test_the_emulator_serves_no_account_that_run_would_refuse(
    account: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it prints is for ``run`` to take."""
    assert main(["emulator", "--account-id", account]) == 2
    assert capsys.readouterr().err.startswith("ctbatch: --account-id: must be printable ASCII")


def test_a_body_without_an_end_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Not read until there is no memory left."""
    assert main(["call", "POST", "/1/x", "--data", "/dev/zero"]) == 2
    assert "is larger than" in capsys.readouterr().err


def test_an_empty_variable_is_as_none() -> None:
    """What a container sets to nothing is not set."""
    settings = made(env=ENV | {"CLEVERTAP_BASE_URL": "", "CTBATCH_LOG_LEVEL": ""})
    assert settings.endpoint is not None
    assert settings.endpoint.host == "in1.api.clevertap.com"
    assert made(kind=Kind(run_dir=Path())).run_dir == Path()


def test_an_empty_hpke_info_is_meant() -> None:
    """It overrides the account id, and is repeated by the command that resumes."""
    settings = made(Connection(hpke_info=""))
    assert settings.keys is not None
    assert (settings.keys.info, settings.keys.info_for("A")) == ("", b"")
    assert settings.resume_flags == ("--hpke-info", "")
    keys = made().keys
    assert keys is not None
    assert keys.info_for("A") == b"A"


def test_no_option_takes_a_secret() -> None:
    """Secrets on the command line would be seen by every process."""
    assert not {"passcode", "passphrase"} & {item.name for item in fields(Connection)}


@pytest.mark.parametrize(
    ("output", "env", "level"),
    [
        (Output(), {}, logging.WARNING),
        (Output(), {"CTBATCH_LOG_LEVEL": "debug"}, logging.DEBUG),
        (Output(log_level="error"), {"CTBATCH_LOG_LEVEL": "debug"}, logging.ERROR),
    ],
)
def test_the_log_level_is_warning_unless_said(output: Output, env: Environment, level: int) -> None:
    """Flag over environment over default."""
    assert output.level(env) == level


def test_an_unknown_log_level_is_refused() -> None:
    """A typo is not silently WARNING."""
    with pytest.raises(SettingsError, match="CTBATCH_LOG_LEVEL"):
        Output(log_level="loud").level({})


def connected(**options: Any) -> str:
    """The passcode that a connection comes to."""
    account = connect(Connection(**options), ENV, Mode.SEALED).account
    assert account is not None
    return account.passcode.reveal()


@pytest.mark.parametrize("data", [b"p w", b"p w\n", b"p w\r\n"])
def test_one_newline_at_the_end_of_a_passcode_is_not_part_of_it(
    passcode_file: Path, data: bytes
) -> None:
    """Editors end files with a newline."""
    passcode_file.write_bytes(data)
    assert connected(passcode_file=passcode_file) == "p w"


@pytest.mark.parametrize(
    ("data", "why"), [(b"", "empty"), (b"\n", "empty"), (b"\xff", "text"), (b"x" * 70_000, "large")]
)
def test_a_file_that_is_no_passcode_is_refused(passcode_file: Path, data: bytes, why: str) -> None:
    """The wrong file is named, its content never."""
    passcode_file.write_bytes(data)
    with pytest.raises(SettingsError, match=why):
        connected(passcode_file=passcode_file)


@pytest.mark.skipif(os.name == "nt", reason="no POSIX permissions")
@pytest.mark.parametrize(
    ("mode", "refused"),
    [(0o600, ""), (0o640, ""), (0o644, "read by"), (0o620, "changed"), (0o602, "changed")],
)
def test_a_passcode_file_that_is_open_to_others_is_refused(
    passcode_file: Path, mode: int, refused: str
) -> None:
    """Others may neither read nor change it, unless the user insists; its group may read."""
    passcode_file.chmod(mode)
    if refused:
        with pytest.raises(SettingsError, match=f"{refused}.*chmod 600"):
            connected(passcode_file=passcode_file)
    insist = bool(refused)
    assert connected(passcode_file=passcode_file, insecure_key_permissions=insist)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no /dev/fd")
def test_a_passcode_may_come_through_a_pipe() -> None:
    """``--passcode-file <(pass show …)`` works: a pipe has no permissions to check."""
    reading, writing = os.pipe()
    os.write(writing, b"piped\n")
    os.close(writing)
    try:
        assert connected(passcode_file=Path(f"/dev/fd/{reading}")) == "piped"
    finally:
        os.close(reading)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_passcode_file_of_another_user_is_refused(passcode_file: Path) -> None:
    """Its owner could change it at any time."""
    os.chown(passcode_file, 12345, -1)
    with pytest.raises(SettingsError, match="another user"):
        connected(passcode_file=passcode_file)


def test_a_passcode_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A typo in a path is one message."""
    with pytest.raises(SettingsError, match="No such file"):
        connected(passcode_file=tmp_path / "none")


def test_a_passphrase_comes_from_a_file_too(passcode_file: Path) -> None:
    """An encrypted PEM key is opened without a secret on the command line."""
    keys = connect(Connection(passphrase_file=passcode_file), ENV, Mode.SEALED).keys
    assert keys is not None
    assert keys.passphrase is not None
    assert keys.passphrase.reveal() == "file passcode"
