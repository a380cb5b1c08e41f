"""One request, from arrival to reply.

The order: reset or outage, credentials, cap on concurrent calls, body, faults instead of acting,
opening, latency, the endpoint itself, sealing, faults of the reply. A call counts against the cap
until its reply is ready.

Invariants:

1. Exactly one :class:`~ctbatch.emulator.state.Call` is counted per request, whatever happens to it.
2. Nothing is stored for a call that is refused, and everything accepted is stored before the reply.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import orjson
from aiohttp import ClientError, web

from ctbatch.api.wire import (
    ACCOUNT_HEADER,
    HPKE_MEDIA_TYPE,
    MAX_RECORDS,
    PASSCODE_HEADER,
    UPLOAD_PATH,
)
from ctbatch.emulator import verdicts
from ctbatch.emulator.envelope import Refused, check_credentials, is_sealed, malformed
from ctbatch.emulator.faults import Plan
from ctbatch.emulator.keys import Keys
from ctbatch.emulator.queries import Queries
from ctbatch.emulator.reply import (
    Fate,
    Refusal,
    Reply,
    error_reply,
    instead_of,
    json_reply,
    spoil,
    verdict,
)
from ctbatch.emulator.state import Accepted, Call, Config, Gate, Store, Tally
from ctbatch.errors import OpenError

__all__ = ["Service"]

_PATHS = {UPLOAD_PATH: "POST", "/1/events.json": "GET POST", "/1/profiles.json": "GET POST"}
_PATHS["/1/profile.json"] = "GET"


@dataclass(slots=True)
class _Asked:
    """What one request says, as it is understood."""

    request: web.BaseRequest
    call: Call
    config: Config
    met: frozenset[str]
    body: bytes = b""
    plain: bytes = b""
    sealed: bool = False


class Service:
    """The service. ``sleep`` and ``clock`` (epoch seconds) are its time."""

    def __init__(
        self,
        config: Config,
        *,
        passcode: str,
        keys: Keys,
        store: Store,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._passcode = passcode
        self._keys = keys
        self._clock = clock
        self._sleep = sleep
        self.store = store
        self.queries = Queries(store, clock)
        self.tally = Tally()
        self.uploads = Gate()
        self.others = Gate()
        self._requests = max((kept.request for kept in store.uploads), default=0)
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Be this from the next request on. Changed faults count their requests from 1 again."""
        old = getattr(self, "config", None)
        self.config = config
        if old is None or (old.faults, old.transient_times) != (
            config.faults,
            config.transient_times,
        ):
            self._plan = Plan(
                config.faults, seed=config.seed, transient_times=config.transient_times
            )
            # The load is invented; the same seed gives the same jitter.
            self._random = random.Random(config.seed)  # noqa: S311  # not for secrets

    async def handle(self, request: web.BaseRequest) -> Reply:
        """The reply to a request; the caller sends it."""
        self._requests += 1
        met = frozenset(self._plan.draw())
        call = Call(self._requests, request.method, request.path, faults=tuple(sorted(met)))
        asked = _Asked(request, call, self.config, met)
        # What remains if the customer hangs up in the middle, or the emulator is closed.
        reply = Reply(0, fate=Fate.GONE)
        try:
            reply = await self._gated(asked)
        except Refused as error:
            reply = self._refuse(asked, error)
        except (ConnectionError, ClientError, web.RequestPayloadError):
            pass
        finally:
            call.status = reply.status
            if reply.fate is not Fate.SENT:
                call.outcome = reply.fate.value
            self.tally.add(call)
        return replace(reply, close="close" in met)

    async def _gated(self, asked: _Asked) -> Reply:
        config, request = asked.config, asked.request
        if "reset" in asked.met or config.outage == "reset":
            return Reply(0, fate=Fate.RESET)
        is_upload = request.path == UPLOAD_PATH
        gate = self.uploads if is_upload else self.others
        check_credentials(
            (request.headers.get(ACCOUNT_HEADER), request.headers.get(PASSCODE_HEADER)),
            config.account_id,
            self._passcode,
        )
        if not gate.enter(config.max_concurrent if is_upload else config.max_concurrent_others):
            asked.call.over_cap = True
            raise Refused(429, "Too many concurrent requests", retry_later=True)
        try:
            return await self._answer(asked, gate)
        finally:
            gate.leave()

    async def _answer(self, asked: _Asked, gate: Gate) -> Reply:
        config = asked.config
        asked.body = await _read(asked.request, config.max_body_bytes)
        asked.call.bytes = len(asked.body)
        # The load is what this call finds; a call that arrives later does not slow it further.
        await self._wait(config, others=gate.inside - 1)
        if config.outage:
            raise Refused(500, "Internal server error")
        if (fault := instead_of(asked.met, self._retry_after(config))) is not None:
            return fault
        asked.sealed = is_sealed(
            content_type=asked.request.headers.get("Content-Type", ""),
            accept=asked.request.headers.get("Accept", ""),
            has_body=bool(asked.body) or asked.request.method != "GET",
            feature=config.feature,
            enforce=config.enforce,
            failing=config.encryption_status,
        )
        asked.call.sealed = asked.sealed
        self._open(asked)
        try:
            answer = await self._endpoint(asked)
        except Refused as error:
            return self._sealed(asked, error_reply(error, self._retry_after(config)))
        if isinstance(answer, Reply):
            return answer
        return self._spoiled(asked, json_reply(200, answer))

    def _open(self, asked: _Asked) -> None:
        if not asked.sealed or not asked.body:
            asked.plain = asked.body
            return
        try:
            asked.plain, asked.call.key_id = self._keys.open(asked.body)
        except OpenError:
            status = asked.config.encryption_status
            raise Refused(status, "Request could not be decrypted") from None

    async def _endpoint(self, asked: _Asked) -> dict[str, Any] | Reply:
        path, method = asked.request.path, asked.request.method
        query = asked.request.query
        if method not in _PATHS.get(path, method).split():
            raise Refused(405, "Method not allowed")
        if path == UPLOAD_PATH:
            return await self._upload(asked)
        if path == "/1/profile.json":
            return self.queries.lookup(query, asked.config)
        if path in _PATHS:
            # A cursor page may be asked for with POST too.
            if "cursor" in query:
                return self.queries.page(_verbatim(asked.request.raw_path, "cursor"))
            if method == "GET":
                raise Refused(400, "cursor is mandatory")
            ask = self.queries.open_events if "events" in path else self.queries.open_profiles
            return ask(query, _loads(asked.plain), asked.config)
        if not path.startswith("/1/"):
            raise Refused(404, "Resource not found")
        body = _loads(asked.plain) if asked.plain else None
        said = {"method": method, "path": path, "query": dict(query), "body": body}
        return {"status": "success", "echo": said}

    async def _upload(self, asked: _Asked) -> dict[str, Any] | Reply:
        records = _records(asked.plain)
        asked.call.records = len(records)
        if {"poison", "poison-500"} & asked.met and _is_poisoned(records, asked.plain):
            if "poison" in asked.met:
                raise malformed()
            raise Refused(500, "Internal server error")
        refusals = self._judge(records, asked.config)
        asked.call.processed = len(records) - len(refusals)
        if asked.request.query.get("dryRun") != "1" and asked.call.processed:
            refused = frozenset(refusal.index for refusal in refusals)
            now = int(self._clock())
            await self.store.keep(Accepted(asked.call.n, now, asked.plain, refused))
        for name, fate in (("reset-stored", Fate.RESET), ("hang", Fate.HUNG)):
            if name in asked.met:
                return Reply(0, fate=fate)
        if "500-stored" in asked.met:
            return json_reply(500, Refused(500, "Internal server error").body)
        return verdict(len(records), refusals, asked.met)

    def _judge(self, records: list[Any], config: Config) -> list[Refusal]:
        rules = verdicts.Rules(
            max_event_properties=config.max_event_properties,
            discarded_events=frozenset(config.discarded_events),
        )
        plan = self._plan if self._plan.has_transients else None
        refusals = []
        for index, record in enumerate(records):
            code = verdicts.code_of(record, rules)
            if code is None and plan is not None and plan.is_transient(orjson.dumps(record)):
                code = verdicts.MISCELLANEOUS
            if code is not None:
                refusals.append(Refusal(index, code, verdicts.echo_of(record, code)))
        return refusals

    def _refuse(self, asked: _Asked, error: Refused) -> Reply:
        """An error from before the body was opened: in the clear unless told otherwise."""
        reply = error_reply(error, self._retry_after(asked.config))
        accepts = asked.request.headers.get("Accept", "") == HPKE_MEDIA_TYPE
        asked.sealed = asked.config.seal_errors and accepts
        return self._sealed(asked, reply)

    def _sealed(self, asked: _Asked, reply: Reply) -> Reply:
        if not asked.sealed:
            return reply
        return replace(reply, body=self._keys.seal(reply.body), media_type=HPKE_MEDIA_TYPE)

    def _spoiled(self, asked: _Asked, reply: Reply) -> Reply:
        sealed = self._sealed(asked, reply)
        if not asked.met:
            return sealed
        return spoil(
            sealed, asked.met, plain=reply.body, foreign=self._keys.seal_foreign, rng=self._random
        )

    async def _wait(self, config: Config, *, others: int) -> None:
        seconds = config.latency_s + config.load_latency_s * others
        if config.jitter_s:
            seconds += self._random.uniform(0, config.jitter_s)
        if seconds > 0:
            await self._sleep(seconds)

    def _retry_after(self, config: Config) -> str:
        text = config.retry_after
        if not text.startswith("date+"):
            return text
        then = datetime.fromtimestamp(self._clock() + int(text[5:]), UTC)
        return format_datetime(then, usegmt=True)


async def _read(request: web.BaseRequest, limit: int) -> bytes:
    """The body. Raises the 413 beyond ``limit`` bytes."""
    length = request.content_length
    if length is not None and length <= limit:
        return await request.content.read()
    read = bytearray()
    while chunk := await request.content.readany():
        read += chunk
        if len(read) > limit:
            raise Refused(413, "Request entity too large")
    return bytes(read)


def _verbatim(target: str, name: str) -> str:
    """A parameter of a request target as it was written; the server's parser would decode it."""
    for pair in target.partition("?")[2].split("&"):
        key, _, value = pair.partition("=")
        if key == name:
            return value
    return ""


def _loads(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise malformed() from None


def _records(text: bytes) -> list[Any]:
    body = _loads(text)
    records = body.get("d") if isinstance(body, dict) else None
    if not isinstance(records, list) or not records:
        raise malformed()
    if len(records) > MAX_RECORDS:
        raise Refused(400, f"Maximum {MAX_RECORDS} records are allowed per call")
    return records


def _is_poisoned(records: list[Any], text: bytes) -> bool:
    return b'"poison"' in text and any(
        isinstance(record, dict) and "poison" in (record.get("profileData") or ())
        for record in records
    )
