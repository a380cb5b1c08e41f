"""Certificates are verified whatever happens, and a proxy sees a tunnel and nothing else."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from ctbatch.api.pool import tls_context
from ctbatch.api.transport import Transport
from ctbatch.errors import NotSent, ReplyLost, ServiceRefused, SettingsError
from ctbatch.settings import Endpoint
from tests.api.raw_server import RawServer, Script, Talk, ok, relay
from tests.api.test_transport import BODY, HEADERS, upload
from tests.api.test_transport_failures import BIG

HOST = "service.invalid"


@dataclass(frozen=True)
class Authority:
    """A private CA, and its certificate as a user would hand it over."""

    ca: trustme.CA
    file: Path

    def context(self, *names: str, not_after: datetime.datetime | None = None) -> ssl.SSLContext:
        """A server's context with a certificate for ``names``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names, not_after=not_after).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One CA for all tests: keys take time to make."""
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(file))
    return Authority(ca, file)


@pytest.fixture(scope="module")
def good(authority: Authority) -> ssl.SSLContext:
    """A certificate for where the scripted servers listen."""
    return authority.context("127.0.0.1")


def near(server: RawServer, authority: Authority) -> Transport:
    """A transport to a TLS server that trusts the CA of the tests."""
    return over_tls(server.port, authority.file)


def over_tls(port: int, ca_file: Path | None, timeout_s: float = 5.0) -> Transport:
    """A transport to a TLS server here."""
    endpoint = Endpoint(base_url=f"https://127.0.0.1:{port}", ca_file=ca_file)
    return Transport(endpoint, timeout_s=timeout_s)


async def test_a_private_ca_is_trusted_where_it_is_named(
    authority: Authority, good: ssl.SSLContext
) -> None:
    """``--ca-file`` is what makes a service of one's own reachable; connections are reused."""
    async with (
        RawServer(ok, tls=good) as server,
        near(server, authority) as transport,
    ):
        for _ in range(3):
            assert (await upload(transport)).body == b"hi"
        assert transport.statistics().connections == 1
    assert server.requests[0].endswith(BODY)
    assert transport.statistics().open == 0


async def refusal(context: ssl.SSLContext, ca_file: Path | None) -> str:
    """The message when a certificate is refused; nothing may have been sent."""
    async with RawServer(ok, tls=context) as server, over_tls(server.port, ca_file) as transport:
        with pytest.raises(ServiceRefused) as caught:
            await upload(transport)
        assert server.requests == []
        assert transport.statistics().open == 0
    said = str(caught.value)
    assert f"127.0.0.1:{server.port}" in said
    assert "--ca-file" in said
    return said


async def test_an_unknown_ca_is_refused(good: ssl.SSLContext) -> None:
    """Without ``--ca-file`` only the system's CAs count, and the message names the remedy."""
    assert "issuer" in await refusal(good, None)


async def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    """The reason is OpenSSL's, in words."""
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    context = authority.context("127.0.0.1", not_after=past)
    assert "expired" in await refusal(context, authority.file)


async def test_a_certificate_for_another_host_is_refused(authority: Authority) -> None:
    """A valid certificate of somebody else is not valid here."""
    assert "mismatch" in await refusal(authority.context("other.example"), authority.file)


