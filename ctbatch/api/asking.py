"""Asking until an answer can be believed: attempts, pauses, and when to give up.

Invariants:

1. Only what the caller says may be repeated is repeated after it may have been acted on. What was
   not acted on (throttled, not sent, still in progress) always may.
2. A slot is held for an attempt, never for a pause.
3. Nothing is logged or raised but the path and what happened in a few words, without what was asked
   for and without secrets, whatever the service quotes: a query string names a person.

What an answer means is decided in :mod:`ctbatch.api.queries`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

import orjson

from ctbatch.api.explain import explain_refusal, explain_status, explain_unopened
from ctbatch.api.queries import Heard, Sense, hear
from ctbatch.api.records import is_moderate
from ctbatch.api.retry import backoff_s, retrying
from ctbatch.api.transport import Reply
from ctbatch.api.words import Json
from ctbatch.errors import (
    CtbatchError,
    NotSent,
    ReplyLost,
    ServiceRefused,
    ServiceUnavailable,
    SettingsError,
)

__all__ = ["Asker", "Patience", "refusal_of"]

_LOG = logging.getLogger(__name__)

UNOPENED_TRIES = 3
"""As in a run: three answers in a row that do not open stop it."""


TELL_AT = 3
"""One 429 or one stale connection is everyday; the third failure of one question is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long one question is asked again: without a usable answer, and while the service works.

    A cursor that nobody reads expires after an hour, so waiting for longer than half of that would
    risk what was found.
    """

    give_up_after_s: float = 900.0
    in_progress_s: float = 1800.0

    def __post_init__(self) -> None:
        for option, value in (
            ("--give-up-after", self.give_up_after_s),
            ("--wait", self.in_progress_s),
        ):
            if not 0 <= value <= 7 * 86_400:  # written so that NaN fails too
                raise SettingsError(option, f"must be from 0 to 604800 seconds, not {value:g}")


Send = Callable[[str, str, str, bytes | None], Awaitable[Reply]]
"""One attempt: method, path, query string, body (which it seals)."""

Open = Callable[[Reply], tuple[bytes, bool]]
"""The body of a reply, and whether it came in the form that was asked for; may take its time."""


@dataclass(slots=True)
class _Question:
    """One question and what became of it so far."""

    method: str
    path: str
    query: str
    body: bytes | None
    found: str
    repeatable: bool
    since: float
    unopened: int = 0
    asked: int = 0
    waiting: bool = False

    def asked_for(self) -> Iterator[Json]:
        """The values of the query string and of the body, which name people."""
        yield [value for _, value in parse_qsl(self.query)]
        yield unquote(self.query)
        if self.body:
            try:
                yield orjson.loads(self.body if is_moderate(self.body) else b"")
            except orjson.JSONDecodeError:
                yield self.body.decode(errors="replace")


_NOT_ACTED = {Sense.LATER}


class Asker:
    """Asks one account's endpoints. ``slots`` bounds what is on the wire; ``clock`` is monotonic
    seconds.
    """

    def __init__(
        self,
        send: Send,
        open_: Open,
        *,
        sealed: bool,
        secrets: Collection[str],
        slots: asyncio.Semaphore,
        patience: Patience,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        self._send = send
        self._open = open_
        self.sealed = sealed
        self._secrets = secrets
        self._slots = slots
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._rng = rng

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        body: bytes | None = None,
        found: str = "status",
        repeatable: bool = True,
    ) -> Heard:
        """Ask until there is an answer, a refusal, or no patience left.

        Returns an answer, or what says that somebody is not there, that the cursor has expired or
        that this request is refused; where it is not ``repeatable``, whatever came back.

        Raises:
            ServiceRefused: the service refuses us as a whole, or its answers do not open.
            ServiceUnavailable: no usable answer for too long.
            ReplyLost: it is not repeatable, and no answer came.
            SettingsError: the answer is larger than a reply may be.
        """
        question = _Question(method, path, query, body, found, repeatable, self._clock())

        def pause(tries: int, retry_after: str | None) -> float:
            return backoff_s(tries, retry_after, self._rng)

        def again(heard: Heard) -> bool:
            return self._again(question, heard)

        heard: Heard = await retrying(again, pause=pause, sleep=self._sleep)(
            self._attempt, question
        )
        failure = self._failure(question, heard)
        if failure is not None:
            raise failure
        return heard

    async def _attempt(self, question: _Question) -> Heard:
        question.asked += 1
        try:
            async with self._slots:
                reply = await self._send(
                    question.method, question.path, question.query, question.body
                )
        except NotSent as error:
            return Heard(Sense.LATER, last=error.result)
        except ReplyLost as error:
            if error.result == "oversized":
                raise SettingsError(
                    "--batch-size", f"is too large: {error.why}", "start again with a smaller one"
                ) from None
            if not question.repeatable:
                raise
            return Heard(Sense.LOST, last=error.result)
        heard = await asyncio.to_thread(self._hear, reply, question)
        question.unopened = question.unopened + 1 if heard.sense is Sense.UNOPENED else 0
        return heard

    def _hear(self, reply: Reply, question: _Question) -> Heard:
        text, opened = self._open(reply)
        return hear(
            reply.status,
            text,
            opened=opened,
            retry_after=reply.headers.get("Retry-After"),
            found=question.found,
            asked=question.asked_for(),
            secrets=self._secrets,
        )

    def _again(self, question: _Question, heard: Heard) -> bool:
        if heard.sense is Sense.UNOPENED:
            return question.repeatable and question.unopened < UNOPENED_TRIES
        limit_s = self._patience.give_up_after_s
        if heard.sense is Sense.IN_PROGRESS:
            limit_s = self._patience.in_progress_s
        elif heard.sense not in ({Sense.LATER, Sense.LOST} if question.repeatable else _NOT_ACTED):
            return False
        if self._clock() - question.since >= limit_s:
            return False
        _tell(question, heard)
        return True

    def _failure(self, question: _Question, heard: Heard) -> CtbatchError | None:
        """The error for what no more attempts can mend, if it is one."""
        if heard.sense is Sense.UNOPENED:
            answers = 1 if question.asked < UNOPENED_TRIES else UNOPENED_TRIES
            return explain_unopened(answers, sealed=self.sealed)
        if heard.sense is Sense.FATAL:
            return refusal_of(heard, "request", sealed=self.sealed)
        # Without a status nothing came back at all.
        if heard.sense is Sense.LOST and not question.repeatable and heard.opened:
            return None
        if heard.sense in {Sense.IN_PROGRESS, Sense.LATER, Sense.LOST}:
            return ServiceUnavailable(self._clock() - question.since, heard.last)
        return None


def _tell(question: _Question, heard: Heard) -> None:
    """Log where a person sees it what takes long: the first time that the service is still working,
    and when one question has failed a few times; the rest for the curious.
    """
    waiting = heard.sense is Sense.IN_PROGRESS
    worth_telling = not question.waiting if waiting else question.asked == TELL_AT
    question.waiting = question.waiting or waiting
    _LOG.log(
        logging.WARNING if worth_telling else logging.INFO,
        "ask.again: %s %s, attempt %d: %s",
        question.method,
        question.path,
        question.asked,
        "the service is still working on the query" if waiting else heard.last,
    )


def refusal_of(heard: Heard, what: str, *, sealed: bool) -> ServiceRefused:
    """The error for a refusal of us, or of ``what`` was asked."""
    said = f' and said "{heard.words}"' if heard.words else ""
    if heard.sense is Sense.FATAL:
        code = heard.code or heard.status
        return ServiceRefused(f"the service answered {code}{said}", explain_status(code, "").causes)
    code = heard.code or heard.status
    text = f"the service refused the {what} ({code}){said}"
    if heard.opened or not sealed:
        return ServiceRefused(text)
    # In plaintext, so perhaps it could not read what we sealed; the last cause is about records.
    return ServiceRefused(text, explain_refusal("", sealed=True).causes[:-1])
