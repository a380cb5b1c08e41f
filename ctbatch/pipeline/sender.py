"""One attempt to put a sealed batch on the wire: post it, time it, count it.

Deciding what an attempt means, and whether there is another, is not done here; nor is sealing.
"""

from __future__ import annotations

from collections.abc import Mapping

from ctbatch.api.transport import Reply, Transport
from ctbatch.api.wire import UPLOAD_PATH
from ctbatch.models import SealedBatch
from ctbatch.notices import Live
from ctbatch.pipeline.report.measurements import Measurements

__all__ = ["Sender"]


class Sender:
    """Posts to ``/1/upload``; ``query`` is sent as it stands (``dryRun=1``)."""

    def __init__(
        self,
        transport: Transport,
        headers: Mapping[str, str],
        live: Live,
        measured: Measurements,
        *,
        query: str = "",
    ) -> None:
        self._transport = transport
        self._headers = headers
        self._live = live
        self._measured = measured
        self._query = query

    async def post(self, sealed: SealedBatch, *, fresh: bool) -> Reply:
        """Make one attempt; ``fresh`` wants a new or just-used connection.

        Raises:
            NotSent: it cannot have been acted on.
            ReplyLost: it may have been.
            ServiceRefused: a redirect, or a certificate that is not valid.
        """
        self._live.in_flight += 1
        self._live.attempts += 1
        self._measured.sealed(len(sealed.body))
        self._measured.in_flight(self._live.in_flight)
        try:
            return await self._transport.request(
                "POST",
                UPLOAD_PATH,
                query=self._query,
                headers=self._headers,
                body=sealed.body,
                fresh=fresh,
            )
        finally:
            self._live.in_flight -= 1
