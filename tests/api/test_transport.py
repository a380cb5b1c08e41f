"""What goes out and what comes back: exact bytes, reuse, bounds, and the end of connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from ctbatch import __version__
from ctbatch.api.pool import JUST_USED_S
from ctbatch.api.transport import Reply, Transport
from ctbatch.errors import NotSent, ReplyLost, ServiceRefused, SettingsError
from ctbatch.settings import Endpoint
from tests.api.raw_server import OK, RawServer, Script, Talk, answer, ok

HEADERS = {
    "X-CleverTap-Account-Id": "TEST-1",
    "X-CleverTap-Passcode": "hunter2-hunter2",
    "Content-Type": "application/octet-stream+hpke",
    "Accept": "application/octet-stream+hpke",
}
BODY = bytes(range(256)) * 400
"""About the size of a sealed batch, and longer than any buffer that is written at once."""


def to(server: RawServer, timeout_s: float = 5.0) -> Transport:
    """A transport to a scripted server."""
    return Transport(Endpoint(base_url=server.url), timeout_s=timeout_s)


async def upload(transport: Transport, body: bytes = BODY, *, fresh: bool = False) -> Reply:
    """One upload."""
    return await transport.request("POST", "/1/upload", headers=HEADERS, body=body, fresh=fresh)


async def test_a_request_goes_out_exactly_as_the_vendor_documents_it() -> None:
    """Both HPKE headers, both account headers in clear, a raw body with Content-Length, and nothing
    that was not asked for.
    """
    async with RawServer(ok) as server, to(server) as transport:
        await upload(transport)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /1/upload HTTP/1.1"
    assert set(lines[1:]) == {
        f"Host: 127.0.0.1:{server.port}",
        "X-CleverTap-Account-Id: TEST-1",
        "X-CleverTap-Passcode: hunter2-hunter2",
        "Content-Type: application/octet-stream+hpke",
        "Accept: application/octet-stream+hpke",
        "Accept-Encoding: identity",
        f"User-Agent: ctbatch/{__version__}",
        f"Content-Length: {len(BODY)}",
    }
    assert body == BODY


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 66_560, 66_561, 3_000_000])
async def test_bodies_of_any_size_arrive_whole(size: int) -> None:
    """The cut before the last bytes falls everywhere without losing or repeating one."""
    body = (BODY * (size // len(BODY) + 1))[:size]
    async with RawServer(ok) as server, to(server) as transport:
        await upload(transport, body)
    assert server.requests[0].partition(b"\r\n\r\n")[2] == body


async def test_a_request_without_a_body_has_none() -> None:
    """A look-up is a plain GET; an empty POST says that it is empty."""
    async with RawServer(ok) as server, to(server) as transport:
        await transport.request("GET", "/1/profile.json", headers={})
        await transport.request("POST", "/1/x", headers={}, body=b"")
    assert b"Content-" not in server.requests[0]
    assert b"Content-Length: 0\r\n" in server.requests[1]
    assert b"Content-Type" not in server.requests[1]


async def test_a_query_goes_out_byte_for_byte() -> None:
    """A cursor goes back exactly as it was received, whatever it looks like."""
    query = "cursor=%2b%2B+a/b==&x=%zz&y=%E2%9C%93&a=b&a=b&;"
    async with RawServer(ok) as server, to(server) as transport:
        await transport.request("GET", "/1/a/../b%2f.json", query=query, headers={})
    assert server.requests[0].startswith(f"GET /1/a/../b%2f.json?{query} HTTP/1.1\r\n".encode())


async def test_the_path_of_a_base_url_is_kept() -> None:
    """A base URL may have a path: a gateway of one's own."""
    async with RawServer(ok) as server:
        endpoint = Endpoint(base_url=f"{server.url}/gate/")
        async with Transport(endpoint, timeout_s=5) as transport:
            await transport.request("GET", "/1/x", headers={})
    assert server.requests[0].startswith(b"GET /gate/1/x HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("path", "query", "headers"),
    [
        ("1/upload", "", {}),
        ("/1/up load", "", {}),
        ("/1/x?y=1", "", {}),
        ("/1/é", "", {}),
        ("/1/x\r\nHost: evil", "", {}),
        ("/1/x", "a b", {}),
        ("/1/x", "a#b", {}),
        ("/1/x", "", {"X-Y": "a\r\nHost: evil"}),
        ("/1/x", "", {"X-Y": "a\x00b"}),
    ],
)
async def test_what_http_cannot_carry_is_refused(
    path: str, query: str, headers: dict[str, str]
) -> None:
    """Nothing can be smuggled into a request, and what was tried is not repeated in the message."""
    async with RawServer(ok) as server, to(server) as transport:
        with pytest.raises(SettingsError) as caught:
            await transport.request("GET", path, query=query, headers=headers)
    assert "evil" not in str(caught.value)
    assert server.requests == []


