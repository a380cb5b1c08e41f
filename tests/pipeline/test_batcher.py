"""The batcher agrees with a slow, obvious model of itself, whatever the blocks."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctbatch.models import Batch, Overlong, Span
from ctbatch.pipeline.batcher import BOM, Batcher, RecordedSpan, SpanMismatch, digest_of
from ctbatch.settings import Batching

LINE = st.one_of(
    st.binary(max_size=12).map(lambda text: text.replace(b"\n", b"")),
    st.sampled_from(
        [b"", b"\r", b"\0", b"{}\r", BOM, b"x" * 99, b"x" * 100, b"x" * 101, b"y" * 700]
    ),
)
TEXT = st.builds(
    lambda bom, lines, end: (BOM if bom else b"") + b"\n".join(lines) + (b"\n" if end else b""),
    st.booleans(),
    st.lists(LINE, max_size=40),
    st.booleans(),
)
BATCHING = st.builds(
    Batching,
    batch_size=st.integers(1, 8),
    max_batch_bytes=st.sampled_from([1000, 1100, 100_000]),
    max_line_bytes=st.sampled_from([100, 600, 100_000]),
)
CUTS = st.lists(st.integers(0, 2000), max_size=12)


def blocks(text: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The text in blocks cut at the given places."""
    at = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    return [text[begin:end] for begin, end in pairwise(at)]


def cut_all(batcher: Batcher, given_blocks: Iterable[bytes]) -> list[Batch]:
    """Every batch of a source that consists of the blocks."""
    batches: list[Batch] = []
    for block in given_blocks:
        batcher.feed(block)
        while (batch := batcher.next()) is not None:
            batches.append(batch)
    batcher.end()
    while (batch := batcher.next()) is not None:
        batches.append(batch)
    return batches


class Model:
    """A batcher that goes line by line."""

    def __init__(self, batching: Batching) -> None:
        self.batching = batching
        self.batches: list[Batch] = []
        self.first, self.start, self.offset = 1, 0, 0
        self.kept: list[bytes] = []
        self.overlong: list[Overlong] = []

    def cut(self) -> None:
        """End a batch."""
        if not self.kept:
            return
        span = Span(0, self.first, len(self.kept), self.start, self.offset - self.start)
        self.batches.append(Batch(span, b"".join(self.kept), tuple(self.overlong)))
        self.first, self.start = span.end_line, self.offset
        self.kept, self.overlong = [], []

    def add(self, line: bytes) -> None:
        """Take a line."""
        body = line.removesuffix(b"\n")
        long = len(body) > self.batching.max_line_bytes
        kept = line[len(body) :] if long else line
        if sum(map(len, self.kept)) + len(kept) > self.batching.max_batch_bytes:
            self.cut()
        if long:
            self.overlong.append(Overlong(len(self.kept), self.offset, len(body)))
        self.kept.append(kept)
        self.offset += len(line)
        if len(self.kept) == self.batching.batch_size:
            self.cut()


def model(text: bytes, batching: Batching, limit: int | None = None) -> list[Batch]:
    """The batches that there should be."""
    by_line = Model(batching)
    if text.startswith(BOM):
        by_line.offset = len(BOM)
    for line in _lines(text[by_line.offset :])[:limit]:
        by_line.add(line)
    by_line.cut()
    return by_line.batches


def _lines(text: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in text.split(b"\n")]
    last = lines.pop().removesuffix(b"\n")
    return [*lines, last] if last else lines


@given(text=TEXT, batching=BATCHING, cuts=CUTS, limit=st.none() | st.integers(0, 30))
@settings(max_examples=400, deadline=None)
def test_blocks_do_not_matter(
    text: bytes, batching: Batching, cuts: list[int], limit: int | None
) -> None:
    """The batches are those of the model: same spans, same bytes, same overlong lines."""
    batcher = Batcher(0, batching, limit=limit)
    assert cut_all(batcher, blocks(text, cuts)) == model(text, batching, limit)


