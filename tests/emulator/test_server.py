"""The emulator starts, tells what it saw, and ends with whoever started it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import orjson
import pytest

from ctbatch.api.wire import HPKE_MEDIA_TYPE
from ctbatch.crypto.keyset import load_private
from ctbatch.crypto.upkeep import rotate_file
from ctbatch.emulator.server import Emulator, EmulatorProcess
from ctbatch.emulator.state import Config
from ctbatch.errors import SettingsError
from ctbatch.settings import Secret
from tests.emulator.speaking import customer_of, emulated, profile

PARENT = """
import asyncio, os, signal, sys
from ctbatch.emulator.server import EmulatorProcess

async def main():
    async with EmulatorProcess() as emulator:
        print(emulator.pid, emulator.server_key, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_process_of_its_own_serves_and_ends() -> None:
    """Everything a customer needs comes back; nothing is left behind."""
    async with EmulatorProcess(Config(faults=("500=only-1",))) as emulator:
        async with customer_of(emulator) as customer:
            assert (await customer.upload(profile()))[0] == 500
            assert (await customer.upload(profile()))[0] == 200
        assert (await emulator.stats())["by_status"] == {"500": 1, "200": 1}
        assert [row["stored"] for row in await emulator.records()] == [1]
        assert len(await emulator.requests()) == 2
        await emulator.configure(latency_s=0.001)
        await emulator.rotate()
        await emulator.take_client_key()
        with pytest.raises(SettingsError, match="cannot be changed"):
            await emulator.configure(port=1)
        assert os.getpgid(emulator.pid) != os.getpgid(0)
        assert emulator.passcode.reveal() not in repr(emulator)
    assert not emulator.server_key.exists()
    assert "not started" in repr(EmulatorProcess())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_it_dies_with_its_parent() -> None:
    """Kill -9 of the parent ends the emulator and takes its keys along."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        # The emulator has the write end of its own pipe only, so this ends with the parent.
        pid, key = parent.stdout.readline().split()
        parent.wait()
    assert parent.returncode == -signal.SIGKILL
    _wait_until_gone(int(pid))
    assert not Path(key).exists()


async def test_a_process_that_cannot_start_says_why() -> None:
    """The child's error is raised here, as it is."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"--port: {port} is in use"):
            async with EmulatorProcess(Config(port=port)):
                pass


async def test_a_broken_key_file_is_named(tmp_path: Path) -> None:
    """By the process of its own too, without a traceback."""
    (tmp_path / "server-private.json").write_text("{")
    with pytest.raises(SettingsError, match=r"server-private\.json"):
        async with EmulatorProcess(Config(keys_dir=tmp_path)):
            pass


def test_a_process_without_options_ends() -> None:
    """Nobody there: nothing to serve."""
    done = subprocess.run(
        [sys.executable, "-m", "ctbatch.emulator"], stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 2


async def test_keys_and_state_can_be_kept(tmp_path: Path) -> None:
    """The same directory and file bring back keys, passcode, and what was accepted."""
    options = {"keys_dir": tmp_path / "keys", "state_file": tmp_path / "state.sqlite"}
    async with emulated(**options) as (emulator, customer):
        await customer.upload(profile("a", Email="x"), profile("b"))
        passcode, key = emulator.passcode, emulator.server_key.read_bytes()
    async with emulated(**options) as (emulator, customer):
        assert emulator.passcode == passcode
        assert emulator.server_key.read_bytes() == key
        await customer.upload(profile("c"))
        rows = emulator.records()
        assert [(row["request"], row["record"]["identity"]) for row in rows] == [(1, "b"), (2, "c")]
    if sys.platform != "win32":
        assert not stat.S_IMODE((tmp_path / "state.sqlite").stat().st_mode) & 0o077
        assert not stat.S_IMODE((tmp_path / "keys" / "passcode").stat().st_mode) & 0o077


async def test_a_person_can_upload_stop_start_and_look(tmp_path: Path) -> None:
    """Users, their ids, and the times of events without one are what they were."""
    kept: dict[str, Any] = {"keys_dir": tmp_path / "keys", "state_file": tmp_path / "state.sqlite"}
    visit: dict[str, Any] = {"type": "event", "identity": "a", "evtName": "Came", "evtData": {}}
    look = "/1/profile.json?identity=a"
    config, now = Config(**kept), 1_700_000_000.0
    async with Emulator(config, clock=lambda: now) as emulator, customer_of(emulator) as customer:
        await customer.upload(profile("a", Seen={"$incr": 1}, Tags={"$add": ["x", "y"]}), visit)
        await customer.upload(profile("a", Seen={"$incr": 2}, Tags={"$remove": ["x"]}))
        _, before = await customer.sealed(look, method="GET")
    assert before["record"]["profileData"] == {"Seen": 3, "Tags": ["y"]}
    assert before["record"]["events"]["Came"]["first_seen"] == now
    later = Emulator(config, clock=lambda: now + 1000)
    async with later as emulator, customer_of(emulator) as customer:
        _, after = await customer.sealed(look, method="GET")
    assert after == before


async def test_a_state_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Not a database, or not to be made."""
    (tmp_path / "text").write_text("hello " * 1000)
    for name in ("text", "missing/state"):
        with pytest.raises(SettingsError, match="--state"):
            async with Emulator(Config(state_file=tmp_path / name)):
                pass


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file is in the way."""
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="--keys-dir"):
        async with Emulator(Config(keys_dir=tmp_path / "file" / "keys")):
            pass


async def test_a_passcode_can_be_given() -> None:
    """For a caller that brings its own; a short account id is fine too."""
    secret = Secret("hunter2-hunter2")
    async with (
        Emulator(Config(passcode=secret, account_id="A")) as emulator,
        customer_of(emulator) as customer,
    ):
        assert emulator.passcode == secret
        assert (await customer.upload(profile()))[0] == 200
        assert "hunter2" not in repr(emulator)


async def test_a_rotated_key_leaves_the_previous_one_active() -> None:
    """What was sealed before one rotation still opens; before two it does not."""
    async with emulated() as (emulator, customer):
        await emulator.rotate()
        assert (await customer.upload(profile()))[0] == 200
        async with customer_of(emulator) as informed:
            assert (await informed.upload(profile()))[0] == 200
        await emulator.rotate()
        assert (await customer.upload(profile()))[0] == 400


async def test_a_new_key_of_the_customer_is_taken_while_it_runs() -> None:
    """Once told, it seals to what lies there; what is no key is refused, and nothing changes."""
    async with emulated() as (emulator, customer):
        await asyncio.to_thread(rotate_file, emulator.client_key)
        new = (await asyncio.to_thread(load_private, emulator.client_key)).primary_id
        for told, prefix_is_new in (("stats", False), ("client-key", True)):
            method = "POST" if told == "client-key" else "GET"
            assert (await customer.send(method, f"/_emulator/{told}"))[0] == 200
            _, sealed, _ = await customer.send("GET", "/1/x", None, {"Accept": HPKE_MEDIA_TYPE})
            assert (sealed[1:5] == new.to_bytes(4, "big")) is prefix_is_new
        public = emulator.client_key.with_name("client-public.json")
        await asyncio.to_thread(public.write_bytes, b"{")
        assert (await customer.send("POST", "/_emulator/client-key"))[0] == 400
        _, sealed, _ = await customer.send("GET", "/1/x", None, {"Accept": HPKE_MEDIA_TYPE})
        assert sealed[1:5] == new.to_bytes(4, "big")


@pytest.mark.parametrize("raw_keys", [False, True])
async def test_keys_of_both_prefixes(raw_keys: bool) -> None:
    """TINK has a prefix with the key's id, RAW has none."""
    async with emulated(raw_keys=raw_keys) as (emulator, customer):
        assert (await customer.upload(profile()))[0] == 200
        assert (emulator.requests()[0]["key_id"] is None) is raw_keys


async def test_it_tells_what_it_saw_to_who_knows_the_passcode() -> None:
    """Records are data: every look needs the credentials."""
    async with emulated() as (emulator, customer):
        await customer.upload(profile())
        base = f"{emulator.base_url}/_emulator"
        async with customer.session.get(f"{base}/records") as response:
            assert response.status == 401
        pair = f"{emulator.account_id}:{emulator.passcode.reveal()}".encode()
        auth = {"Authorization": f"Basic {b64encode(pair).decode()}"}
        async with customer.session.get(f"{base}/records", headers=auth) as response:
            rows = [orjson.loads(line) for line in (await response.read()).splitlines()]
            assert rows == emulator.records()
        async with customer.session.get(f"{base}/config", headers=auth) as response:
            told = await response.json()
            assert "passcode" not in told
            assert told["account_id"] == emulator.account_id
        for method, path, body, status in (
            ("GET", "nothing", None, 404),
            ("POST", "nothing", None, 404),
            ("POST", "config", b"[]", 400),
            ("POST", "config", b"{", 400),
            ("POST", "config", b'{"latency_s":"x"}', 400),
            ("POST", "config", b'{"faults":[5]}', 400),
            ("POST", "config", b'{"faults":["500=every-2"]}', 200),
            ("POST", "rotate", None, 200),
        ):
            url = f"{base}/{path}"
            async with customer.session.request(method, url, data=body, headers=auth) as response:
                assert response.status == status, path


async def test_a_customer_who_hangs_up_is_counted() -> None:
    """Half a body is a call too: nothing is stored, the cap is free again, nothing is logged."""
    async with emulated() as (emulator, customer):
        port = int(emulator.base_url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = [f"{name}: {value}" for name, value in customer.credentials.items()]
        lines = ["POST /1/upload HTTP/1.1", "Host: x", "Content-Length: 9", *head, "", "{"]
        writer.write("\r\n".join(lines).encode())
        while not emulator.stats()["uploads"]["inside"]:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()
        while not emulator.requests():  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0)
        assert emulator.stats()["by_status"] == {"gone": 1}
        assert emulator.stats()["uploads"]["inside"] == 0


async def test_idle_connections_are_closed() -> None:
    """A keep-alive connection ends after the time given."""
    async with Emulator(Config(idle_close_s=0.01)) as emulator:
        port = int(emulator.base_url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /_emulator/stats HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        await reader.read()
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "options",
    [
        {"port": 70_000},
        {"latency_s": -1},
        {"latency_s": float("nan")},
        {"faults": ("nonsense",)},
        {"outage": "flood"},
        {"retry_after": "soon"},
    ],
)
def test_options_are_checked(options: dict[str, object]) -> None:
    """A wrong option is named before anything starts."""
    with pytest.raises(SettingsError, match="--"):
        Config(**options)  # type: ignore[arg-type]  # wrong on purpose


def test_options_travel_whole(tmp_path: Path) -> None:
    """What goes to the process of its own is what was asked for; the passcode shows nowhere."""
    config = Config(
        passcode=Secret("hunter2"), keys_dir=tmp_path, state_file=tmp_path / "s", faults=("500",)
    )
    assert Config.from_json(config.to_json()) == config
    assert "hunter2" not in repr(config)
    assert Config.from_json(Config().to_json()) == Config()


def _wait_until_gone(pid: int) -> None:
    """Return when the process has ended; the test's own time-out is the bound."""
    while True:
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        except (ProcessLookupError, FileNotFoundError):
            return
        # Without an init that reaps orphans, it stays as a zombie.
        if state == "Z":
            return
