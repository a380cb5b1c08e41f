"""Every way for an attempt to break has a name, and says whether the request can have arrived."""

from __future__ import annotations

import asyncio
import gc
import pickle
import socket
import threading
import time
import traceback

import pytest

from ctbatch.api.transport import Transport
from ctbatch.errors import NotSent, ReplyLost, TransportError
from ctbatch.settings import Endpoint
from tests.api.raw_server import OK, RawServer, Script, Talk, answer
from tests.api.test_transport import BODY, HEAD, HEADERS, to, upload

SHORT_S = 0.3
BIG = bytes(30_000_000)
"""More than the buffers of both kernels and of the transport together hold."""


async def fails(script: Script, body: bytes = BODY, timeout_s: float = 5.0) -> TransportError:
    """Upload to a server that plays ``script``; give back the failure."""
    async with RawServer(script) as server, to(server, timeout_s) as transport:
        with pytest.raises(TransportError) as caught:
            await upload(transport, body)
    return caught.value


def is_lost(error: TransportError, result: str) -> bool:
    """Whether it may have been acted on, under this name."""
    return type(error) is ReplyLost and error.result == result


def is_not_sent(error: TransportError, result: str) -> bool:
    """Whether it cannot have been acted on, under this name."""
    return type(error) is NotSent and error.result == result


async def test_nobody_listening_is_refused() -> None:
    """A refused connection sent nothing."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{sock.getsockname()[1]}")
        async with Transport(endpoint, timeout_s=5) as transport:
            with pytest.raises(NotSent, match="refused the connection") as caught:
                await upload(transport)
            with pytest.raises(NotSent):  # the same for a request without a body
                await transport.request("GET", "/1/x", headers=HEADERS)
    assert caught.value.result == "refused"


async def test_localhost_refused_on_both_addresses_is_refused() -> None:
    """A name with several addresses, none of which listens, is one refusal."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        endpoint = Endpoint(base_url=f"http://localhost:{sock.getsockname()[1]}")
        async with Transport(endpoint, timeout_s=5) as transport:
            with pytest.raises(NotSent) as caught:
                await upload(transport)
    assert caught.value.result == "refused"


async def test_a_host_without_an_address_is_dns() -> None:
    """``.invalid`` never resolves (RFC 6761)."""
    async with Transport(Endpoint(base_url="https://x.invalid"), timeout_s=5) as transport:
        with pytest.raises(NotSent, match=r"x\.invalid") as caught:
            await upload(transport)
    assert caught.value.result == "dns"


async def test_no_route_is_unreachable() -> None:
    """The system's words are in the message (an address no packet can be sent to)."""
    async with Transport(Endpoint(base_url="https://255.255.255.255"), timeout_s=5) as transport:
        with pytest.raises(NotSent) as caught:
            await upload(transport)
    assert caught.value.result == "unreachable"
    assert "(" in caught.value.why