@given(text=TEXT, batching=BATCHING)
@settings(max_examples=100, deadline=None)
def test_every_line_is_in_one_batch(text: bytes, batching: Batching) -> None:
    """The lines of the batches, in order, are the lines of the input; the spans adjoin."""
    batches = cut_all(Batcher(3, batching), [text])
    expected = _lines(text.removeprefix(BOM))
    lines = [line for batch in batches for line in batch.lines()]
    assert len(lines) == len(expected)
    line, offset = 1, 0
    for batch in batches:
        assert (batch.span.source, batch.span.first_line) == (3, line)
        assert batch.span.offset == offset
        assert len(batch.lines()) == batch.span.lines <= batching.batch_size
        assert len(batch.data) <= batching.max_batch_bytes or batch.span.lines == 1
        long = {over.index: over for over in batch.overlong}
        for index, got in enumerate(batch.lines()):
            whole = expected[line - 1 + index].removesuffix(b"\n")
            if index in long:
                over = long[index]
                assert got == b""
                assert text[over.offset : over.offset + over.size] == whole
            else:
                assert got == whole
        line, offset = batch.span.end_line, batch.span.end_offset
    assert offset == len(text) or not expected


@given(
    text=TEXT,
    first=BATCHING,
    second=BATCHING,
    cuts=CUTS,
    keep=st.lists(st.sampled_from(["forget", "skip", "keep"]), min_size=40, max_size=40),
    seek=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_recorded_spans_keep_their_bounds(
    text: bytes, first: Batching, second: Batching, cuts: list[int], keep: list[str], *, seek: bool
) -> None:
    """After any mix of recorded, skipped and forgotten spans every line is in one batch, recorded
    ones are as they were, and no new one crosses them.
    """
    # Overlong lines are part of what was recorded, so their bound stays.
    second = Batching(
        batch_size=second.batch_size,
        max_batch_bytes=second.max_batch_bytes,
        max_line_bytes=first.max_line_bytes,
    )
    before = dict(zip(cut_all(Batcher(0, first), [text]), keep, strict=False))
    recorded = [
        RecordedSpan(batch.span, fate == "skip")
        for batch, fate in before.items()
        if fate != "forget"
    ]
    batcher = Batcher(0, second, recorded=recorded)
    after = _with_seeks(batcher, text, cuts) if seek else cut_all(batcher, blocks(text, cuts))
    kept = [batch for batch, fate in before.items() if fate == "keep"]
    assert [batch for batch in after if batch in kept] == kept
    skipped = [batch for batch, fate in before.items() if fate == "skip"]
    spans = sorted(batch.span for batch in [*after, *skipped])
    assert all(a.end_line == b.first_line for a, b in pairwise(spans))
    assert all(a.end_offset == b.offset for a, b in pairwise(spans))
    assert sum(span.size for span in spans) == sum(batch.span.size for batch in before)
    lines = {line: text for batch in before for line, text in _numbered(batch)}
    again = {line: text for batch in [*after, *skipped] for line, text in _numbered(batch)}
    assert again == lines


def _numbered(batch: Batch) -> list[tuple[int, bytes]]:
    return list(enumerate(batch.lines(), batch.span.first_line))


def _with_seeks(batcher: Batcher, text: bytes, cuts: list[int]) -> list[Batch]:
    """Every batch, going over skipped spans as a seekable file allows."""
    batches: list[Batch] = []
    at, steps = 0, [*(cut % 50 + 1 for cut in cuts), 64]
    while at < len(text):
        target = batcher.seekable_to
        if target is not None:
            assert at <= target
            at = target
            batcher.jump(target)
        step = steps[len(batches) % len(steps)]
        batcher.feed(text[at : at + step])
        at += step
        while (batch := batcher.next()) is not None:
            batches.append(batch)
    batcher.end()
    while (batch := batcher.next()) is not None:
        batches.append(batch)
    return batches


def test_a_file_that_grew_after_its_last_line_goes_on() -> None:
    """The terminator that a recorded last line lacked belongs to no line, and line numbers hold."""
    batching = Batching()
    for ending in (b"\n", b"\r\n"):
        (old,) = cut_all(Batcher(0, batching), [b"a\nb"])
        for skip in (False, True):
            batcher = Batcher(0, batching, recorded=[RecordedSpan(old.span, skip)])
            new = cut_all(batcher, blocks(b"a\nb" + ending + b"c\n", range(9)))[-1]
            assert (new.data, new.span) == (b"c\n", Span(0, 3, 1, 3, len(ending) + 2))
        recorded = [RecordedSpan(old.span, skip=True), RecordedSpan(new.span, skip=False)]
        again = cut_all(Batcher(0, batching, recorded=recorded), [b"a\nb" + ending + b"c\nd"])
        assert [batch.data for batch in again] == [b"c\n", b"d"]


@pytest.mark.parametrize(
    ("text", "line"),
    [(b"a\nbx\nc\n", 2), (b"a\nb\r", 2), (b"a\n", 2), (b"", 1), (b"a", 1), (b"abcd\n", 1)],
)
def test_an_input_that_changed_does_not_fit(text: bytes, line: int) -> None:
    """What is recorded and what is read must agree in lines and bytes."""
    recorded = [RecordedSpan(Span(0, 1, 2, 0, 3), skip=False)]
    with pytest.raises(SpanMismatch) as caught:
        cut_all(Batcher(0, Batching(), recorded=recorded), [text])
    assert caught.value.line == line


@pytest.mark.parametrize("before", [b"\n", b"x", b"\xef\xbb"])
@pytest.mark.parametrize("step", [1, 100])
def test_a_bom_that_is_longer_than_what_was_recorded_does_not_fit(before: bytes, step: int) -> None:
    """It belongs to no line, and there is nothing left of the span behind it."""
    recorded = [RecordedSpan(Span(0, 1, 1, 0, len(before)), skip=True)]
    text = BOM + b"a\n" * 50
    with pytest.raises(SpanMismatch) as caught:
        cut_all(
            Batcher(0, Batching(), recorded=recorded),
            [text[at : at + step] for at in range(0, len(text), step)],
        )
    assert caught.value.line == 1


def test_recorded_spans_that_contradict_the_lines_before_do_not_fit() -> None:
    """A gap must have exactly as many lines as the spans around it say."""
    for skip in (True, False):
        recorded = [RecordedSpan(Span(0, 4, 1, 4, 2), skip)]
        with pytest.raises(SpanMismatch):
            cut_all(Batcher(0, Batching(), recorded=recorded), [b"a\nb\nc\nd\n"])


def test_the_clock_cuts_whole_lines_only() -> None:
    """The beginning of a line waits for its end; of a recorded span nothing is cut."""
    batcher = Batcher(0, Batching())
    assert batcher.cut() is None
    batcher.feed(b"a\nb\nhal")
    assert batcher.next() is None
    assert batcher.waiting
    batch = batcher.cut()
    assert batch is not None
    assert (batch.data, batcher.read) == (b"a\nb\n", (2, 4))
    batcher.feed(b"f\n")
    assert batcher.next() is None
    batch = batcher.cut()
    assert batch is not None
    assert batch.data == b"half\n"
    batcher = Batcher(0, Batching(), recorded=[RecordedSpan(Span(0, 1, 2, 0, 4), skip=False)])
    batcher.feed(b"a\n")
    assert batcher.next() is None
    assert batcher.cut() is None


def test_an_overlong_line_is_never_held() -> None:
    """64 MB of one line pass through in the memory of a few blocks."""
    batcher = Batcher(0, Batching())
    block = b"x" * (1 << 16)
    tracemalloc.start()
    batcher.feed(b"a\n")
    for _ in range(1000):
        batcher.feed(block)
        assert batcher.next() is None
    batcher.feed(b"\nb\n")
    assert batcher.next() is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 << 20
    batch = batcher.cut()
    assert batch is not None
    assert batch.data == b"a\n\nb\n"
    assert batch.overlong == (Overlong(1, 2, 1000 << 16),)


def test_the_digest_tells_batches_apart() -> None:
    """It depends on the bytes, on the number of lines and on what an overlong line was."""
    span = Span(0, 1, 2, 0, 4)
    batches = [
        Batch(span, b"a\nb\n"),
        Batch(span, b"a\nc\n"),
        Batch(Span(0, 1, 1, 0, 4), b"a\nb\n"),
        Batch(span, b"a\n\n"),
        Batch(span, b"a\n\n", (Overlong(1, 2, 500),)),
        Batch(span, b"a\n\n", (Overlong(1, 2, 501),)),
    ]
    assert len({digest_of(batch) for batch in batches}) == len(batches)
    assert digest_of(Batch(Span(7, 9, 2, 90, 4), b"a\nb\n")) == digest_of(batches[0])
    assert len(digest_of(batches[0])) == 16
