"""Cuts the bytes of one source into batches; pure: blocks in, :class:`Batch` values out.

Feed blocks of any size, then take batches until there is none::

    batcher.feed(block)
    while (batch := batcher.next()) is not None: ...

Invariants:

1. What is cut depends on the bytes alone, not on the sizes of the blocks (:meth:`Batcher.cut` is
   the one exception: the caller's clock decides).
2. Spans adjoin: each begins, in line and byte, where the one before ended, and every byte fed
   belongs to one. Bytes that belong to no line (a BOM at the start of the stream) count in the span
   of the line after them.
3. A batch has at least one line, at most ``batch_size``, and at most ``max_batch_bytes`` of data
   unless it is one line. Memory is bounded by ``max_batch_bytes + max_line_bytes`` and a block.
4. Recorded spans are cut exactly as recorded, and no other batch crosses one.

Reading, clocks and what a digest is compared with are the business of
:mod:`~ctbatch.pipeline.source.reader`.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice

import xxhash

from ctbatch.models import Batch, Overlong, Span
from ctbatch.settings import Batching

__all__ = ["BOM", "Batcher", "RecordedSpan", "SpanMismatch", "digest_of"]

BOM = b"\xef\xbb\xbf"
"""The UTF-8 signature: Unicode 16, section 23.8."""

_ENDLESS = sys.maxsize


class SpanMismatch(Exception):
    """The bytes do not fit a recorded span: the input is not the one that was recorded."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


@dataclass(frozen=True, slots=True)
class RecordedSpan:
    """A span that an earlier process recorded; ``skip``: it is done and not to be delivered."""

    span: Span
    skip: bool
    digest: bytes | None = None


def digest_of(batch: Batch) -> bytes:
    """16 bytes that stand for the lines of a batch and for what is known of the overlong ones.

    XXH3, which is no cryptographic hash: it tells an input that was changed by mistake. Whoever can
    write the input has no need of a collision. 0.01 µs for 300 bytes, SHA-256 0.2.
    """
    facts = ";".join(f"{over.index}:{over.size}" for over in batch.overlong)
    digest = xxhash.xxh3_128(batch.data)
    digest.update(f"\0{batch.span.lines};{facts}".encode())
    return digest.digest()


