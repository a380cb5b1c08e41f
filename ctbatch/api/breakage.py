"""What a broken attempt means: foreign exceptions in, one of our errors out, decided without I/O.

Invariants:

1. :class:`~ctbatch.errors.NotSent` is said only while the last byte of the body has not been handed
   to the transport; from then on everything is :class:`~ctbatch.errors.ReplyLost`.
2. A message is composed from the endpoint's host, the system's words for an ``errno`` and OpenSSL's
   names for a reason. Foreign messages are never quoted: aiohttp's hold URLs with their query,
   request headers and bytes of the reply.

``result`` keys are counted in the report and are stable:

==================== ===============================================================================
``refused``          nobody listens there
``dns``              the host has no address
``unreachable``      no route, or any other reason of the system's
``connect_timeout``  no connection (name, TCP, proxy and TLS handshake) in time
``tls``              the TLS handshake, or TLS later on, failed; not because of a certificate
``proxy``            the proxy would not, or could not, open the tunnel
``stale_connection`` a kept-alive connection was closed before any answer
``closed``           a new connection was closed before any answer
``reset``            the connection broke
``timeout``          the attempt took longer than it may
``truncated``        the reply ended early
``oversized``        the reply was larger than an honest one can be
``malformed_http``   the reply was not HTTP
``early_reply``      success, or nothing certain, was said before the whole request could be there
``broken``           anything else; a test keeps this empty for what aiohttp can raise
==================== ===============================================================================
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from ctbatch.errors import CtbatchError, NotSent, ReplyLost, ServiceRefused, SettingsError

__all__ = ["FATAL_PROXY_STATUS", "Attempt", "Stage", "redirected", "result_of"]

FATAL_PROXY_STATUS = 407
"""The proxy wants a login: ``--proxy`` takes none, so no retry can help."""

_OURS = "ours"
_CERTIFICATE = "certificate"

# Most specific first: the first row that fits is the answer.
_RESULTS: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, _CERTIFICATE),
    (aiohttp.ServerFingerprintMismatch, _CERTIFICATE),
    (ssl.SSLCertVerificationError, _CERTIFICATE),
    (aiohttp.InvalidURL, _OURS),
    (aiohttp.NonHttpUrlClientError, _OURS),
    (aiohttp.ClientConnectorDNSError, "dns"),
    (aiohttp.ClientSSLError, "tls"),
    (ssl.SSLError, "tls"),
    (TimeoutError, "timeout"),
    (aiohttp.ClientHttpProxyError, "proxy"),
    (aiohttp.ClientResponseError, "malformed_http"),
    (HttpProcessingError, "malformed_http"),
    (aiohttp.ClientPayloadError, "truncated"),
    (aiohttp.ServerDisconnectedError, "closed"),
    (ConnectionRefusedError, "refused"),
    (ConnectionError, "reset"),
    (aiohttp.ClientConnectorError, "unreachable"),
    (aiohttp.ClientConnectionError, "reset"),
    (OSError, "reset"),
    (ValueError, _OURS),
)

_WORDS = {
    "closed": "{peer} closed the connection without an answer",
    "connect_timeout": "no connection to {peer} in time",
    "dns": "{peer} has no address",
    "malformed_http": "what {host} answered is not HTTP",
    "proxy": "{peer} did not open a tunnel to {host}",
    "refused": "{peer} refused the connection",
    "reset": "the connection to {peer} broke",
    "stale_connection": "{peer} had closed the kept-alive connection",
    "timeout": "{host} did not answer in time",
    "tls": "TLS with {host} failed",
    "truncated": "the reply of {host} ended early",
    "unreachable": "{peer} cannot be reached",
}


class Stage(StrEnum):
    """How far an attempt came."""

    CONNECTING = "connecting"
    WAITING = "waiting"  # for the reply, sending meanwhile
    READING = "reading"  # the head of the reply is there


@dataclass(slots=True)
class Attempt:
    """One request on its way; how far it came decides what a failure means.

    ``peer`` is whom we connect to: the ``host``, or the proxy in front of it.
    """

    host: str
    peer: str
    secure: bool
    stage: Stage = Stage.CONNECTING
    reused: bool = False
    handed_over: bool = False

    def broken(self, result: str, why: str) -> CtbatchError:
        """The error for a break that was found here, on our side."""
        if self.handed_over and self.stage is not Stage.CONNECTING:
            return ReplyLost(result, why)
        return NotSent(result, why)

    def failure(self, error: BaseException) -> CtbatchError:
        """The error for a foreign exception."""
        result = result_of(type(error))
        if result == _CERTIFICATE:
            return self._distrusted(error)
        if result == _OURS:
            return SettingsError("the request", "has a URL or header that HTTP cannot carry")
        if result == "proxy" and getattr(error, "status", None) == FATAL_PROXY_STATUS:
            return ServiceRefused(
                f"the proxy {self.peer} asks for a login (407), and --proxy takes none",
                ("another proxy is meant for programs: ask whoever runs it",),
            )
        if self.stage is Stage.CONNECTING:
            result = self._while_connecting(result, error)
        else:
            result = self._while_exchanging(result, error)
        words = _WORDS.get(result, "the connection to {peer} broke")
        return self.broken(
            result, words.format(host=self.host, peer=self.peer) + _detail(result, error)
        )

    def _while_connecting(self, result: str, error: BaseException) -> str:
        """Nothing has been sent; whose fault it is may lie in the cause."""
        if result == "timeout":
            return "connect_timeout"
        if self.peer != self.host and result in {"malformed_http", "closed", "truncated"}:
            return "proxy"
        if result != "unreachable":
            return result
        causes = tuple(_causes(error))
        if any(getattr(cause, "errno", None) == errno.ECONNREFUSED for cause in causes):
            return "refused"
        # The connection stood, or it would have been refused: what broke is the handshake.
        if any(isinstance(cause, ConnectionError) for cause in causes):
            return "tls" if self.secure else "reset"
        return result

    def _while_exchanging(self, result: str, error: BaseException) -> str:
        """aiohttp flattens some errors; what it was stands in the cause."""
        causes = tuple(_causes(error))
        if result in {"reset", "truncated"} and _any(causes, ssl.SSLError):
            result = "tls"
        elif result == "truncated" and _any(causes, HttpProcessingError) and not _cut(causes):
            result = "malformed_http"
        elif result == "closed" and not isinstance(getattr(error, "message", ""), str):
            return "truncated"  # part of a head came
        if self.reused and self.stage is Stage.WAITING and result in {"closed", "reset"}:
            return "stale_connection"
        return result

    def _distrusted(self, error: BaseException) -> ServiceRefused:
        """A certificate that is not valid ends the run: sending on could feed an impostor."""
        why = _first(error, "verify_message") or "it could not be verified"
        return ServiceRefused(
            f"the TLS certificate shown for {self.host} is not valid: {str(why).rstrip('.')}",
            (
                "a gateway on the way shows a certificate of its own: pass its CA with --ca-file",
                "the host in --region or --base-url is not the one that is meant",
                "this machine's clock or its store of CA certificates is out of date",
            ),
        )


def result_of(kind: type[BaseException]) -> str:
    """The row of the table for a type of exception."""
    for known, result in _RESULTS:
        if issubclass(kind, known):
            return result
    return "broken"


def redirected(host: str, status: int, target: str | None) -> ServiceRefused:
    """The error for a redirect to ``target``, of which only the host is shown."""
    where = f" to {target}" if target else ""
    return ServiceRefused(
        f"{host} answered {status}, a redirect{where}; redirects are never followed",
        (
            "the region or the base URL is wrong",
            "a proxy or a login page on the way answers in the service's place",
        ),
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception, what it wraps, and what caused it."""
    while error is not None:
        yield error
        wrapped = getattr(error, "os_error", None)
        if isinstance(wrapped, BaseException):
            yield wrapped
        error = error.__cause__


def _first(error: BaseException, attribute: str) -> object:
    """The attribute where it is set: aiohttp's own kinds of OpenSSL's errors lack them all."""
    said = (getattr(cause, attribute, None) for cause in _causes(error))
    return next((value for value in said if value), None)


def _any(causes: tuple[BaseException, ...], kind: type[BaseException]) -> bool:
    return any(isinstance(cause, kind) for cause in causes)


def _cut(causes: tuple[BaseException, ...]) -> bool:
    """Whether the parser missed bytes (the end came early) rather than disliked them."""
    return any(type(c).__name__ in {"ContentLengthError", "TransferEncodingError"} for c in causes)


def _detail(result: str, error: BaseException) -> str:
    """OpenSSL's, the system's or the proxy's reason, where it says more than the result."""
    said: object = None
    if result == "tls":
        said = _first(error, "reason")
    elif result == "proxy" and (status := _first(error, "status")):
        said = f"it answered {status}"
    elif result == "unreachable" and isinstance(number := _first(error, "errno"), int):
        said = os.strerror(number)
    return f" ({said})" if said else ""