async def test_a_reply_is_what_the_service_said() -> None:
    """Status, body, media type, the few headers that are read (in any case), and the time."""
    head = b"HTTP/1.1 429 No\r\nRetry-After: 7\r\nSet-Cookie: a=b\r\ncontent-type: Text/X ;q=1\r\n"
    async with RawServer(answer(head + b"Content-Length: 3\r\n\r\nabc")) as server:
        # By name: a cookie jar, if there were one, would keep no cookie for an address.
        endpoint = Endpoint(base_url=f"http://localhost:{server.port}")
        async with Transport(endpoint, timeout_s=5) as transport:
            first = await upload(transport)
            await upload(transport)
    assert (first.status, first.body, first.content_type) == (429, b"abc", "text/x")
    assert first.headers["RETRY-after"] == "7"
    assert "Set-Cookie" not in first.headers
    assert 0 < first.elapsed_s < 5
    assert "abc" not in repr(first)
    assert b"Cookie" not in server.requests[1]


def chunked(talk_reply: bytes) -> bytes:
    """The same body in chunks of three bytes."""
    parts = [talk_reply[i : i + 3] for i in range(0, len(talk_reply), 3)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


HEAD = b"HTTP/1.1 200 OK\r\n"
HONEST = {
    "with a length": OK,
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"hi"),
    "closed after": HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi",
    "ended by closing": HEAD + b"Connection: close\r\n\r\nhi",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhi",
    "after 100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
}


