"""The library's client: one sealed request at a time, with a verdict per record.

What is ambiguous is said, not retried: whoever calls knows what may be repeated. For files, with
retries, ordering and a ledger, there is :func:`ctbatch.run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from ctbatch.api.explain import explain_status
from ctbatch.api.transport import Reply, Transport
from ctbatch.api.wire import (
    IDENTITY_KINDS,
    MAX_RECORDS,
    UPLOAD_PATH,
    Entry,
    Meaning,
    Verdict,
    clean_words,
    headers,
    identity_of,
    judge,
    map_entries,
)
from ctbatch.crypto.hpke import OpeningKeys, SealingKey
from ctbatch.crypto.keyset import load_private, load_public
from ctbatch.errors import OpenError, ReplyLost, SettingsError
from ctbatch.models import State
from ctbatch.settings import Account, Endpoint, KeyFiles

__all__ = ["Client", "Outcome", "UploadResult"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record: processed, unprocessed (with the service's code and words), or
    unknown (``error`` says why no answer could be believed).
    """

    state: State
    code: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class UploadResult:
    """The outcomes of one request, in the order of its records.

    ``retry`` says that nothing was stored and the same request may be made again later.
    """

    outcomes: tuple[Outcome, ...]
    retry: bool = False
    records: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    @property
    def processed(self) -> int:
        """How many records were stored."""
        return sum(outcome.state is State.PROCESSED for outcome in self.outcomes)


class Client:
    """The encrypted API of one account; without ``keys`` it speaks the plaintext JSON form.

    An async context manager. Raises :class:`~ctbatch.errors.SettingsError` and
    :class:`~ctbatch.errors.UsageError` on entering if keys or certificates are unusable.
    """

    def __init__(
        self,
        *,
        account: Account,
        endpoint: Endpoint,
        keys: KeyFiles | None,
        timeout_s: float = 60.0,
    ) -> None:
        self._account = account
        self._endpoint = endpoint
        self._key_files = keys
        self._timeout_s = timeout_s
        self._stack = AsyncExitStack()
        self._transport: Transport | None = None
        self._sealing: SealingKey | None = None
        self._opening: OpeningKeys | None = None

    def __repr__(self) -> str:
        state = "open" if self._transport is not None else "closed"
        return f"<ctbatch.Client of {self._account.id} at {self._endpoint.host}, {state}>"

    async def __aenter__(self) -> Self:
        if self._key_files is not None:
            await asyncio.to_thread(self._load, self._key_files)
        self._transport = await self._stack.enter_async_context(
            Transport(self._endpoint, timeout_s=self._timeout_s)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport = None
        await self._stack.aclose()

    def _load(self, files: KeyFiles) -> None:
        insecure = files.insecure_permissions
        server = load_public(files.server, insecure_permissions=insecure)
        client = load_private(
            files.client, passphrase=files.passphrase, insecure_permissions=insecure
        )
        info = (files.info or self._account.id).encode()
        self._sealing, self._opening = SealingKey(server, info), OpeningKeys(client, info)

    async def upload(
        self, records: Sequence[Mapping[str, Any]], *, dry_run: bool = False
    ) -> UploadResult:
        """Send at most 1000 records in one sealed request; a verdict per record.

        ``dry_run`` has the service validate without storing.

        Raises:
            SettingsError: no records, or too many.
            NotSent: nothing was sent; it may be tried again.
            ServiceRefused: the service refuses us as a whole.
        """
        if not 0 < len(records) <= MAX_RECORDS:
            raise SettingsError("records", f"must be 1 to {MAX_RECORDS}, not {len(records)}")
        body = orjson.dumps({"d": list(records)})
        try:
            reply = await self._request(
                "POST", UPLOAD_PATH, body=body, query="dryRun=1" if dry_run else ""
            )
        except ReplyLost as error:
            return _unknown(records, f"no answer ({error.result})")
        verdict = await asyncio.to_thread(self._judge, reply, len(records))
        return _result(verdict, reply.status, records)

    async def _request(
        self, method: str, path: str, *, body: bytes | None = None, query: str = ""
    ) -> Reply:
        """One attempt, sealed if there are keys."""
        assert self._transport is not None, "use `async with Client(...)`"
        if body is not None and self._sealing is not None:
            body = await asyncio.to_thread(self._sealing.seal, body)
        return await self._transport.request(
            method,
            path,
            query=query,
            headers=headers(
                self._account.id,
                self._account.passcode.reveal(),
                sealed=self._sealing is not None,
                body=body is not None,
            ),
            body=body,
        )

    def _judge(self, reply: Reply, records: int) -> Verdict:
        opened, text = True, reply.body
        if self._opening is not None:
            try:
                text = self._opening.open(reply.body).plaintext
            except OpenError:
                opened = False
        try:
            body = orjson.loads(text)
        except orjson.JSONDecodeError:
            body, opened = None, opened and self._opening is not None
        return judge(reply.status, opened=opened, body=body, records=records)


def _unknown(records: Sequence[Mapping[str, Any]], why: str) -> UploadResult:
    return UploadResult((Outcome(State.UNKNOWN, error=why),) * len(records), records=records)


def _result(verdict: Verdict, status: int, records: Sequence[Mapping[str, Any]]) -> UploadResult:
    """Turn what a reply means into an outcome per record."""
    words = clean_words(verdict.words, *records)
    code = verdict.code or status
    match verdict.meaning:
        case Meaning.BELIEVED:
            return UploadResult(_outcomes(verdict.entries, records), records=records)
        case Meaning.FATAL:
            raise explain_status(code, words)
        case Meaning.THROTTLED:
            waiting = Outcome(State.UNSENT, code, words)
            return UploadResult((waiting,) * len(records), retry=True, records=records)
        case Meaning.REFUSED | Meaning.TOO_LARGE:
            refused = Outcome(State.UNPROCESSED, code, words or "the request was refused")
            return UploadResult((refused,) * len(records), records=records)
        case Meaning.UNOPENED:
            return _unknown(records, "an answer came that does not open")
    return _unknown(records, f"no answer that can be believed ({verdict.result} {words})")


def _outcomes(
    entries: Sequence[Entry], records: Sequence[Mapping[str, Any]]
) -> tuple[Outcome, ...]:
    names = [
        frozenset(name for kind in IDENTITY_KINDS if (name := identity_of(kind, record.get(kind))))
        for record in records
    ]
    mapped = map_entries(entries, names, [str(record.get("type"))[:1] for record in records])
    outcomes = [Outcome(State.PROCESSED)] * len(records)
    for index in mapped.candidates:
        outcomes[index] = Outcome(State.UNKNOWN, error="the service did not say which it refused")
    for index, entry in mapped.refused.items():
        words = clean_words(entry.words, records[index])
        outcomes[index] = Outcome(State.UNPROCESSED, entry.code, words)
    return tuple(outcomes)
