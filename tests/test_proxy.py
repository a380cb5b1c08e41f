"""The fault proxy does what it says, and what the service behind it saw is known."""

from __future__ import annotations

import ssl
from collections import Counter
from pathlib import Path

import pytest
import trustme

from ctbatch.api.transport import Reply, Transport
from ctbatch.errors import NotSent, ReplyLost, TransportError
from ctbatch.settings import Endpoint
from tests.api.raw_server import OK, RawServer, Talk, answer
from tests.proxy import Fault, FaultProxy, Kind, weather

BODY = bytes(range(256)) * 40
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"


async def upload(transport: Transport, body: bytes = BODY) -> Reply:
    """One request through the proxy."""
    return await transport.request(
        "POST", "/1/upload", query="a=b", headers={"X-Y": "z"}, body=body
    )


def to(proxy: FaultProxy, ca_file: Path | None = None, timeout_s: float = 5.0) -> Transport:
    """A client of the proxy."""
    return Transport(Endpoint(base_url=proxy.url, ca_file=ca_file), timeout_s=timeout_s)


@pytest.mark.parametrize("reply", [OK, CHUNKED], ids=["length", "chunks"])
async def test_without_a_fault_everything_passes(reply: bytes) -> None:
    """Requests arrive as they were sent, replies as they were given, connections are kept."""
    async with (
        RawServer(answer(reply)) as server,
        FaultProxy(server.url) as proxy,
        to(proxy) as transport,
    ):
        for _ in range(3):
            got = await upload(transport)
            assert (got.status, got.body) == (200, b"hi")
        await transport.request("GET", "/1/x", headers={})
        assert transport.statistics().connections == 1
        assert proxy.played == Counter({Kind.NONE: 4})
    assert server.requests[0].startswith(b"POST /1/upload?a=b HTTP/1.1\r\n")
    assert b"X-Y: z\r\n" in server.requests[0]
    assert server.requests[0].endswith(b"\r\n\r\n" + BODY)


LOST = [
    (Fault(Kind.RESET_REQUEST, at=10**9), "reset"),
    (Fault(Kind.RESET_REPLY, at=0), "reset"),
    (Fault(Kind.RESET_REPLY, at=20), "reset"),
    (Fault(Kind.TRUNCATE, at=0), "closed"),
    (Fault(Kind.TRUNCATE, at=20), "truncated"),
    (Fault(Kind.TRUNCATE, at=len(OK) - 1), "truncated"),
    (Fault(Kind.LONG_LENGTH, at=5), "truncated"),
    (Fault(Kind.SHORT_LENGTH, at=0), "malformed_http"),
    (Fault(Kind.SHORT_LENGTH, at=99), "malformed_http"),
    (Fault(Kind.GARBAGE), "malformed_http"),
    (Fault(Kind.SWALLOW_REPLY), "timeout"),
]


@pytest.mark.parametrize(("fault", "result"), LOST)
async def test_replies_are_lost_after_the_service_acted(fault: Fault, result: str) -> None:
    """The service had the whole request, and the client cannot know."""
    async with (
        RawServer(answer(OK)) as server,
        FaultProxy(server.url, script=[fault]) as proxy,
        to(proxy, timeout_s=0.3) as transport,
    ):
        with pytest.raises(ReplyLost) as caught:
            await upload(transport)
        assert caught.value.result == result
        assert len(server.requests) == 1
        assert (await upload(transport)).body == b"hi"  # and the next request is well
        assert proxy.played == Counter({fault.kind: 1, Kind.NONE: 1})


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Kind.RESET_REQUEST, at=0),
        Fault(Kind.RESET_REQUEST, at=2000),
        Fault(Kind.SWALLOW_REQUEST),
        Fault(Kind.TLS_FAILURE),
    ],
)
async def test_requests_are_stopped_before_the_service(fault: Fault) -> None:
    """The service saw nothing; the client knows it only where it could not send everything."""
    async with (
        RawServer(answer(OK)) as server,
        FaultProxy(server.url, script=[fault]) as proxy,
        to(proxy, timeout_s=0.3) as transport,
    ):
        with pytest.raises(TransportError):
            await upload(transport)
        assert server.requests == []