async def test_a_connection_that_never_comes_times_out() -> None:
    """A full backlog answers no SYN: nothing was sent."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        sock.setblocking(False)
        fillers = [socket.socket() for _ in range(3)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(sock.getsockname())
            endpoint = Endpoint(base_url=f"http://127.0.0.1:{sock.getsockname()[1]}")
            async with Transport(endpoint, timeout_s=5, connect_timeout_s=0.1) as transport:
                with pytest.raises(NotSent) as caught:
                    await upload(transport)
            async with Transport(endpoint, timeout_s=0.1) as transport:
                with pytest.raises(NotSent) as again:
                    await upload(transport)
        finally:
            for filler in fillers:
                filler.close()
    assert caught.value.result == again.value.result == "connect_timeout"


@pytest.mark.parametrize("at", [0, 1, 100, 50_000])
async def test_a_reset_inside_the_request_was_not_sent(at: int) -> None:
    """The last byte of the body was still here when the connection broke."""

    async def script(talk: Talk) -> None:
        await talk.reader.readexactly(at)
        talk.reset()

    error = await fails(script, BIG)
    assert isinstance(error, NotSent)
    assert error.result == "reset"


async def test_a_body_is_not_completed_once_nobody_would_wait_for_the_reply() -> None:
    """A process that stood still while it sent has not lost what it kept back."""

    async def script(talk: Talk) -> None:
        await talk.reader.readexactly(1)
        threading.Event().wait(1.5 * SHORT_S)  # nothing else of this process runs
        await talk.hold()

    assert is_not_sent(await fails(script, bytes(8_000_000), SHORT_S), "timeout")


async def test_a_service_that_stops_reading_was_not_sent() -> None:
    """Half of a body in a half-open connection is a time-out, and cannot be opened."""

    async def script(talk: Talk) -> None:
        await talk.reader.readexactly(1)
        await asyncio.Event().wait()

    assert is_not_sent(await fails(script, BIG, SHORT_S), "timeout")


async def taken(talk: Talk, say: bytes = b"") -> None:
    """Take the whole request and say something."""
    await talk.request()
    if say:
        await talk.send(say)


async def test_silence_after_the_request_is_lost() -> None:
    """The service may be about to act."""
    assert is_lost(await fails(Talk.hold, timeout_s=SHORT_S), "timeout")


async def test_a_head_that_never_ends_is_lost() -> None:
    """The time-out covers everything up to the last byte."""

    async def script(talk: Talk) -> None:
        await taken(talk, HEAD + b"X: ")
        while not talk.writer.transport.is_closing():
            await talk.send(b"X")
            await asyncio.sleep(0.02)

    assert is_lost(await fails(script, timeout_s=SHORT_S), "timeout")


async def test_a_body_that_never_ends_is_lost() -> None:
    """One byte at a time does not extend the attempt."""

    async def script(talk: Talk) -> None:
        await taken(talk, HEAD + b"Content-Length: 100000\r\n\r\n")
        while not talk.writer.transport.is_closing():
            await talk.send(b"x")
            await asyncio.sleep(0.02)

    assert is_lost(await fails(script, timeout_s=SHORT_S), "timeout")


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 400 Bad Request\r\n"])
async def test_a_reply_that_came_while_the_process_stood_still_is_read(head: bytes) -> None:
    """A process that was stopped finds its deadline passed, and a reply that was in time: all of
    it, or what was left of it.
    """

    async def script(talk: Talk) -> None:
        await taken(talk, head and head + b"Content-Length: 2\r\n\r\n")
        await asyncio.sleep(0.02)
        await talk.send(b"hi" if head else OK)
        threading.Event().wait(1.5 * SHORT_S)  # nothing else of this process runs

    async with RawServer(script) as server, to(server, SHORT_S) as transport:
        assert (await upload(transport)).body == b"hi"


async def test_a_deadline_is_not_longer_where_the_process_runs() -> None:
    """And nothing is left of one that was kept."""
    loop, complaints = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _, context: complaints.append(context))

    async def script(talk: Talk) -> None:
        await taken(talk, OK)
        await talk.hold()

    async with RawServer(script) as server, to(server, SHORT_S) as transport:
        await upload(transport)
        began_s = loop.time()
        with pytest.raises(ReplyLost):
            await upload(transport)
        assert loop.time() - began_s < 1 + SHORT_S
    assert not complaints


async def test_a_closed_connection_without_an_answer_is_lost() -> None:
    """A FIN in place of a reply."""
    assert is_lost(await fails(taken), "closed")


PARTS = {
    "in the status line": (HEAD[:7], "truncated"),
    "after the status line": (HEAD, "truncated"),
    "in the headers": (HEAD + b"Content-", "truncated"),
    "before the body": (HEAD + b"Content-Length: 2\r\n\r\n", "truncated"),
    "in the body": (OK[:-1], "truncated"),
    "in a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", "truncated"),
    "before the last chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "truncated"),
}


@pytest.mark.parametrize(("said", "result"), PARTS.values(), ids=PARTS.keys())
async def test_a_truncated_reply_is_lost(said: bytes, result: str) -> None:
    """A reply that ends early, wherever, is never taken for a whole one."""
    assert is_lost(await fails(lambda talk: taken(talk, said)), result)


@pytest.mark.parametrize(("said", "result"), PARTS.values(), ids=PARTS.keys())
async def test_a_reset_reply_is_lost(said: bytes, result: str) -> None:
    """The same with a RST; once the head is there, a reply is truncated however it ends."""

    async def script(talk: Talk) -> None:
        await taken(talk, said)
        await asyncio.sleep(0.02)  # a RST overtakes what was not read yet
        talk.reset()

    assert is_lost(await fails(script), result if b"\r\n\r\n" in said else "reset")


GARBAGE = {
    "no HTTP": b"\x00\xff garbage \r\n\r\n" * 9,
    "an SSH server": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a status that is none": b"HTTP/1.1 abc OK\r\n\r\n",
    "a header without a name": HEAD + b": x\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length in words": HEAD + b"Content-Length: two\r\n\r\nhi",
    "length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nab\r\n0\r\n\r\n",
    "a huge header": HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    "too many headers": HEAD + b"X: y\r\n" * 10_000 + b"\r\n",
    "other protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("said", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_is_lost(said: bytes) -> None:
    """What is not HTTP is no reply, and is not quoted."""

    async def script(talk: Talk) -> None:
        await taken(talk, said)
        await talk.hold()

    error = await fails(script)
    assert is_lost(error, "malformed_http")
    assert str(error).isprintable()
    assert "OpenSSH" not in str(error)


async def test_a_chunk_that_goes_bad_later_is_lost() -> None:
    """The head is there and fine; what follows is not chunks."""

    async def script(talk: Talk) -> None:
        await taken(talk, HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        await asyncio.sleep(0.02)
        await talk.send(b"ZZ\r\nab\r\n0\r\n\r\n")
        await talk.hold()

    assert is_lost(await fails(script), "malformed_http")


STANDING = (400, 401, 403, 404, 413, 429)
BROKEN_BODIES = {
    "too short": b"Content-Length: 9\r\n\r\nhi",
    "none": b"Content-Length: 9\r\n\r\n",
    "half a chunk": b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    "too long": b"Content-Length: 99999999\r\n\r\nhi",
}


@pytest.mark.parametrize("status", STANDING)
@pytest.mark.parametrize("body", BROKEN_BODIES.values(), ids=BROKEN_BODIES)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_refusal_stands_without_its_words(status: int, body: bytes, *, reset: bool) -> None:
    """Its status says that nothing was acted on; a body that breaks off takes nothing from it."""

    async def script(talk: Talk) -> None:
        await taken(talk, b"HTTP/1.1 %d Oh\r\nRetry-After: 7\r\n%b" % (status, body))
        if reset:
            talk.reset()

    async with RawServer(script) as server, to(server) as transport:
        reply = await upload(transport)
        assert (reply.status, reply.body, reply.headers["retry-after"]) == (status, b"", "7")
        await upload(transport)
        assert transport.statistics().connections == 2


@pytest.mark.parametrize("status", [429, 503])
async def test_the_words_of_a_refusal_are_not_waited_for_to_the_end(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """They stall: a part of the time that is left, and no longer than some seconds."""
    monkeypatch.setattr("ctbatch.api.transport.WORDS_S", 0.05)

    async def script(talk: Talk) -> None:
        await taken(
            talk, b"HTTP/1.1 %d Oh\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\nhi" % status
        )
        await talk.hold()

    async with RawServer(script) as server, to(server) as transport:
        assert (await upload(transport)).status == status


@pytest.mark.parametrize("head", [b"503 Oh", b"500 Oh", b"408 Oh", b"502 Oh"])
async def test_what_leaves_things_open_is_lost_without_its_body(head: bytes) -> None:
    """It may have been acted on: the body may say so."""

    async def script(talk: Talk) -> None:
        await taken(talk, b"HTTP/1.1 %b\r\nContent-Length: 9\r\n\r\nhi" % head)

    assert is_lost(await fails(script), "truncated")


async def test_a_second_reply_in_one_breath_closes_the_connection() -> None:
    """Bytes beyond Content-Length are never the reply of the next request."""
    async with RawServer(answer(OK + OK)) as server, to(server) as transport:
        assert (await upload(transport)).body == b"hi"
        assert (await upload(transport)).body == b"hi"
        assert transport.statistics().connections == 2


async def test_a_stale_connection_is_mostly_found_before_anything_is_lost() -> None:
    """The end of a kept-alive connection is already here, unread, when it is used again."""
    async with RawServer(answer(OK)) as server, to(server) as transport:
        await upload(transport)
        number = server.talks[0].writer.get_extra_info("socket").fileno()
        sock = socket.socket(fileno=socket.dup(number))
        sock.shutdown(socket.SHUT_RDWR)  # no turn of the loop until the next request
        sock.close()
        with pytest.raises(NotSent) as caught:
            await upload(transport)
        assert caught.value.result == "stale_connection"
        assert (await upload(transport)).status == 200


async def test_a_stale_connection_found_too_late_is_lost() -> None:
    """Closed when the request was already on its way: stale, and yet it may have been read."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(OK)
        await talk.request()

    async with RawServer(script) as server, to(server) as transport:
        await upload(transport)
        with pytest.raises(ReplyLost) as caught:
            await upload(transport)
    assert caught.value.result == "stale_connection"


