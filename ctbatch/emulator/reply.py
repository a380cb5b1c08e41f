"""What goes back, and how a fault spoils it. Sans I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import orjson

from ctbatch.api.wire import HPKE_MEDIA_TYPE, JSON_MEDIA_TYPE
from ctbatch.emulator import verdicts
from ctbatch.emulator.envelope import Refused, malformed

__all__ = [
    "Fate",
    "Refusal",
    "Reply",
    "error_reply",
    "instead_of",
    "json_reply",
    "spoil",
    "verdict",
]

_HTML: Final = (
    "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"
)
_GATEWAY: Final = {
    "502": "502 Bad Gateway",
    "503": "503 Service Temporarily Unavailable",
    "504": "504 Gateway Time-out",
}
_ERRORS: Final = {
    "400": malformed(),
    "401": Refused(401, "Account ID is not valid"),
    "403": Refused(403, "Operation not allowed"),
    "404": Refused(404, "Resource not found"),
    "408": Refused(408, "Request timeout"),
    "413": Refused(413, "Request entity too large"),
    "429": Refused(429, "Too many concurrent requests", retry_later=True),
    "500": Refused(500, "Internal server error"),
    "503-json": Refused(503, "Service unavailable, please retry later", retry_later=True),
}


class Fate(StrEnum):
    """What happens to the connection."""

    SENT = "sent"
    RESET = "reset"
    CUT = "cut"
    HUNG = "hung"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer on its way: its body may hold personal data."""

    status: int
    body: bytes = field(default=b"", repr=False)
    media_type: str = f"{JSON_MEDIA_TYPE};charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    fate: Fate = Fate.SENT
    close: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record the service did not take: its 0-based place, code and echo."""

    index: int
    code: int
    echo: object = field(repr=False)


def json_reply(status: int, value: object) -> Reply:
    """A reply in the clear."""
    return Reply(status, orjson.dumps(value))


def instead_of(met: Set[str], retry_after: str) -> Reply | None:
    """The reply of a fault that strikes instead of acting, if one does."""
    for name in met:
        if name in _GATEWAY:
            page = _HTML.format(_GATEWAY[name]).encode()
            return Reply(int(name), page, "text/html")
        if name in _ERRORS:
            return error_reply(_ERRORS[name], retry_after)
        if name == "redirect":
            return Reply(307, headers={"Location": "/1/elsewhere"})
    return None


def error_reply(error: Refused, retry_after: str) -> Reply:
    """The reply to a refused call, in the clear; ``retry_after`` is a header's value or empty."""
    headers = {"Retry-After": retry_after} if retry_after and error.retry_later else {}
    return replace(json_reply(error.status, error.body), headers=headers)


def verdict(
    records: int, refusals: Sequence[Refusal], met: Set[str] = frozenset()
) -> dict[str, Any]:
    """The documented answer to an upload, or what a fault of the verdict makes of it."""
    processed = records - len(refusals)
    status = "success" if not refusals else "partial" if processed else "fail"
    return {
        "status": status,
        "processed": processed + ("counts" in met),
        "unprocessed": [
            {
                "status": "fail",
                "code": refusal.code,
                "error": verdicts.words(refusal.code, number),
                "record": refusal.echo,
            }
            for refusal, number in zip(
                refusals, _numbers([r.index + 1 for r in refusals], records, met), strict=True
            )
        ],
    }


def _numbers(numbers: list[int], records: int, met: Set[str]) -> list[int | None]:
    if "number-missing" in met:
        return [None] * len(numbers)
    if "number-repeated" in met:
        return [numbers[0]] * len(numbers) if numbers else []
    if "number-range" in met:
        return [n + records for n in numbers]
    return list(numbers)


def spoil(
    reply: Reply,
    met: Set[str],
    *,
    plain: bytes,
    foreign: Callable[[bytes], bytes],
    rng: random.Random,
) -> Reply:
    """The reply after the faults of its way back. ``plain`` is its body in the clear; ``foreign``
    seals with somebody else's key.
    """
    if "plaintext" in met:
        reply = json_reply(reply.status, None)
        reply = replace(reply, body=plain)
    if "garbage" in met:
        reply = replace(reply, body=rng.randbytes(max(64, len(reply.body))))
    if "foreign-key" in met:
        reply = replace(reply, body=foreign(plain), media_type=HPKE_MEDIA_TYPE)
    if "empty" in met:
        reply = replace(reply, body=b"")
    if "truncated" in met:
        reply = replace(reply, body=reply.body[: len(reply.body) // 2])
    if "reset-mid" in met:
        reply = replace(reply, fate=Fate.CUT)
    return reply