async def test_a_request_that_does_not_fit_is_known_not_to_be_sent() -> None:
    """A reset at byte 50,000 of thirty million."""
    async with (
        RawServer(answer(OK)) as server,
        FaultProxy(server.url, script=[Fault(Kind.RESET_REQUEST, at=50_000)]) as proxy,
        to(proxy) as transport,
    ):
        with pytest.raises(NotSent):
            await upload(transport, bytes(30_000_000))
    assert server.requests == []


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        (Fault(Kind.LATENCY, seconds=0.05), b"hi"),
        (Fault(Kind.TRICKLE), b"hi"),
        (Fault(Kind.PLAINTEXT_200, at=7), b'{"status":"success","processed":7,"unprocessed":[]}'),
    ],
)
async def test_some_faults_look_like_replies(fault: Fault, body: bytes) -> None:
    """Late, slow or a lie: HTTP alone cannot tell, and the next reply is not mixed up."""
    async with (
        RawServer(answer(OK)) as server,
        FaultProxy(server.url, script=[fault]) as proxy,
        to(proxy) as transport,
    ):
        got = await upload(transport)
        assert (got.status, got.body) == (200, body)
        assert got.elapsed_s >= fault.seconds
        assert (await upload(transport)).body == b"hi"
    assert len(server.requests) == (1 if fault.kind is Kind.PLAINTEXT_200 else 2)


@pytest.mark.parametrize("said", [b"", OK[:30], OK[:-1], CHUNKED[:-8]])
async def test_what_the_service_cuts_short_stays_cut(said: bytes) -> None:
    """The proxy mends nothing."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(said)

    async with RawServer(script) as server, FaultProxy(server.url) as proxy, to(proxy) as transport:
        with pytest.raises(ReplyLost):
            await upload(transport)


async def test_tls_is_spoken_and_spoiled(tmp_path: Path) -> None:
    """With a certificate it is an HTTPS server; a failed handshake reaches no service."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    script = [Fault(Kind.TLS_FAILURE), Fault(), Fault(Kind.RESET_REPLY), Fault()]
    async with (
        RawServer(answer(OK)) as server,
        FaultProxy(server.url, script=script, tls=context) as proxy,
        to(proxy, tmp_path / "ca.pem") as transport,
    ):
        with pytest.raises(NotSent, match="tls"):
            await upload(transport)
        assert (await upload(transport)).body == b"hi"
        with pytest.raises(ReplyLost):
            await upload(transport)
        assert (await upload(transport)).body == b"hi"
    assert len(server.requests) == 3
    assert proxy.played == Counter({Kind.NONE: 2, Kind.TLS_FAILURE: 1, Kind.RESET_REPLY: 1})


def test_weather_is_the_same_for_the_same_seed() -> None:
    """A failed run can be run again; the share of bad requests is what was asked for."""
    faults = [weather(1, 0.2)(n) for n in range(2000)]
    assert faults == [weather(1, 0.2)(n) for n in range(2000)]
    assert faults != [weather(2, 0.2)(n) for n in range(2000)]
    bad = [fault for fault in faults if fault.kind is not Kind.NONE]
    assert 0.15 < len(bad) / len(faults) < 0.25
    assert {fault.kind for fault in bad} == set(Kind) - {Kind.NONE}


@pytest.mark.parametrize("seed", range(2))
async def test_nothing_hangs_or_leaks_in_bad_weather(seed: int) -> None:
    """Every attempt ends as a reply or as a named failure, and what was not sent did not arrive."""
    async with (
        RawServer(answer(OK)) as server,
        FaultProxy(server.url, script=weather(seed, 0.6)) as proxy,
        to(proxy, timeout_s=0.15) as transport,
    ):
        for number in range(25):
            mark = b"<%d>" % number
            try:
                assert (await upload(transport, mark * 2000)).status == 200
            except NotSent:
                assert not any(mark in request for request in server.requests)
            except ReplyLost:
                pass
    assert 0 < proxy.requests == proxy.played.total() <= 25  # some broke before they came here
