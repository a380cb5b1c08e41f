"""``/_emulator/…``: what it accepted and counted, for tests and for a person, and its switches.

Every call needs the account id and the passcode, as the service's headers or as HTTP basic
authentication (``curl -u``): what was sent may be real, and loopback is open to every user of the
machine.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import orjson
from aiohttp import web

from ctbatch.api.wire import ACCOUNT_HEADER, PASSCODE_HEADER
from ctbatch.emulator.app import Service
from ctbatch.emulator.envelope import Refused
from ctbatch.emulator.reply import Reply, error_reply, json_reply
from ctbatch.errors import KeysetError, SettingsError

__all__ = ["ADMIN_PREFIX", "Admin", "stats_of"]

ADMIN_PREFIX = "/_emulator/"


def stats_of(service: Service) -> dict[str, Any]:
    """Counts since the start: ``totals``, ``by_status``, ``by_fault``, and the two caps."""
    tally = service.tally
    gates = {"uploads": service.uploads, "others": service.others}
    return {
        "totals": {"requests": 0, "bytes": 0, "records": 0, "processed": 0} | tally.totals,
        "by_status": dict(tally.by_status),
        "by_fault": dict(tally.by_fault),
        **{
            name: {"inside": gate.inside, "peak": gate.peak, "turned_away": gate.turned_away}
            for name, gate in gates.items()
        },
    }


class Admin:
    """Answers ``GET stats|records|requests|config`` and ``POST config|rotate|client-key``;
    ``switches`` are the last two.
    """

    def __init__(
        self,
        service: Service,
        passcode: str,
        configure: Callable[[Mapping[str, Any]], None],
        switches: Mapping[str, Callable[[], Awaitable[None]]],
    ) -> None:
        self._service = service
        self._passcode = passcode
        self._configure = configure
        self._switches = switches

    async def handle(self, request: web.BaseRequest) -> Reply:
        """The reply to a call below :data:`ADMIN_PREFIX`."""
        try:
            self._check(request)
            what = request.path.removeprefix(ADMIN_PREFIX)
            return await self._act(request) if request.method == "POST" else self._tell(what)
        except Refused as error:
            return error_reply(error, "")
        except (SettingsError, KeysetError) as error:
            return error_reply(Refused(400, str(error)), "")

    def _check(self, request: web.BaseRequest) -> None:
        account = self._service.config.account_id
        pair = f"{account}:{self._passcode}"
        basic = "Basic " + b64encode(pair.encode()).decode()
        names = (ACCOUNT_HEADER, PASSCODE_HEADER)
        given = ":".join(request.headers.get(name, "") for name in names)
        authorization = request.headers.get("Authorization", "")
        if not (
            hmac.compare_digest(given.encode(), pair.encode())
            or hmac.compare_digest(authorization.encode(), basic.encode())
        ):
            raise Refused(401, "the emulator's account id and passcode are needed: try curl -u")

    async def _act(self, request: web.BaseRequest) -> Reply:
        match request.path.removeprefix(ADMIN_PREFIX):
            case "config":
                try:
                    changes = orjson.loads(await request.read())
                except orjson.JSONDecodeError:
                    changes = None
                if not isinstance(changes, dict):
                    raise Refused(400, "a JSON object of options is needed")
                self._configure(changes)
                return self._tell("config")
            case what if what in self._switches:
                await self._switches[what]()
                return json_reply(200, {"status": "success"})
        raise Refused(404, "POST config, rotate or client-key")

    def _tell(self, what: str) -> Reply:
        match what:
            case "stats":
                return json_reply(200, stats_of(self._service))
            case "records":
                return _ndjson(self._service.store.rows())
            case "requests":
                return _ndjson(asdict(call) for call in self._service.tally.calls)
            case "config":
                told = orjson.loads(self._service.config.to_json())
                del told["passcode"]
                return json_reply(200, told)
        raise Refused(404, "GET stats, records, requests or config")


def _ndjson(rows: Iterable[dict[str, Any]]) -> Reply:
    body = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    return Reply(200, body, "application/x-ndjson")
