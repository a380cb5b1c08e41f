"""What exceptions mean, without a network: nothing foreign is left without a name."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator

import aiohttp
import pytest

from ctbatch.api.breakage import Attempt, Stage, result_of
from ctbatch.errors import NotSent, ReplyLost, SettingsError


def tree(root: type[BaseException]) -> Iterator[type[BaseException]]:
    """A class and everything under it that aiohttp defines."""
    yield root
    for kind in root.__subclasses__():
        if kind.__module__.startswith("aiohttp"):
            yield from tree(kind)


NEVER = {
    "ClientError",  # the root: never raised itself
    "RedirectClientError",  # nothing is followed
    "UploadAbortedError",  # for upload trackers, which are not used
}


@pytest.mark.parametrize("kind", sorted(set(tree(aiohttp.ClientError)), key=repr))
def test_everything_aiohttp_raises_has_a_name(kind: type[BaseException]) -> None:
    """A new exception in a new aiohttp fails here before it surprises anybody."""
    assert (result_of(kind) == "broken") == (kind.__name__ in NEVER)


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        (asyncio.TimeoutError, "timeout"),
        (ssl.SSLError, "tls"),
        (ssl.SSLEOFError, "tls"),
        (ssl.SSLZeroReturnError, "tls"),
        (ssl.SSLCertVerificationError, "certificate"),
        (ssl.CertificateError, "certificate"),
        (ConnectionResetError, "reset"),
        (BrokenPipeError, "reset"),
        (ConnectionRefusedError, "refused"),
        (socket.gaierror, "reset"),  # aiohttp wraps it: see the row of ClientConnectorDNSError
        (aiohttp.ConnectionTimeoutError, "timeout"),
        (aiohttp.ClientConnectorCertificateError, "certificate"),
        (aiohttp.ClientConnectorSSLError, "tls"),
        (aiohttp.ClientConnectorDNSError, "dns"),
        (aiohttp.ClientConnectionResetError, "reset"),
        (aiohttp.InvalidUrlClientError, "ours"),
        (UnicodeError, "ours"),
    ],
)
def test_the_names_of_what_python_raises(kind: type[BaseException], result: str) -> None:
    """TLS, time-outs, sockets and bad URLs, as Python and aiohttp raise them."""
    assert result_of(kind) == result


def test_an_unknown_failure_still_says_what_may_have_happened() -> None:
    """Even what has no name is either not sent or lost."""
    attempt = Attempt("host", "host", secure=True)
    error = attempt.failure(aiohttp.ClientError("secret"))
    assert isinstance(error, NotSent)
    assert error.result == "broken"
    assert "secret" not in str(error)
    attempt.stage = Stage.WAITING
    attempt.handed_over = True
    assert isinstance(attempt.failure(aiohttp.ClientError()), ReplyLost)
    ours = attempt.failure(ValueError("secret"))
    assert isinstance(ours, SettingsError)
    assert "secret" not in str(ours)
