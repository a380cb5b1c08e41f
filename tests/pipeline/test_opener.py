"""Opening replies: nothing raises, and only what opens and adds up is believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctbatch.api.transport import Reply
from ctbatch.api.wire import Meaning, Verdict
from ctbatch.crypto.hpke import OpeningKeys, SealingKey
from ctbatch.crypto.keyset import generate
from ctbatch.notices import Silent
from ctbatch.pipeline.keyring import KeyWatch
from ctbatch.pipeline.opener import INLINE_BYTES, Opener
from ctbatch.pipeline.report.measurements import Measurements

INFO = b"XXX-XXX-XXXX"
OURS, FOREIGN = generate(), generate()
SEAL = SealingKey(OURS.public(), INFO).seal
SEAL_FOREIGN = SealingKey(FOREIGN.public(), INFO).seal
OTHER_ACCOUNT = SealingKey(OURS.public(), b"YYY-YYY-YYYY").seal


def _opener(*, sealed: bool = True, measured: Measurements | None = None) -> Opener:
    watch = KeyWatch(None, Silent(), lambda keyring: None)
    watch.opening = OpeningKeys(OURS, INFO) if sealed else None
    return Opener(watch, measured or Measurements())


def _reply(status: int, body: bytes) -> Reply:
    return Reply(status, {}, body, elapsed_s=0.1, content_type="")


def _verdict(body: bytes, status: int = 200, *, records: int = 2, sealed: bool = True) -> Verdict:
    """On a loop of its own: hypothesis and the loops of the tests do not mix."""

    async def main() -> Verdict:
        return await _opener(sealed=sealed).open(_reply(status, body), records)

    with asyncio.Runner() as runner:
        return runner.run(main())


GOOD = b'{"status":"success","processed":2,"unprocessed":[]}'

WORDS = st.text(max_size=20) | st.sampled_from(
    [f"No. Skipped record number : {n}" for n in (-1, 0, 1, 2, 3, 10**9, 10**30)]
    + ["Skipped record number : 1 Skipped record number : 2", "Skipped record number : \u0661"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "status": st.just("fail") | VALUES,
        "code": st.sampled_from([515, 555, 525]) | VALUES,
        "error": WORDS | VALUES,
        "record": st.fixed_dictionaries({}, optional={"identity": VALUES, "type": VALUES}) | VALUES,
    },
)
REPLIES = (
    st.fixed_dictionaries(
        {},
        optional={
            "status": st.sampled_from(["success", "partial", "fail"]) | VALUES,
            "processed": st.integers(-1, 4) | VALUES,
            "unprocessed": st.lists(ENTRIES | VALUES, max_size=4) | VALUES,
            "code": VALUES,
            "error": VALUES,
        },
    )
    | VALUES
).map(lambda reply: json.dumps(reply).encode())
PLAIN = REPLIES | st.binary(max_size=80) | st.sampled_from([GOOD, b"", b"<html>", b"[" * 5000])


def _adds_up(text: bytes, records: int) -> bool:
    reply: Any = json.loads(text)
    return bool(reply.get("processed", 0) + len(reply.get("unprocessed", [])) == records)


@settings(max_examples=300, deadline=None)
@given(
    PLAIN,
    st.sampled_from(["ours", "foreign", "account", "plain", "cut", "altered"]),
    st.sampled_from([200, 200, 200, 202, 204, 206, 301, 400, 401, 413, 429, 500, 503, 599, 999]),
)
@example(GOOD, "foreign", 200)
@example(GOOD, "plain", 200)
def test_no_reply_raises_and_none_is_believed_that_should_not_be(
    text: bytes, how: str, status: int
) -> None:
    """Whatever the bytes: believed is only a 2xx that our key opens and whose counts add up."""
    make: dict[str, Callable[[bytes], bytes]] = {
        "ours": SEAL,
        "foreign": SEAL_FOREIGN,
        "account": OTHER_ACCOUNT,
        "plain": bytes,
        "cut": lambda plain: SEAL(plain)[:-1],
        "altered": lambda plain: SEAL(plain)[:-1] + b"\0\0",
    }
    verdict = _verdict(make[how](text), status)
    if verdict.meaning is Meaning.BELIEVED:
        assert how == "ours"
        assert 200 <= status < 300
        assert _adds_up(text, 2)
        assert len(verdict.entries) <= 2
    if 200 <= status < 300 and how != "ours":
        assert verdict.meaning is Meaning.UNOPENED


@pytest.mark.parametrize("size", [0, INLINE_BYTES])
def test_a_good_reply_is_believed_whatever_its_size(size: int) -> None:
    """A big one is opened in a thread; both say the same."""
    body = SEAL(GOOD + b" " * size)
    assert _verdict(body).meaning is Meaning.BELIEVED
    assert _verdict(GOOD + b" " * size, sealed=False).meaning is Meaning.BELIEVED


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_the_words_of_an_error_are_read_in_either_form(status: int) -> None:
    """How errors are sent is not documented: sealed or plain, they mean the same."""
    error = b'{"status":"fail","error":"No","code":%d}' % status
    verdicts = {form: _verdict(body, status) for form, body in (("a", error), ("b", SEAL(error)))}
    assert verdicts["a"] == verdicts["b"]
    assert verdicts["a"].words == "No"


async def test_the_key_that_opened_is_noted() -> None:
    """The report says which keys opened replies."""
    measured = Measurements()
    await _opener(measured=measured).open(_reply(200, SEAL(GOOD)), 2)
    assert measured.opened_with == (OURS.primary_id,)
