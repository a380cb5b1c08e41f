"""Whoever asks for people by name finds none of them in what is logged and raised."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from urllib.parse import unquote

import pytest
from multidict import CIMultiDict

from ctbatch.api.asking import Asker, Patience, refusal_of
from ctbatch.api.queries import encode_query
from ctbatch.api.transport import Reply
from ctbatch.errors import CtbatchError
from tests.api.reading import Time

PASSCODE = "ABC-DEF-GHIL"


class Quoting:
    """A service that answers every question with all that it was told."""

    def __init__(self, status: int) -> None:
        self._status = status

    async def send(self, method: str, path: str, query: str, body: bytes | None) -> Reply:
        """Quote the query as it came and as it was meant, the body, and the passcode."""
        said = f"{query} {unquote(query)} {(body or b'').decode()} {PASSCODE} refused"
        failure = {"status": "fail", "error": said, "code": self._status}
        return Reply(self._status, CIMultiDict(), json.dumps(failure).encode(), 0.1, "")


async def asked(status: int, query: str, body: bytes | None) -> str:
    """What is raised, or could be."""
    time = Time()
    asker = Asker(
        Quoting(status).send,
        lambda reply: (reply.body, True),
        sealed=False,
        secrets=(PASSCODE,),
        slots=asyncio.Semaphore(1),
        patience=Patience(give_up_after_s=60),
        clock=time.clock,
        sleep=time.sleep,
        rng=random.Random(3),
    )
    try:
        heard = await asker.ask("POST", "/1/some.json", query=query, body=body)
    except CtbatchError as error:
        return f"{error} {error!r}"
    return f"{refusal_of(heard, 'request', sealed=False)} {heard!r}"


@pytest.mark.parametrize("status", [200, 202, 400, 401, 404, 429, 500, 503])
@pytest.mark.parametrize(
    ("query", "body"),
    [
        (encode_query([("identity", "zebulon-quimby"), ("x", "Químby & 王")]), None),
        ("zebulon quimby=quimby", b'{"event_name":"x","who":["zebulon-quimby","Qu\\u00edmby",""]}'),
        ("", b"zebulon-quimby,Qu\xc3\xadmby"),
        ("identity=zebulon-quimby", b'{"zebulon quimby'),
    ],
)
async def test_what_was_asked_for_is_said_to_nobody(
    status: int, query: str, body: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The service quotes it in each of its answers, and the passcode with it."""
    caplog.set_level(logging.DEBUG)
    told = (await asked(status, query, body) + caplog.text).lower()
    assert "/1/some.json" in told or "refused" in told
    for part in ("zebulon", "quimby", "químby", "u00ed", "%c3", "王", "abc-def", "ghil"):
        assert part not in told