async def test_a_connection_that_answered_in_part_is_not_stale() -> None:
    """Stale means that not a byte came back."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(OK)
        await talk.request()
        await talk.send(HEAD)

    async with RawServer(script) as server, to(server) as transport:
        await upload(transport)
        with pytest.raises(ReplyLost) as caught:
            await upload(transport)
    assert caught.value.result == "truncated"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_one_call_is_one_request(method: str) -> None:
    """aiohttp repeats what it calls idempotent; the decision is not its own."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(OK)
        await talk.request()

    async with RawServer(script) as server, to(server) as transport:
        await transport.request(method, "/1/x", headers={})
        with pytest.raises(ReplyLost):
            await transport.request(method, "/1/x", headers={})
        assert len(server.requests) == 2


async def test_errors_hold_nothing_of_the_request_or_the_reply() -> None:
    """Query, headers, body and reply are in no message, no chained exception, no traceback."""
    secrets = {
        "query": "cursor=canary-query",
        "headers": {"X-CleverTap-Passcode": "canary-header"},
        "body": b"canary-body",
    }

    async def script(talk: Talk) -> None:
        await taken(talk, b"HTTP/1.1 canary-reply\r\n\r\n")

    async with RawServer(script) as server, to(server) as transport:
        with pytest.raises(ReplyLost) as caught:
            await transport.request("POST", "/1/x", **secrets)  # type: ignore[arg-type]  # a mix
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    told = "".join(traceback.format_exception(error)) + repr(error) + str(error)
    assert "canary" not in told
    assert pickle.loads(pickle.dumps(error)).result == error.result  # noqa: S301  # our own


