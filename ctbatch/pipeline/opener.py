"""Opening replies: decrypt, parse, judge.

Invariants:

1. In a sealed run a 2xx is believed only if its body opens with our key; plaintext never is.
2. The body of any other reply is read in either form: how errors are sent is not documented.
3. Nothing here raises on any bytes, nor parses what could fill the memory.
4. An answer that speaks against us is judged after a look at the key files: they may have been
   replaced, and then it is opened with the new keys, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import orjson

from ctbatch.api.records import is_moderate
from ctbatch.api.transport import Reply
from ctbatch.api.wire import Meaning, Verdict, judge
from ctbatch.api.words import Json
from ctbatch.crypto.hpke import OpeningKeys
from ctbatch.errors import OpenError
from ctbatch.pipeline.keyring import KeyWatch
from ctbatch.pipeline.report.measurements import Measurements

__all__ = ["Opener"]

INLINE_BYTES = 8192
"""Replies up to this size are opened on the event loop: about 0.1 ms, as a hop to a thread is."""


_NOT_ABOUT_KEYS = frozenset({Meaning.BELIEVED, Meaning.THROTTLED, Meaning.TOO_LARGE})


class Opener:
    """Opens the replies of one run; without keys (plaintext mode) it reads them as they are.

    ``secrets`` are cut out of the service's words.
    """

    def __init__(
        self, keys: KeyWatch, measured: Measurements, secrets: Collection[str] = ()
    ) -> None:
        self._keys = keys
        self._secrets = secrets
        self._measured = measured

    async def open(self, reply: Reply, records: int) -> Verdict:
        """Say what a reply to a request with ``records`` records means; a big one in a thread."""
        opening = self._keys.opening
        verdict = await self._verdict(reply, records, opening)
        if verdict.meaning in _NOT_ABOUT_KEYS:
            return verdict
        await self._keys.look()
        if self._keys.opening is opening:
            return verdict
        return await self._verdict(reply, records, self._keys.opening)

    async def _verdict(self, reply: Reply, records: int, keys: OpeningKeys | None) -> Verdict:
        if len(reply.body) <= INLINE_BYTES:
            return self._judge(reply, records, keys)
        return await asyncio.to_thread(self._judge, reply, records, keys)

    def _judge(self, reply: Reply, records: int, keys: OpeningKeys | None) -> Verdict:
        opened, body = self._read(reply, keys)
        retry_after = reply.headers.get("Retry-After")
        return judge(
            reply.status,
            opened=opened,
            body=body,
            records=records,
            retry_after=retry_after,
            secrets=self._secrets,
        )

    def _read(self, reply: Reply, keys: OpeningKeys | None) -> tuple[bool, Json]:
        """Whether the body was readable in the form asked for, and its JSON if there is any."""
        if keys is None:
            return _parse(reply.body)
        try:
            opened = keys.open(reply.body)
        except OpenError:
            return False, _parse(reply.body)[1]
        self._measured.opened(opened.key_id)
        return True, _parse(opened.plaintext)[1]


def _parse(text: bytes) -> tuple[bool, Json]:
    if not is_moderate(text):
        return True, None
    try:
        return True, orjson.loads(text)
    except orjson.JSONDecodeError:
        return False, None