def test_verification_and_version_are_not_negotiable(authority: Authority) -> None:
    """Certificate and host are checked, TLS is 1.2 at least, with or without a CA file."""
    for ca_file in (None, authority.file):
        context = tls_context(ca_file)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("content", "why"), [(None, "cannot be read"), (b"no PEM", "holds no PEM certificate")]
)
async def test_an_unusable_ca_file_is_named(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    """A mistyped path or a file of the wrong kind is told before anything is sent."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"ca\.pem") as caught:
        async with over_tls(1, file):
            pass
    assert why in str(caught.value)


async def hangs_up(talk: Talk) -> None:
    """End the connection in the handshake."""
    await talk.reader.read(100)


async def resets(talk: Talk) -> None:
    """The same with a RST."""
    await talk.reader.read(100)
    talk.reset()


async def talks_http(talk: Talk) -> None:
    """A plain server."""
    await talk.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await talk.hold()


async def alerts(talk: Talk) -> None:
    """Refuse the handshake: alert 40, handshake_failure."""
    await talk.send(b"\x15\x03\x03\x00\x02\x02\x28")
    await talk.hold()


@pytest.mark.parametrize("script", [hangs_up, resets, talks_http, alerts])
async def test_a_failed_handshake_is_not_sent(script: Script, authority: Authority) -> None:
    """TLS that fails for another reason than the certificate may work the next time."""
    async with RawServer(script) as server, near(server, authority) as transport:
        with pytest.raises(NotSent) as caught:
            await upload(transport)
    assert caught.value.result == "tls"


async def test_a_handshake_without_an_end_times_out(authority: Authority) -> None:
    """The connect time-out covers the handshake."""

    async def script(talk: Talk) -> None:
        await talk.hold()

    async with RawServer(script) as server, over_tls(server.port, authority.file, 0.2) as transport:
        with pytest.raises(NotSent) as caught:
            await upload(transport)
    assert caught.value.result == "connect_timeout"


async def test_a_broken_record_after_the_request_is_lost(
    authority: Authority, good: ssl.SSLContext
) -> None:
    """TLS can fail in mid-connection, too, and by then the request is out."""

    arrived = asyncio.Event()

    async def slow(talk: Talk) -> None:
        await talk.request()
        arrived.set()
        await talk.hold()

    async with RawServer(slow, tls=good) as server:

        async def spoiled(talk: Talk) -> None:
            await relay(talk, server.port, spoil=arrived)

        async with RawServer(spoiled) as way, near(way, authority) as transport:
            with pytest.raises(ReplyLost) as caught:
                await upload(transport)
    assert caught.value.result == "tls"


async def test_a_reset_inside_a_tls_request_was_not_sent(
    authority: Authority, good: ssl.SSLContext
) -> None:
    """The same rule as without TLS."""

    async def script(talk: Talk) -> None:
        await talk.reader.readexactly(10)
        talk.reset()

    async with RawServer(script, tls=good) as server, near(server, authority) as transport:
        with pytest.raises(NotSent) as caught:
            await upload(transport, BIG)
    assert caught.value.result == "reset"


async def test_a_stale_tls_connection_has_its_name(
    authority: Authority, good: ssl.SSLContext
) -> None:
    """A kept-alive TLS connection that the server closes under the next request."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await talk.request()

    async with RawServer(script, tls=good) as server, near(server, authority) as transport:
        await upload(transport)
        with pytest.raises(ReplyLost) as caught:
            await upload(transport)
    assert caught.value.result == "stale_connection"


async def test_closing_waits_for_tls_but_not_for_the_other_side(
    authority: Authority, good: ssl.SSLContext
) -> None:
    """A server that never says goodbye holds nobody up, and no socket is left behind."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        talk.reader.feed_data(bytes(1 << 20))  # over its limit: it stops reading
        await asyncio.Event().wait()

    async with RawServer(script, tls=good) as server:
        async with near(server, authority) as transport:
            await upload(transport)
            started = time.monotonic()
        assert time.monotonic() - started < 1
        assert transport.statistics().open == 0


def proxied(proxy: RawServer, authority: Authority) -> Transport:
    """A transport to a host that only the proxy knows."""
    endpoint = Endpoint(base_url=f"https://{HOST}", ca_file=authority.file, proxy=proxy.url)
    return Transport(endpoint, timeout_s=5)


async def test_a_proxy_sees_a_tunnel_and_nothing_else(authority: Authority) -> None:
    """With ``--proxy`` the host is resolved there, TLS goes through, and no header of ours is
    shown to the proxy.
    """
    async with RawServer(ok, tls=authority.context(HOST)) as server:

        async def tunnel(talk: Talk) -> None:
            await talk.request()
            await talk.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await relay(talk, server.port)

        async with RawServer(tunnel) as proxy, proxied(proxy, authority) as transport:
            for _ in range(2):
                assert (await upload(transport)).body == b"hi"
            assert transport.statistics().connections == 1
        assert transport.statistics().open == 0
    assert proxy.requests[0].startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\n".encode())
    assert b"CleverTap" not in proxy.requests[0]
    assert b"aiohttp" not in proxy.requests[0]
    assert f"Host: {HOST}\r\n".encode() in server.requests[0]


async def test_a_proxy_that_shows_a_certificate_of_its_own_is_refused(
    authority: Authority,
) -> None:
    """A gateway that opens TLS is an impostor unless its CA was named."""
    async with RawServer(ok, tls=trustme_stranger()) as server:

        async def tunnel(talk: Talk) -> None:
            await talk.request()
            await talk.send(b"HTTP/1.1 200 OK\r\n\r\n")
            await relay(talk, server.port)

        async with RawServer(tunnel) as proxy, proxied(proxy, authority) as transport:
            with pytest.raises(ServiceRefused, match=HOST):
                await upload(transport)
        assert server.requests == []


def trustme_stranger() -> ssl.SSLContext:
    """A certificate for the right host by a CA that nobody named."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(HOST).configure_cert(context)
    return context


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 403 Forbidden by policy\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
async def test_a_proxy_that_opens_no_tunnel_is_not_sent(reply: bytes, authority: Authority) -> None:
    """Whatever the proxy answers, the service saw nothing of it."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(reply)

    async with RawServer(script) as proxy, proxied(proxy, authority) as transport:
        with pytest.raises(NotSent, match="tunnel") as caught:
            await transport.request("GET", "/1/x", headers=HEADERS)
    assert caught.value.result == "proxy"


async def test_a_proxy_that_wants_a_login_ends_the_run(authority: Authority) -> None:
    """``--proxy`` takes no login, so that a retry cannot help."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 407 Login\r\nContent-Length: 0\r\n\r\n")

    async with RawServer(script) as proxy, proxied(proxy, authority) as transport:
        with pytest.raises(ServiceRefused, match="407"):
            await upload(transport)


async def test_a_proxy_that_is_not_there_is_refused(authority: Authority) -> None:
    """It is the proxy that the message names."""
    async with RawServer() as proxy:
        pass
    async with proxied(proxy, authority) as transport:
        with pytest.raises(NotSent, match=f"127.0.0.1:{proxy.port} refused") as caught:
            await upload(transport)
    assert caught.value.result == "refused"
