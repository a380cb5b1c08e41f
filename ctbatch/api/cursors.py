"""Downloads: the records that a query finds, page by page, as a cursor leads through them.

Invariants:

1. A cursor goes back exactly as it was received: it is already percent-encoded, and encoding it
   again makes another one.
2. A page is handed over whole or not at all, and the cursor moves on only after that. A page that
   got lost is asked for again with the same cursor, which gives the same page: no record is lost
   and none comes twice.
3. :attr:`Download.cursor` is where to go on, at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from ctbatch.api.asking import Asker, refusal_of
from ctbatch.api.queries import Heard, Page, Sense, cursor_of, page_of
from ctbatch.errors import CursorExpired, CursorRefused, ServiceRefused

__all__ = ["Download"]

_FOREIGN_CURSOR = (
    "the cursor is of another account or query, or was altered: make the query again, into a new "
    "file"
)
_OWN_CURSOR = "the cursor was the service's own: make the query again, into a new file"


class Download:
    """An async iterator over records: each is the bytes of one JSON object, as they came.

    ``query`` and ``body`` are those of the request for a cursor; where there is a ``cursor``, it is
    gone on from there. Do not read one download twice at a time: the service does not support it.
    """

    def __init__(
        self,
        asker: Asker,
        path: str,
        *,
        query: str = "",
        body: bytes | None = None,
        cursor: str | None = None,
    ) -> None:
        self._asker = asker
        self._path = path
        self._query = query
        self._body = body
        self._brought = cursor
        self.cursor = cursor
        """Where to go on; ``None`` before the query was made, and at the end."""
        self._ended = False
        self._seen: set[bytes] = set()
        """Digests of the cursors that were followed: one that comes round again has no end."""

    def __repr__(self) -> str:
        state = "at its end" if self._ended else "under way" if self.cursor else "not begun"
        return f"<Download from {self._path}, {state}>"

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The records from where it stands."""
        return self._records()

    async def open(self) -> str:
        """Make the query, unless that was done; returns the cursor. Raises as :meth:`pages`."""
        if self.cursor is None:
            heard = await self._asker.ask("POST", self._path, query=self._query, body=self._body)
            self._check(heard, "query")
            self.cursor = cursor_of(heard)
            if self.cursor is None:
                raise _unreadable(self._path, "no cursor that could be sent back")
        return self.cursor

    async def pages(self) -> AsyncGenerator[Page, None]:
        """The pages from where it stands. Slow pages are waited for.

        Raises:
            CursorExpired: it has to be begun again.
            CursorRefused: the same; also where a cursor comes round again.
            ServiceRefused: the query or we are refused, or the answers are not to be believed.
            ServiceUnavailable: no usable answer for too long; :attr:`cursor` goes on.
        """
        while not self._ended:
            cursor = await self.open()
            heard = await self._asker.ask("GET", self._path, query=f"cursor={cursor}")
            self._check(heard, "cursor")
            page = page_of(cursor, heard)
            if page is None:
                raise _unreadable(self._path, "a page that is none")
            yield page
            self._seen.add(_digest(cursor))
            if page.next_cursor is not None and _digest(page.next_cursor) in self._seen:
                what = f"the service answered {self._path} with a cursor that was followed before"
                raise CursorRefused(what, ("going on would read the same pages over and over",))
            self.cursor = page.next_cursor
            self._ended = page.next_cursor is None

    async def _records(self) -> AsyncIterator[bytes]:
        async with aclosing(self.pages()) as pages:
            async for page in pages:
                for record in page.records:
                    yield record

    def _check(self, heard: Heard, what: str) -> None:
        if heard.sense is Sense.ANSWER:
            return
        if heard.sense is Sense.EXPIRED:
            raise CursorExpired(self._path)
        refusal = refusal_of(heard, what, sealed=self._asker.sealed)
        if what == "cursor" and not refusal.causes:
            cause = _FOREIGN_CURSOR if self.cursor == self._brought else _OWN_CURSOR
            raise CursorRefused(refusal.what, (cause,))
        raise refusal


def _digest(cursor: str) -> bytes:
    return hashlib.blake2b(cursor.encode(), digest_size=16).digest()


def _unreadable(path: str, what: str) -> ServiceRefused:
    return ServiceRefused(f"the service answered {path} with {what}")
