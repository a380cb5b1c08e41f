"""The library's client: sealed requests, opened replies.

Uploads: one request with a verdict per record; what is ambiguous is said, not retried, because
whoever calls knows what may be repeated. For files, with retries, ordering and a ledger, there is
:func:`ctbatch.run`.

Reading (events, profiles) changes nothing, so it is retried until it succeeds or patience ends; how
is in :mod:`~ctbatch.api.asking`, :mod:`~ctbatch.api.cursors` and :mod:`~ctbatch.api.lookups`. What
was read is handed over as bytes, as it came: no number is rewritten.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Self

import orjson

from ctbatch.api.asking import Asker, Patience, refusal_of
from ctbatch.api.bodies import body_of, upload_of
from ctbatch.api.cursors import Download
from ctbatch.api.lookups import Found, look_up, look_up_all
from ctbatch.api.queries import (
    DEFAULT_PAGE,
    EVENTS_PATH,
    MAX_CONCURRENT_READS,
    PROFILES_PATH,
    Lookup,
    Sense,
    encode_query,
    event_query,
    page_query,
)
from ctbatch.api.records import is_moderate
from ctbatch.api.transport import Reply, Transport
from ctbatch.api.uploads import UploadResult, result_of, unknown
from ctbatch.api.wire import (
    JSON_MEDIA_TYPE,
    MAX_RECORDS,
    UPLOAD_PATH,
    Verdict,
    headers,
    judge,
)
from ctbatch.crypto.hpke import OpeningKeys, SealingKey
from ctbatch.crypto.keyset import load_private, load_public
from ctbatch.errors import AnswerUnopened, OpenError, ReplyLost, SettingsError
from ctbatch.settings import Account, Endpoint, KeyFiles

__all__ = ["Answer", "Client"]

_REPEATABLE = ("GET", "OPTIONS")
"""The safe methods (RFC 9110, section 9.2.1) whose replies have a body, and so can be opened."""

_PERHAPS = "the request may have been acted on"

MAX_PAGE_BYTES = 64 << 20
"""What a page may take: 5000 records, the most there are in one, of 12 KB each."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered: ``body`` is the opened reply, byte for byte. ``ok`` says that it
    is a 2xx and does not say that it failed.
    """

    status: int
    ok: bool
    body: bytes = field(repr=False)


class Client:
    """The encrypted API of one account; without ``keys`` it speaks the plaintext JSON form.

    An async context manager. Raises :class:`~ctbatch.errors.UsageError` on entering if keys or
    certificates are unusable, and where it is used while it is not open.
    """

    def __init__(
        self,
        *,
        account: Account,
        endpoint: Endpoint,
        keys: KeyFiles | None,
        timeout_s: float = 60.0,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._account = account
        self._endpoint = endpoint
        self._key_files = keys
        self._timeout_s = timeout_s
        self._stack = AsyncExitStack()
        self._transport: Transport | None = None
        self._sealing: SealingKey | None = None
        self._opening: OpeningKeys | None = None
        self._asker = Asker(
            self._send,
            self._open,
            sealed=keys is not None,
            secrets=(account.passcode.reveal(),),
            slots=asyncio.Semaphore(MAX_CONCURRENT_READS),
            patience=patience or Patience(),
            clock=clock,
            sleep=sleep,
            rng=rng or random.Random(),  # noqa: S311  # spreads retries; no secret is made of it
        )

    def __repr__(self) -> str:
        state = "open" if self._transport is not None else "closed"
        return f"<ctbatch.Client of {self._account.id} at {self._endpoint.host}, {state}>"

    async def __aenter__(self) -> Self:
        if self._key_files is not None:
            await asyncio.to_thread(self._load, self._key_files)
        self._transport = await self._stack.enter_async_context(
            Transport(self._endpoint, timeout_s=self._timeout_s, reply_extra_bytes=MAX_PAGE_BYTES)
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
        info = files.info_for(self._account.id)
        self._sealing, self._opening = SealingKey(server, info), OpeningKeys(client, info)

    async def upload(
        self, records: Sequence[Mapping[str, Any]], *, dry_run: bool = False
    ) -> UploadResult:
        """Send at most 1000 records in one sealed request; a verdict per record.

        ``dry_run`` has the service validate without storing.

        Raises:
            SettingsError: no records, too many, or one that is not JSON.
            NotSent: nothing was sent; it may be tried again.
            ServiceRefused: the service refuses us as a whole.
        """
        if not 0 < len(records) <= MAX_RECORDS:
            raise SettingsError("records", f"must be 1 to {MAX_RECORDS}, not {len(records)}")
        body = upload_of(records)
        try:
            reply = await self._request(
                "POST", UPLOAD_PATH, body=body, query="dryRun=1" if dry_run else ""
            )
        except ReplyLost as error:
            return unknown(len(records), f"no answer ({error.result})")
        verdict = await asyncio.to_thread(self._judge, reply, len(records))
        return result_of(verdict, reply.status, records)

    def events(
        self,
        name: str | None = None,
        *,
        from_date: int | None = None,
        to_date: int | None = None,
        query: bytes | Mapping[str, Any] | None = None,
        batch_size: int = DEFAULT_PAGE,
        cursor: str | None = None,
    ) -> Download:
        """Every event of a name between two dates (YYYYMMDD), as an async iterator of the bytes of
        their JSON.

        ``query`` is the documented query, which may hold name, dates and filters. With a ``cursor``
        a download goes on. Raises :class:`SettingsError`; for what reading raises see
        :meth:`Download.pages`.
        """
        given = body_of("query", query)
        body = None if cursor is not None else event_query(name, from_date, to_date, given)
        return Download(
            self._asker, EVENTS_PATH, query=page_query(batch_size), body=body, cursor=cursor
        )

    def profiles(
        self,
        query: bytes | Mapping[str, Any] | None = None,
        *,
        batch_size: int = DEFAULT_PAGE,
        cursor: str | None = None,
    ) -> Download:
        """Every profile that a query finds, as :meth:`events`."""
        given = body_of("query", query)
        body = None if cursor is not None else event_query(None, None, None, given)
        return Download(
            self._asker, PROFILES_PATH, query=page_query(batch_size), body=body, cursor=cursor
        )

    async def profile(
        self,
        *,
        email: str | None = None,
        identity: str | None = None,
        object_id: str | None = None,
    ) -> bytes | None:
        """The profile of one user, named in exactly one way: the bytes of its JSON, or ``None``.

        Raises:
            SettingsError: none or several ways, or an empty one.
            ServiceRefused: the service refuses the look-up or us, or its answers do not open.
            ServiceUnavailable: no usable answer for too long.
        """
        named = {"email": email, "identity": identity, "objectId": object_id}
        given = [(kind, value) for kind, value in named.items() if value is not None]
        if len(given) != 1:
            raise SettingsError("the look-up", "needs exactly one of email, identity, object id")
        found = await look_up(self._asker, Lookup(*given[0]))
        if found.refusal is not None:
            raise found.refusal
        return found.record

    def look_up(self, lookups: Iterable[Lookup]) -> AsyncGenerator[Found, None]:
        """Look up many users, three at a time; one result each, in order. Raises as
        :meth:`profile`, except that a refused look-up is a result.
        """
        return look_up_all(self._asker, lookups)

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Mapping[str, Any] | None = None,
        query: str | Mapping[str, str] = "",
    ) -> Answer:
        """Ask any endpoint: the body goes out sealed, the reply comes back opened.

        ``query`` as a string is sent as it is, as a mapping it is percent-encoded. What the service
        has not acted on is tried again; what it may have acted on only if it is a GET.

        Raises:
            ServiceRefused: the service refuses us, or (``AnswerUnopened``) its answer is shut.
            ServiceUnavailable: no usable answer for too long.
            ReplyLost: no answer, and it may have been acted on.
        """
        method = method.upper()
        if not (method.isascii() and method.isalpha()):
            raise SettingsError("METHOD", "is not an HTTP method", "use GET or POST")
        if method == "HEAD":
            raise SettingsError("METHOD", "HEAD has no reply that could be opened", "use GET")
        repeatable = method in _REPEATABLE
        try:
            heard = await self._asker.ask(
                method,
                path,
                query=query if isinstance(query, str) else encode_query(query.items()),
                # What is not a GET asks for both headers, so for something sealed, if only nothing.
                body=b"" if body is None and not repeatable else body_of("body", body),
                found="",
                repeatable=repeatable,
            )
        except ReplyLost as error:
            raise replace(error, why=f"{error.why}; {_PERHAPS}") from None
        except AnswerUnopened as error:
            if repeatable:
                raise
            raise replace(error, what=f"{error.what}; {_PERHAPS}") from None
        if not heard.opened:  # in plaintext, though a sealed one was asked for
            raise refusal_of(heard, "request", sealed=self._asker.sealed)
        return Answer(heard.status, heard.sense is Sense.ANSWER, heard.text)

    async def _send(self, method: str, path: str, query: str, body: bytes | None) -> Reply:
        return await self._request(method, path, query=query, body=body)

    def _open(self, reply: Reply) -> tuple[bytes, bool]:
        """The body as it can be read, and whether it came in the form that was asked for."""
        if self._opening is None:
            return reply.body, reply.content_type in {JSON_MEDIA_TYPE, ""}
        try:
            return self._opening.open(reply.body).plaintext, True
        except OpenError:
            return reply.body, False

    async def _request(
        self, method: str, path: str, *, body: bytes | None = None, query: str = ""
    ) -> Reply:
        """One attempt, sealed if there are keys."""
        if self._transport is None:
            raise SettingsError("the client", "is not open", "use it in `async with Client(...)`")
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
            body = orjson.loads(text if is_moderate(text) else b"")
        except orjson.JSONDecodeError:
            body, opened = None, opened and self._opening is not None
        return judge(
            reply.status,
            opened=opened,
            body=body,
            records=records,
            secrets=(self._account.passcode.reveal(),),
        )
