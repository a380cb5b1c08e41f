"""Reading the inputs, on a thread of its own, so that a slow disk or pipe never stalls deliveries.

Invariants:

1. Batches come in input order, source after source, when they are asked for: at most
   :data:`AHEAD` are read ahead.
2. A pipe that trickles has its whole lines delivered after ``linger_s``; a source that ends before
   its time (a truncated archive, an I/O error) raises :class:`InputBroke` after the last good line.
3. :meth:`Reader.stop` ends it promptly, also while it waits on an idle pipe.

Cutting lines is not done here (:mod:`~ctbatch.pipeline.batcher`), nor decompressing
(:mod:`~ctbatch.pipeline.decoding`).
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Self

from ctbatch.errors import CtbatchError, InputBroke, ResumeRefused
from ctbatch.models import Batch
from ctbatch.pipeline.batcher import Batcher, RecordedSpan, SpanMismatch, digest_of
from ctbatch.pipeline.decoding import MAGIC_BYTES, Decoder, decoder_for, kind_of
from ctbatch.pipeline.inputs import SourceSpec, expand, open_stored
from ctbatch.settings import Batching

__all__ = ["Reader", "RecordedSpan", "SourceSpec", "count_rest", "expand", "read_line"]

AHEAD = 2
"""Batches read before they are asked for: enough to hide a disk's latency."""

BLOCK_BYTES = 256 * 1024
"""One read: about one batch, and a pipe never gives more than 64 KiB anyway."""


@dataclass(slots=True)
class SourceStatistics:
    """How far a source was read: lines and bytes of the stream, bytes as stored, and its end."""

    lines: int = 0
    bytes: int = 0
    stored: int = 0
    ended: bool = False


class _Stopped(Exception):
    """The reader was asked to end."""


@dataclass(slots=True)
class _Wake:
    """A pipe that wakes a thread from waiting for another."""

    ends: tuple[int, int] = field(default_factory=os.pipe)

    def ring(self) -> None:
        with suppress(OSError):
            os.write(self.ends[1], b"!")

    def close(self) -> None:
        for end in self.ends:
            os.close(end)