class Batcher:
    """The lines of one source, as batches.

    ``recorded`` are spans to cut as they are; those with ``skip`` yield no batch. ``limit`` ends
    the source after so many lines.
    """

    def __init__(
        self,
        source: int,
        batching: Batching,
        *,
        recorded: Iterable[RecordedSpan] = (),
        limit: int | None = None,
    ) -> None:
        self._source = source
        self._batching = batching
        self._last_line = _ENDLESS if limit is None else limit
        self._ahead = deque(_joined(recorded))
        self._queue: deque[bytes] = deque()
        self._ended = False
        # The piece being scanned; BytesIO shares its bytes and counts lines in 0.04 µs each, the
        # quickest of bytes.count, find, split and this.
        self._text = b""
        self._scan_at = BytesIO()
        # The batch being filled: whole lines, up to self._offset.
        self._parts: list[bytes] = []
        self._overlong: list[Overlong] = []
        self._first_line = 1
        self._lines = self._bytes = self._start = self._offset = 0
        # The line being read: from self._offset on; empty parts where it is overlong.
        self._tail: list[bytes] = []
        self._tail_size = 0
        self._open_line = False
        self._swallowing = True
        self._enter()

    # ---------------------------------------------------------------- what the caller does

    def feed(self, block: bytes) -> None:
        """Give the next bytes of the source."""
        if block:
            self._queue.append(block)

    def end(self) -> None:
        """Say that the source has ended; :meth:`next` then gives what is left."""
        self._ended = True

    def next(self) -> Batch | None:
        """The next batch; ``None`` when it takes more bytes, or when all is over.

        Raises:
            SpanMismatch: the bytes do not fit the recorded spans.
        """
        while not self.over:
            if self._position == self._edge:
                batch = self._leave()
            elif self._load():
                batch = self._scan()
            else:
                return self._last() if self._ended else None
            if batch is not None:
                return batch
        return None

    def cut(self) -> Batch | None:
        """A batch of the whole lines at hand, if any; a recorded span is never cut short."""
        return self._cut() if self.waiting else None

    @property
    def waiting(self) -> bool:
        """Whether whole lines are at hand that :meth:`cut` would give."""
        return self._lines > 0 and self._section is None

    @property
    def over(self) -> bool:
        """Whether the limit has been reached: nothing more is wanted."""
        return self._first_line > self._last_line

    @property
    def read(self) -> tuple[int, int]:
        """How many whole lines were read so far, and the offset after them."""
        if self._skipping:
            return self._first_line - 1, self._start
        return self._first_line - 1 + self._lines, self._offset

    @property
    def seekable_to(self) -> int | None:
        """The offset up to which no byte is wanted, where :meth:`jump` would save reading."""
        if not self._skipping or self._queue:
            return None
        # The last byte of a skipped span is looked at: it may end in the middle of a line.
        return self._edge - 1 if self._edge - 1 > self._offset else None

    def jump(self, offset: int) -> None:
        """Say that the bytes up to ``seekable_to`` were passed over."""
        self._offset = offset

    # ---------------------------------------------------------------- sections

    @property
    def _skipping(self) -> bool:
        return self._section is not None and self._section.skip

    def _enter(self) -> None:
        """Enter the next recorded span, or the gap before it."""
        self._section: RecordedSpan | None = None
        self._edge = _ENDLESS
        if not self._ahead:
            return
        span = self._ahead[0].span
        self._edge = span.offset
        if span.offset == self._offset:
            self._section = self._ahead.popleft()
            self._edge = span.end_offset

    def _leave(self) -> Batch | None:
        """Close the section that ends here; gives its last batch."""
        section = self._section
        if section is not None and section.span.first_line != self._first_line:
            raise SpanMismatch(self._first_line)
        if section is not None and section.skip:
            self._start, self._first_line = self._offset, section.span.end_line
            self._enter()
            return None
        batch = self._close_line() or (self._cut() if self._lines else None)
        if self._position == self._offset and not self._lines:
            if section is not None and (batch is None or batch.span != section.span):
                raise SpanMismatch(section.span.first_line)
            self._enter()
        return batch

    def _last(self) -> Batch | None:
        """What is left when the source has ended."""
        if self._queue:  # half a terminator after a line that had none
            raise SpanMismatch(self._first_line - 1)
        if self._section is not None or self._ahead:
            raise SpanMismatch(self._first_line + self._lines)
        return self._close_line() or (self._cut() if self._lines else None)

    def _close_line(self) -> Batch | None:
        """End the line being read without a terminator; gives a batch it does not fit in."""
        if not self._tail_size:
            return None
        overlong = self._tail_size > self._batching.max_line_bytes
        if not self._fits(0 if overlong else self._tail_size):
            return self._cut()
        self._add_line(b"", self._tail_size, overlong=overlong, terminator=b"")
        self._open_line = self._swallowing = True
        return None

    # ---------------------------------------------------------------- scanning

    @property
    def _position(self) -> int:
        """The offset of the first byte that was not scanned."""
        return self._offset + self._tail_size

    def _load(self) -> bool:
        """Have something to scan, none of it from beyond the section; whether there is."""
        if self._scan_at.tell() < len(self._text):
            return True
        if not self._queue or (self._swallowing and not self._swallow()):
            return False
        block, room = self._queue.popleft(), self._edge - self._position
        if room < 0:  # a BOM is longer than all that a recorded span holds
            raise SpanMismatch(self._first_line)
        if len(block) > room:
            self._queue.appendleft(block[room:])
            block = block[:room]
        self._text, self._scan_at = block, BytesIO(block)
        return True

    def _swallow(self) -> bool:
        """Step over what begins a section and belongs to no line; ``False``: too little is known.

        At the start of the stream that is a BOM. After a recorded span that ended in the middle of
        a line (it was the last and had no terminator, and the file grew) it is the terminator.
        """
        head = b"".join(islice(self._queue, 3))[:3]
        if self._skipping:
            self._swallowing = self._open_line = False
            return True
        wanted = (b"\n", b"\r\n") if self._open_line else (BOM,)
        found = next((text for text in wanted if head.startswith(text)), b"")
        undecided = any(len(head) < len(text) and text.startswith(head) for text in wanted)
        if not found and undecided and not (self._ended and not self._open_line):
            return False
        if self._open_line and not found:
            raise SpanMismatch(self._first_line - 1)
        self._offset += len(found)
        self._queue = deque([b"".join(self._queue)[len(found) :]])
        self._swallowing = self._open_line = False
        return True

    def _scan(self) -> Batch | None:
        """Take lines from the piece at hand; gives a batch where one is full."""
        scan, begin = self._scan_at, self._scan_at.tell()
        if self._skipping:
            scan.seek(len(self._text))
            self._offset += len(self._text) - begin
            self._open_line = self._swallowing = not self._text.endswith(b"\n")
            return None
        if begin == len(self._text):  # nothing was left of it but what belongs to no line
            return None
        sizes = list(map(len, islice(scan, self._room())))
        end = scan.tell()
        rest = 0 if self._text[end - 1] == ord("\n") else sizes.pop()
        if sizes and not self._take_together(sizes, begin, end - rest):
            return self._cut()
        self._hold(end - rest, end)
        return self._cut() if self._room() == 0 else None

    def _room(self) -> int | None:
        """How many lines the batch has room for; ``None`` for any number."""
        if self._section is not None:
            return None
        left_in_source = self._last_line - (self._first_line - 1) - self._lines
        return min(self._batching.batch_size - self._lines, left_in_source)

    def _take_together(self, sizes: list[int], begin: int, end: int) -> bool:
        """Add whole lines at once, or one by one where a bound is near; ``False``: the batch is
        full.
        """
        total = self._tail_size + end - begin
        limit = self._batching.max_line_bytes
        unbounded = self._section is not None
        roomy = unbounded or self._bytes + total <= self._batching.max_batch_bytes
        if not roomy or (
            total > limit and max(chain(sizes, (self._tail_size + sizes[0],))) > limit
        ):
            return self._take_singly(sizes, begin)
        self._parts += self._tail
        self._parts.append(self._text[begin:end])
        self._lines += len(sizes)
        self._bytes += total
        self._offset += total
        self._drop_tail()
        return True

    def _take_singly(self, sizes: Iterable[int], begin: int) -> bool:
        for size in sizes:
            whole = self._tail_size + size
            overlong = whole - 1 > self._batching.max_line_bytes
            if not self._fits(1 if overlong else whole):
                self._scan_at.seek(begin)
                return False
            text = b"" if overlong else self._text[begin : begin + size - 1]
            self._add_line(text, whole, overlong=overlong, terminator=b"\n")
            begin += size
        return True

    def _add_line(self, text: bytes, size: int, *, overlong: bool, terminator: bytes) -> None:
        """Add the line that ends the bytes held back."""
        added = [terminator] if overlong else [*self._tail, text, terminator]
        if overlong:
            long = size - len(terminator)
            self._overlong.append(Overlong(self._lines, self._offset, long))
        self._parts += added
        self._bytes += sum(map(len, added))
        self._lines += 1
        self._offset += size
        self._drop_tail()

    def _fits(self, size: int) -> bool:
        """Whether so much more data may join the batch."""
        bounded = self._section is None and self._lines > 0
        return not bounded or self._bytes + size <= self._batching.max_batch_bytes

    def _hold(self, begin: int, end: int) -> None:
        """Hold the beginning of a line back, unless the line is overlong."""
        if begin == end:
            return
        self._tail_size += end - begin
        if self._tail_size > self._batching.max_line_bytes:
            self._tail.clear()
        else:
            self._tail.append(self._text[begin:end])

    def _drop_tail(self) -> None:
        self._tail, self._tail_size = [], 0

    def _cut(self) -> Batch:
        """The batch being filled; begins the next."""
        size = self._offset - self._start
        span = Span(self._source, self._first_line, self._lines, self._start, size)
        batch = Batch(span, b"".join(self._parts), tuple(self._overlong))
        self._first_line, self._start = span.end_line, self._offset
        self._parts, self._overlong = [], []
        self._lines = self._bytes = 0
        return batch


def _joined(recorded: Iterable[RecordedSpan]) -> Iterator[RecordedSpan]:
    """The spans in order, adjoining ones to skip as one: each may cost a seek."""
    last: RecordedSpan | None = None
    for item in sorted(recorded, key=lambda item: item.span.offset):
        if last is None:
            last = item
            continue
        old, new = last.span, item.span
        ends = (old.end_line, old.end_offset) == (new.first_line, new.offset)
        if last.skip and item.skip and ends:
            lines, size = old.lines + new.lines, old.size + new.size
            last = RecordedSpan(
                Span(old.source, old.first_line, lines, old.offset, size), skip=True
            )
        else:
            yield last
            last = item
    if last is not None:
        yield last
