"""A check looks how far one comes: name, connection, TLS, with a proxy or without."""

from __future__ import annotations

import datetime
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from ctbatch.api.findings import Status, Step
from ctbatch.emulator.server import Emulator
from ctbatch.settings import Endpoint
from tests.api.checking import findings, findings_at, step
from tests.api.raw_server import RawServer, Script, Talk, answer, relay

JSON_401 = b'{"status":"fail","error":"Passcode Invalid","code":401}'


async def nowhere(host: str, port: int) -> list[str]:
    """A resolver that knows nobody."""
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def silent(host: str, port: int) -> list[str]:
    """A resolver that gives up."""
    raise TimeoutError


async def odd(host: str, port: int) -> list[str]:
    """A resolver that is handed what cannot be a name."""
    return [str(b"\xff", "idna")]


@pytest.mark.parametrize(
    ("resolver", "said"),
    [(nowhere, "not known"), (silent, "did not answer in time"), (odd, "can be no such name")],
)
async def test_a_name_that_is_not_known_ends_the_check(resolver: Any, said: str) -> None:
    """Nothing is sent anywhere; every later step is there, as not tried."""
    told = await findings_at("https://nowhere.invalid", addresses=resolver)
    assert said in step(told, Step.DNS).text
    assert {step(told, name).status for name in list(Step)[4:]} == {Status.SKIPPED}


async def test_the_address_that_answers_is_found_among_those_that_do_not() -> None:
    """A dead address is named; the check goes on with the living one."""

    async def two(host: str, port: int) -> list[str]:
        return ["::1", "127.0.0.1"]

    async with Emulator() as emulator:
        told = await findings(emulator, addresses=two)
    assert step(told, Step.TCP).status is Status.OK
    assert "not so [::1]:" in step(told, Step.TCP).text


async def test_nobody_listening_is_told_with_the_systems_words() -> None:
    """Port and address are what the firewall's people ask for."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        told = await findings_at(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert "Connection refused" in step(told, Step.TCP).text
    assert step(told, Step.CREDENTIALS).status is Status.SKIPPED


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    """A private CA, and its certificate as a file."""
    made, file = trustme.CA(), tmp_path_factory.mktemp("ca") / "ca.pem"
    made.cert_pem.write_to_path(str(file))
    return made, file


def server_context(ca: trustme.CA, not_after: datetime.datetime | None = None) -> ssl.SSLContext:
    """What a TLS server needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", not_after=not_after).configure_cert(context)
    return context


unauthorised = answer(
    b"HTTP/1.1 401 Unauthorized\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(JSON_401), JSON_401)
)


async def test_a_trusted_certificate_is_shown(ca: tuple[trustme.CA, Path]) -> None:
    """Version, issuer, and how long it is good for."""
    async with RawServer(unauthorised, tls=server_context(ca[0])) as server:
        endpoint = Endpoint(base_url=f"https://127.0.0.1:{server.port}", ca_file=ca[1])
        told = await findings_at(endpoint)
    found = step(told, Step.TLS)
    assert found.status is Status.OK
    assert found.text.startswith("TLSv1.3, the certificate is valid, issued by trustme")
    assert isinstance(found.facts["expires_in_s"], int)
    assert step(told, Step.CREDENTIALS).status is Status.REMOTE


async def test_a_distrusted_certificate_ends_the_check_before_a_secret_is_sent(
    ca: tuple[trustme.CA, Path],
) -> None:
    """Credentials are for nobody who cannot show who they are."""
    async with RawServer(unauthorised, tls=server_context(ca[0])) as server:
        told = await findings_at(f"https://127.0.0.1:{server.port}")
        assert server.requests == []
    found = step(told, Step.TLS)
    assert found.status is Status.LOCAL
    assert "--ca-file" in found.remedies[0]


async def test_what_speaks_no_tls_and_a_ca_file_that_is_none_are_told_apart(
    tmp_path: Path,
) -> None:
    """One is the wrong port, the other the wrong file."""

    async def slam(talk: Talk) -> None:
        talk.reset()

    async def plain(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    for script in (plain, slam):
        async with RawServer(script) as server:
            told = await findings_at(f"https://127.0.0.1:{server.port}")
        assert "TLS with 127.0.0.1" in step(told, Step.TLS).text
        assert "wrong host or port" in step(told, Step.TLS).remedies[0]
    (tmp_path / "ca.pem").write_text("no certificate")
    async with RawServer(plain) as server:
        endpoint = Endpoint(
            base_url=f"https://127.0.0.1:{server.port}", ca_file=tmp_path / "ca.pem"
        )
        told = await findings_at(endpoint)
    assert "holds no PEM certificate" in step(told, Step.TLS).text


def proxied(port: int, proxy_port: int, ca_file: Path) -> Endpoint:
    """A service that is reached through a proxy; its name means nothing here."""
    return Endpoint(
        base_url=f"https://service.invalid:{port}",
        ca_file=ca_file,
        proxy=f"http://127.0.0.1:{proxy_port}",
    )


def tunnel(port: int) -> Script:
    """A proxy's script: one tunnel to a port, whatever was asked for."""

    async def script(talk: Talk) -> None:
        if not await talk.request():
            return  # somebody only looked whether the port is open
        await talk.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await relay(talk, port)

    return script


async def test_behind_a_proxy_the_first_request_shows_tls(ca: tuple[trustme.CA, Path]) -> None:
    """The proxy's name and port are looked at, the service's are the proxy's to find."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca[0].issue_cert("service.invalid").configure_cert(context)
    async with (
        RawServer(unauthorised, tls=context) as server,
        RawServer(tunnel(server.port)) as proxy,
    ):
        endpoint = proxied(server.port, proxy.port, ca[1])
        told = await findings_at(endpoint)
        assert "through the proxy" in step(told, Step.TLS).text
        assert step(told, Step.CREDENTIALS).status is Status.REMOTE
        told = await findings_at(endpoint, account=None)
        assert "through a proxy it takes a request" in step(told, Step.TLS).text


async def test_a_proxy_that_opens_no_tunnel_is_told_as_such(ca: tuple[trustme.CA, Path]) -> None:
    """It is the way that is broken, not the service."""
    refuse = answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    async with RawServer(refuse) as proxy:
        told = await findings_at(proxied(443, proxy.port, ca[1]))
    found = step(told, Step.TLS)
    assert found.status is Status.LOCAL
    assert "did not open a tunnel" in found.text
    assert step(told, Step.CREDENTIALS).status is Status.SKIPPED


async def test_a_service_that_falls_silent_behind_a_proxy_is_the_services(
    ca: tuple[trustme.CA, Path],
) -> None:
    """The request went out whole: the way is there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca[0].issue_cert("service.invalid").configure_cert(context)

    async def hang_up(talk: Talk) -> None:
        await talk.request()

    async with RawServer(hang_up, tls=context) as server, RawServer(tunnel(server.port)) as proxy:
        told = await findings_at(proxied(server.port, proxy.port, ca[1]))
    assert step(told, Step.TLS).status is Status.SKIPPED
    assert step(told, Step.CREDENTIALS).status is Status.REMOTE