class Reader:
    """An async context manager that reads the sources; see the module for its promises.

    ``recorded`` are the spans that a ledger knows, by source; those to ``skip`` are not delivered.
    Where they are read anyway (pipes, compressed files, sources in ``verify``) their digests are
    compared, and a difference raises :class:`ResumeRefused`.
    """

    def __init__(
        self,
        specs: Sequence[SourceSpec],
        batching: Batching,
        *,
        limit: int | None = None,
        recorded: Mapping[int, Sequence[RecordedSpan]] | None = None,
        verify: Collection[int] = (),
    ) -> None:
        self._specs = specs
        self._batching = batching
        self._left = limit
        self._recorded = recorded or {}
        self._verify = frozenset(verify)
        self._statistics = [SourceStatistics() for _ in specs]
        self._arrived: asyncio.Queue[Batch | CtbatchError | None] = asyncio.Queue()
        self._ahead = threading.Semaphore(AHEAD)
        self._stopping = threading.Event()
        self._ended = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._wake = _Wake()
        self._thread = threading.Thread(target=self._run, name="ctbatch-reader", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        # A regular file on a dead network mount cannot be interrupted: the thread is left then.
        await asyncio.shield(asyncio.to_thread(self._thread.join, 5.0))
        if not self._thread.is_alive():
            self._wake.close()

    async def next(self) -> Batch | None:
        """The next batch; ``None`` at the end, or once the reader was stopped.

        Raises:
            InputBroke: a source failed; the batches before it were delivered.
            ResumeRefused: a source is not what the ledger recorded.
        """
        if self._ended:
            return None
        item = await self._arrived.get()
        self._ahead.release()
        if self._stopping.is_set() or not isinstance(item, Batch):
            self._ended = True
        if isinstance(item, CtbatchError):
            raise item
        return None if self._ended else item

    def stop(self) -> None:
        """Stop reading; :meth:`next` gives ``None`` from now on."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._ahead.release()
            self._wake.ring()
            self._arrived.put_nowait(None)

    def statistics(self) -> list[SourceStatistics]:
        """How far each source was read."""
        return self._statistics

    @property
    def stored_bytes_read(self) -> int:
        """Bytes read of all sources, as stored."""
        return sum(each.stored for each in self._statistics)

    # -- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        result: CtbatchError | None = None
        try:
            for index in range(len(self._specs)):
                for batch in self._read(index):
                    self._hand_over(batch)
        except _Stopped:
            pass
        except CtbatchError as error:
            result = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, result)

    def _hand_over(self, batch: Batch) -> None:
        self._ahead.acquire()
        if self._stopping.is_set():
            raise _Stopped
        self._loop.call_soon_threadsafe(self._arrived.put_nowait, batch)

    def _read(self, index: int) -> Iterator[Batch]:
        """The batches of one source."""
        spec, seen = self._specs[index], self._statistics[index]
        if self._left is not None and self._left <= 0:
            seen.ended = True
            return
        stream = _Stream(spec, index, self, self._recorded.get(index, ()))
        try:
            with open_stored(spec) as file:
                yield from stream.batches(file)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise InputBroke(spec.path, stream.lines, why) from None
        if self._left is not None:
            self._left -= stream.lines

    def _wait_for(self, file: BinaryIO, timeout_s: float | None) -> bool:
        """Wait until a pipe has data; ``False`` when the time is up."""
        if os.name == "nt":
            return True
        ready, _, _ = select.select([file.fileno(), self._wake.ends[0]], [], [], timeout_s)
        if self._stopping.is_set():
            raise _Stopped
        return bool(ready)


class _Stream:
    """One source being read: stored blocks in, batches out."""

    def __init__(
        self, spec: SourceSpec, index: int, reader: Reader, recorded: Sequence[RecordedSpan]
    ) -> None:
        self._spec = spec
        self._reader = reader
        self._seen = reader._statistics[index]
        self._known = {item.span: item for item in recorded}
        # A skipped span whose bytes are at hand is read and compared rather than passed over.
        self._seeks = not spec.is_pipe and index not in reader._verify
        self._batching = reader._batching
        self._recorded = recorded
        self._limit = reader._left
        self._index = index
        self._batcher = self._new_batcher(skip=self._seeks)
        self._due: float | None = None

    def _new_batcher(self, *, skip: bool) -> Batcher:
        recorded = [replace(item, skip=item.skip and skip) for item in self._recorded]
        return Batcher(self._index, self._batching, recorded=recorded, limit=self._limit)

    @property
    def lines(self) -> int:
        """Whole lines read."""
        return self._batcher.read[0]

    def batches(self, file: BinaryIO) -> Iterator[Batch]:
        """Read to the end."""
        head = self._head(file)
        kind = kind_of(head) if head else "plain"
        decoder = decoder_for(kind)
        if kind != "plain":
            self._seeks, self._batcher = False, self._new_batcher(skip=False)
        block = head
        while block and not self._batcher.over:
            self._seen.stored += len(block)
            for piece in decoder.feed(block):
                if self._reader._stopping.is_set():
                    raise _Stopped
                self._batcher.feed(piece)
                yield from self._cut()
            self._skip(file)
            if self._spec.is_pipe:
                yield from self._linger(file)
            block = file.read(BLOCK_BYTES)
        if not self._batcher.over and (head or kind != "plain"):
            decoder.finish()
        self._batcher.end()
        yield from self._cut()
        self._seen.ended = True

    def _head(self, file: BinaryIO) -> bytes:
        """The first bytes: enough to tell what it is."""
        head = b""
        while len(head) < MAGIC_BYTES:
            if self._spec.is_pipe:
                self._reader._wait_for(file, None)
            more = file.read(MAGIC_BYTES - len(head))
            if not more:
                break
            head += more
        return head

    def _cut(self) -> Iterator[Batch]:
        """Give the batches that can be cut."""
        try:
            while (batch := self._batcher.next()) is not None:
                yield from self._checked(batch)
        except SpanMismatch as error:
            why = f"line {error.line} is not what it was when the run began"
            raise self._refuse(why) from None
        self._seen.lines, self._seen.bytes = self._batcher.read

    def _checked(self, batch: Batch) -> Iterator[Batch]:
        """Give a batch unless it is done; a recorded one must be what was recorded."""
        known = self._known.get(batch.span)
        if known is not None and digest_of(batch) != known.digest:
            first, last = batch.span.first_line, batch.span.end_line - 1
            why = f"lines {first} to {last} are not what they were when the run began"
            raise self._refuse(why)
        if known is None or not known.skip:
            yield batch

    def _refuse(self, why: str) -> ResumeRefused:
        return ResumeRefused(self._spec.path, why, "bring back the file the run began with")

    def _skip(self, file: BinaryIO) -> None:
        """Seek past the done span that begins here."""
        to = self._batcher.seekable_to
        if self._seeks and to > file.tell():
            file.seek(to)
            self._batcher.jump(to)
            self._seen.stored = to

    # -- waiting on a pipe --------------------------------------------------------------------------

    def _linger(self, file: BinaryIO) -> Iterator[Batch]:
        """Wait for more of a pipe; what has waited for ``linger_s`` is cut and given."""
        while True:
            if not self._batcher.waiting:
                self._due = None
            elif self._due is None:
                self._due = time.monotonic() + self._batching.linger_s
            left = None if self._due is None else max(0.0, self._due - time.monotonic())
            ready = self._reader._wait_for(file, left)
            if self._due is not None and time.monotonic() >= self._due:
                self._due = None
                batch = self._batcher.cut()
                if batch is not None:
                    yield from self._checked(batch)
                    self._seen.lines, self._seen.bytes = self._batcher.read
            if ready:
                return


def count_rest(
    spec: SourceSpec, offset: int, lines: int, deadline: float, limit: int | None
) -> int | None:
    """How many lines a source has, of which ``lines`` end before ``offset`` of the stream.

    ``None`` if that cannot be said before ``deadline`` (of the monotonic clock). Blocks.
    """
    if spec.is_pipe:
        return None
    try:
        return _count_lines(spec, offset, lines, deadline, limit)
    except (OSError, ValueError):
        return None


def _count_lines(
    spec: SourceSpec, offset: int, lines: int, deadline: float, limit: int | None
) -> int | None:
    last = b"\n"
    with open_stored(spec) as file:
        for piece in _stream_from(file, offset):
            lines += piece.count(b"\n")
            last = piece[-1:]
            if limit is not None and lines >= limit:
                return limit
            if time.monotonic() > deadline:
                return None
    return lines + (last != b"\n")


def _stream_from(file: BinaryIO, offset: int) -> Iterator[bytes]:
    """The decompressed stream from ``offset`` on, in pieces that are not empty."""
    head = file.read(MAGIC_BYTES)
    kind = kind_of(head) if head else "plain"
    decoder = decoder_for(kind)
    if kind == "plain":
        file.seek(offset)
        offset = 0
    else:
        file.seek(0)
    while block := file.read(BLOCK_BYTES):
        for piece in decoder.feed(block):
            if offset < len(piece):
                yield piece[offset:]
            offset = max(0, offset - len(piece))
    if head:
        decoder.finish()


def read_line(spec: SourceSpec, number: int) -> bytes | None:
    """Read one line (1-based, without its line feed) of a source again; ``None`` if it cannot be."""
    if spec.is_pipe:
        return None
    rest = b""
    try:
        with open_stored(spec) as file:
            for piece in _stream_from(file, 0):
                lines = (rest + piece).split(b"\n")
                rest = lines.pop()
                if number <= len(lines):
                    return lines[number - 1].removeprefix(b"\xef\xbb\xbf")
                number -= len(lines)
    except (OSError, ValueError):
        return None
    return rest if number == 1 and rest else None
