"""``ctbatch emulator`` says how to reach it and serves until it is told to stop."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from http.client import HTTPConnection
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ctbatch.cli.emulator import emulator
from ctbatch.errors import SettingsError

MAIN = "import typer; from ctbatch.cli.emulator import emulator; typer.run(emulator)"

app = typer.Typer()
app.command()(emulator)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a child process")
def test_it_prints_what_to_paste_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    """The environment block works as printed; an interrupt is an ordinary end."""
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "--keys-dir", str(tmp_path / "my keys"), "--fault", "500=1"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        env: dict[str, str] = {}
        for line in process.stdout:
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                (env[name],) = shlex.split(value)
            if line.startswith("Ctrl-C"):
                break
        pair = f"{env['CLEVERTAP_ACCOUNT_ID']}:{env['CLEVERTAP_PASSCODE']}"
        connection = HTTPConnection(env["CLEVERTAP_BASE_URL"].removeprefix("http://"))
        basic = f"Basic {b64encode(pair.encode()).decode()}"
        connection.request("GET", "/_emulator/stats", headers={"Authorization": basic})
        assert connection.getresponse().status == 200
        connection.close()
        assert Path(env["CTBATCH_SERVER_KEY"]).is_file()
        assert Path(env["CTBATCH_CLIENT_KEY"]).is_file()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 0
    assert Path(env["CTBATCH_SERVER_KEY"]).is_file()


def test_a_port_in_use_is_a_clear_error() -> None:
    """It names the port and what to do; main makes it exit 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(app, ["--port", str(port)])
    assert isinstance(done.exception, SettingsError)
    assert str(port) in str(done.exception)
    assert done.exception.exit_code == 2


def test_a_wrong_fault_is_a_clear_error() -> None:
    """It lists the faults there are."""
    done = CliRunner().invoke(app, ["--fault", "nonsense"])
    assert isinstance(done.exception, SettingsError)
    assert "reset-stored" in str(done.exception)
