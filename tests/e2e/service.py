"""The service as it is tested against: the bundled emulator in a process of its own.

Sync, so that tests need no loop: one process serves all tests, and each sees only what came in
since it began.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from base64 import b64encode
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ctbatch.emulator.state import CHANGEABLE, Config
from tests.e2e.command import until

__all__ = ["Service"]


class Service:
    """A context manager: the emulator's process, with ``options`` of its :class:`Config`."""

    def __init__(self, **options: Any) -> None:
        self._config = Config(**options)
        self._seen_records = self._seen_requests = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ctbatch.emulator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._config.to_json() + b"\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        self.base_url: str = told["base_url"]
        self.passcode: str = told["passcode"]
        self.server_key, self.client_key = Path(told["server_key"]), Path(told["client_key"])
        self.account_id = self._config.account_id
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    @property
    def env(self) -> dict[str, str]:
        """The variables that point ctbatch at it."""
        return {
            "CLEVERTAP_ACCOUNT_ID": self.account_id,
            "CLEVERTAP_PASSCODE": self.passcode,
            "CLEVERTAP_BASE_URL": self.base_url,
            "CTBATCH_SERVER_KEY": str(self.server_key),
            "CTBATCH_CLIENT_KEY": str(self.client_key),
        }

    def begin(self) -> None:
        """Good weather, and a clean slate."""
        until("calls of an earlier test", lambda: not self.stats()["uploads"]["inside"])
        plain = Config()
        names = {item.name for item in fields(Config)} & CHANGEABLE
        self.configure(**{name: getattr(plain, name) for name in names})
        self._seen_records = len(self._rows("records"))
        self._seen_requests = len(self._rows("requests"))

    def configure(self, **options: Any) -> None:
        """Change the weather."""
        self._ask("config", json.dumps(options).encode())

    def rotate(self) -> None:
        """The service's key is another; the one before still opens."""
        self._ask("rotate", b"{}")

    def take_client_key(self) -> None:
        """The customer has handed over what lies beside the client key."""
        self._ask("client-key", b"{}")

    def stats(self) -> dict[str, Any]:
        """Counts since the process started."""
        told: dict[str, Any] = json.loads(self._ask("stats"))
        return told

    def inside(self) -> int:
        """How many uploads are being answered."""
        number: int = self.stats()["uploads"]["inside"]
        return number

    def requests(self) -> list[dict[str, Any]]:
        """The calls that are over, since :meth:`begin`."""
        return self._rows("requests")[self._seen_requests :]

    def records(self) -> list[dict[str, Any]]:
        """The records stored since :meth:`begin`, each time they were stored, in order."""
        return [row["record"] for row in self._rows("records")[self._seen_records :]]

    def identities(self) -> list[Any]:
        """The identities of the same."""
        return [record["identity"] for record in self.records()]

    def _rows(self, what: str) -> list[dict[str, Any]]:
        return [json.loads(row) for row in self._ask(what).splitlines()]

    def _ask(self, what: str, body: bytes | None = None) -> bytes:
        pair = b64encode(f"{self.account_id}:{self.passcode}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310  # loopback, made here
            f"{self.base_url}/_emulator/{what}",
            data=body,
            headers={"Authorization": f"Basic {pair}"},
        )
        with urllib.request.urlopen(request, timeout=20) as reply:  # noqa: S310  # as above
            answer: bytes = reply.read()
        return answer