@pytest.mark.parametrize("slowly", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("reply", HONEST.values(), ids=HONEST.keys())
async def test_honest_replies_of_every_form_are_read(reply: bytes, slowly: bool) -> None:
    """Length, chunks, closing, HTTP/1.0; in one piece or one byte at a time."""

    closes = b"close" in reply or reply.startswith(b"HTTP/1.0")

    async def script(talk: Talk) -> None:
        while await talk.request():
            for byte in [reply[i : i + 1] for i in range(len(reply))] if slowly else [reply]:
                await talk.send(byte)
                await asyncio.sleep(0)
            if closes:
                return

    async with RawServer(script) as server, to(server) as transport:
        for _ in range(2):
            assert (await upload(transport)).body == b"hi"


async def test_a_bomb_is_not_decompressed() -> None:
    """Nothing is decompressed, whatever the reply says of itself."""
    reply = HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"
    async with RawServer(answer(reply)) as server, to(server) as transport:
        got = await upload(transport)
    assert got.body == b"\x1f\x8b\x08\x00"
    assert got.headers["content-encoding"] == "gzip"


async def test_connections_are_reused() -> None:
    """Requests in a row share one connection; a fresh enough one serves `fresh` too."""
    async with RawServer(ok) as server, to(server) as transport:
        for fresh in (False, False, True):
            await upload(transport, fresh=fresh)
        stats = transport.statistics()
        assert (stats.requests, stats.connections, stats.reused, stats.open) == (3, 1, 2, 1)
        assert "hunter2" not in repr(transport)
        assert f"127.0.0.1:{server.port}" in repr(transport)
    assert transport.statistics().open == 0
    assert len(server.talks) == 1


async def test_a_fresh_attempt_leaves_an_idle_connection_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What must not be repeated goes over a connection that was used a moment ago, or a new one."""
    async with RawServer(ok) as server, to(server) as transport:
        await upload(transport)
        loop = asyncio.get_running_loop()
        clock: Callable[[], float] = loop.time
        with monkeypatch.context() as patch:
            try:
                patch.setattr(loop, "time", lambda: clock() + JUST_USED_S + 0.1)
            except AttributeError:
                pytest.skip("uvloop's clock cannot be moved")
            await upload(transport, fresh=True)
        assert transport.statistics().connections == 2
        assert transport.statistics().reused == 0


async def test_what_arrives_unasked_is_no_reply_to_the_next_request() -> None:
    """A second reply on an idle connection must not be believed as the answer to another batch."""
    idle = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(OK)
        await idle.wait()
        await talk.send(OK.replace(b"hi", b"NO"))
        await talk.hold()

    async with RawServer(script, ok) as server, to(server) as transport:
        await upload(transport)
        idle.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert (await upload(transport)).body == b"hi"
    assert len(server.talks) == 2


async def test_many_requests_at_once_have_a_connection_each() -> None:
    """The pool bounds nothing by itself: whoever sends does."""
    together = asyncio.Barrier(40)

    async def script(talk: Talk) -> None:
        while await talk.request():
            await together.wait()
            await talk.send(OK)

    async with RawServer(script) as server, to(server) as transport:
        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(upload(transport))
        assert transport.statistics().connections == 40


async def test_connections_can_be_bounded() -> None:
    """A caller without a limiter of its own may bound them; the others wait their turn."""
    async with RawServer(ok) as server:
        endpoint = Endpoint(base_url=server.url)
        async with Transport(endpoint, timeout_s=5, max_connections=2) as transport:
            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(upload(transport))
            assert transport.statistics().connections == 2


async def test_small_writes_are_not_delayed() -> None:
    """TCP_NODELAY is on: the last bytes of a body never wait for an acknowledgement."""
    async with RawServer(ok) as server, to(server) as transport:
        await upload(transport)
        assert transport._pool is not None
        for link in transport._pool.links.values():
            assert link.transport is not None
            sock = link.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


REDIRECTS = [
    (301, b"https://evil.example/?secret=1", "evil.example"),
    (302, b"/login?secret=1", ""),
    (307, b"https://user:secret@evil.example:8443/x", "evil.example:8443"),
    (308, b"http://[::1/secret", ""),
    (304, b"", ""),
]


@pytest.mark.parametrize(("status", "location", "shown"), REDIRECTS)
async def test_redirects_are_refused(status: int, location: bytes, shown: str) -> None:
    """A redirect ends the run, is not followed, and shows no more than the host it points to."""
    reply = b"HTTP/1.1 %d Go\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, location)
    async with RawServer(answer(reply)) as server, to(server) as transport:
        with pytest.raises(ServiceRefused, match="redirect") as caught:
            await upload(transport)
    assert "secret" not in str(caught.value)
    assert shown in str(caught.value)
    assert len(server.requests) == 1


def claims(size: int) -> Script:
    """A reply that says it is ``size`` bytes long."""
    return answer(HEAD + b"Content-Length: %d\r\n\r\nx" % size)


async def pours(talk: Talk) -> None:
    """A reply without an end."""
    await talk.request()
    await talk.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while not talk.writer.transport.is_closing():
        await talk.send(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
        await asyncio.sleep(0)


@pytest.mark.parametrize("script", [claims(10**10), pours], ids=["claimed", "endless"])
async def test_a_huge_reply_is_cut_off(script: Script) -> None:
    """A reply over 4 times what was sent and a mebibyte is given up, claimed or real."""
    async with RawServer(script) as server, to(server) as transport:
        with pytest.raises(ReplyLost) as caught:
            await upload(transport, b"x" * 1000)
    assert caught.value.result == "oversized"
    assert f"{4 * 1000 + (1 << 20):,}" in str(caught.value)


async def test_the_largest_honest_reply_is_read() -> None:
    """The bound is the last size that passes."""
    size = 4 * 1000 + (1 << 20)
    reply = HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size
    async with RawServer(answer(reply)) as server, to(server) as transport:
        assert len((await upload(transport, b"x" * 1000)).body) == size


async def test_an_early_refusal_is_a_reply() -> None:
    """A service that answers 413 before it has everything is heard."""

    async def script(talk: Talk) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        await talk.send(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\n\r\n")
        await talk.hold()

    async with RawServer(script) as server, to(server) as transport:
        assert (await upload(transport, bytes(20_000_000))).status == 413


async def test_an_early_success_is_not_believed() -> None:
    """Who claims success before the last byte was sent cannot have opened what was sealed."""

    async def script(talk: Talk) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        await talk.send(OK)
        await asyncio.Event().wait()

    async with RawServer(script) as server, to(server) as transport:
        with pytest.raises(NotSent) as caught:
            await upload(transport, bytes(20_000_000))
    assert caught.value.result == "early_reply"


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
async def test_an_early_failure_that_leaves_things_open_does_not(status: int) -> None:
    """What had not arrived cannot have been opened, whatever a gateway makes of it."""

    async def script(talk: Talk) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        await talk.send(b"HTTP/1.1 %d Oh\r\nContent-Length: 0\r\n\r\n" % status)
        await asyncio.Event().wait()

    async with RawServer(script) as server, to(server) as transport:
        with pytest.raises(NotSent) as caught:
            await upload(transport, bytes(20_000_000))
    assert caught.value.result == "early_reply"


async def test_a_transport_that_is_not_open_says_so() -> None:
    """Using it outside ``async with`` is a bug, and named."""
    transport = Transport(Endpoint(base_url="http://localhost:1"), timeout_s=1)
    assert "closed" in repr(transport)
    with pytest.raises(RuntimeError, match="async with"):
        await transport.request("GET", "/", headers={})


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies are used only where ``--proxy`` names one."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with RawServer(ok) as server, to(server) as transport:
        assert (await upload(transport)).status == 200