async def test_a_failure_does_not_keep_the_body_alive() -> None:
    """Failures are many in an outage, bodies are megabytes: no cycle may hold them."""
    async with RawServer(taken) as server, to(server) as transport:
        gc.collect()
        before = _lost()  # what other tests keep
        gc.disable()
        try:
            for _ in range(3):
                with pytest.raises(ReplyLost):
                    await upload(transport, bytes(1234))
            await asyncio.sleep(0.01)
            kept = _lost()
        finally:
            gc.enable()
    assert kept == before


def _lost() -> list[ReplyLost]:
    return [o for o in gc.get_objects() if isinstance(o, ReplyLost)]


async def test_cancelling_is_never_swallowed_and_frees_the_connection() -> None:
    """A cancelled attempt ends at once, and its connection with it."""
    begun = asyncio.Semaphore(0)

    async def script(talk: Talk) -> None:
        begun.release()
        await talk.hold()

    async with RawServer(script) as server, to(server) as transport:
        attempts = [asyncio.create_task(upload(transport)) for _ in range(3)]
        for _ in attempts:
            await begun.acquire()
        for attempt in attempts:
            attempt.cancel()
        done = await asyncio.gather(*attempts, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in done)
        await asyncio.sleep(0.01)
        assert transport.statistics().open == 0


async def test_a_half_open_connection_does_not_outlive_its_attempt() -> None:
    """What the system still buffers is thrown away: nothing trickles out after a time-out."""

    async def script(talk: Talk) -> None:
        await talk.reader.readexactly(1)
        await asyncio.Event().wait()

    async with RawServer(script) as server, to(server, SHORT_S) as transport:
        with pytest.raises(NotSent):
            await upload(transport, BIG)
        await asyncio.sleep(0.01)
        assert transport.statistics().open == 0


async def test_closing_is_quick_whatever_the_other_side_does() -> None:
    """Idle connections to a server that never closes are gone when ``async with`` is left."""

    async def script(talk: Talk) -> None:
        await taken(talk, OK)
        await asyncio.Event().wait()

    async with RawServer(script) as server:
        async with to(server) as transport:
            await upload(transport)
            started = time.monotonic()
        assert time.monotonic() - started < 1
        assert transport.statistics().open == 0
