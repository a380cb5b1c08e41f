"""Reads the inputs on a thread of its own and hands out batches as they are asked for.

``expand`` finds the inputs, :class:`Reader` reads them, ``count_rest`` counts what a run that ended
early did not read.

Invariants:

1. The event loop never waits for the thread, nor the thread for the loop: demand goes one way
   through a queue, batches come back through another, and ``call_soon_threadsafe`` tells of them.
2. At most six batches, and at most ``MAX_AHEAD_BYTES`` of them, are read beyond what was asked for.
3. :meth:`Reader.stop` ends it at once, also while the thread waits for an idle pipe.
4. What is wrong with an input arrives from :meth:`Reader.next`, after every whole line before it.

What the thread does is in :mod:`~ctbatch.pipeline.source.reading`; cutting is in
:mod:`~ctbatch.pipeline.batcher`, opening and unpacking in :mod:`~ctbatch.pipeline.source.streams`,
finding and refusing in :mod:`~ctbatch.pipeline.source.inputs`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import cast

from ctbatch.models import Batch
from ctbatch.pipeline.batcher import BOM, RecordedSpan, digest_of
from ctbatch.pipeline.source.again import Lines
from ctbatch.pipeline.source.inputs import SourceSpec, expand
from ctbatch.pipeline.source.reading import Reading, SourceStatistics
from ctbatch.pipeline.source.sniffing import Kind
from ctbatch.pipeline.source.streams import Damaged, RawFile, Stopped, Wake, unpack
from ctbatch.settings import Batching

__all__ = [
    "Kind",
    "Reader",
    "RecordedSpan",
    "SourceSpec",
    "SourceStatistics",
    "count_rest",
    "digest_of",
    "expand",
    "lines_again",
]

AHEAD_BATCHES = 6
"""Batches read beyond what was asked for, and asked for several at once, when a third of them is
left: each turn of the thread costs the loop the interpreter's lock (benchmarks/README.md)."""

MAX_AHEAD_BYTES = 12_000_000
"""What those may hold; with batches so large that one is more, nothing is read ahead."""

CLOSE_WAIT_S = 1.0
"""How long closing waits for a thread that hangs in a read (a dead network disk); then it is left
behind, and ends by itself or with the process."""


class Reader:
    """The lines of all sources, in order, as batches.

    ``limit`` ends the input after so many lines over all sources; ``recorded`` are spans by source
    that are cut as recorded, and left out where they are done; those of the sources in ``verify``
    are read all the same, and compared by digest.
    """

    def __init__(
        self,
        specs: Sequence[SourceSpec],
        batching: Batching,
        *,
        limit: int | None = None,
        recorded: Mapping[int, Sequence[RecordedSpan]] | None = None,
        verify: Collection[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        largest = max(batching.max_batch_bytes, batching.max_line_bytes)
        self._ahead = min(AHEAD_BATCHES, MAX_AHEAD_BYTES // largest)
        self._demand: SimpleQueue[bool] = SimpleQueue()
        self._asked = self._taken = 0
        self._arrived: deque[Batch | Exception | None] = deque()
        self._told = False
        self._news = asyncio.Event()
        self._finished = asyncio.Event()
        self._stopped = False
        self._wake = Wake(clock)
        self._reading = Reading(
            specs,
            batching,
            limit=limit,
            recorded=recorded or {},
            verify=verify,
            wake=self._wake,
            clock=clock,
        )

    async def __aenter__(self) -> Reader:
        self._loop = asyncio.get_running_loop()
        # A daemon: a read that hangs must not keep the process.
        threading.Thread(target=self._work, name="ctbatch-reader", daemon=True).start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop the thread; waits for it, but not for ever."""
        self.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WAIT_S):
                await self._finished.wait()

    async def next(self) -> Batch | None:
        """The next batch; ``None`` at the end of the last source, or once stopped.

        Raises:
            InputBroke: a source failed; all whole lines before the failure were delivered.
            InputError: a pipe turned out to be no NDJSON.
            ResumeRefused: a source is not the one that was recorded.
        """
        self._ask()
        while not self._stopped:
            if not self._arrived:
                self._news.clear()
                await self._news.wait()
                continue
            item = self._arrived[0]
            if isinstance(item, Batch):
                self._taken += 1
                return cast(Batch, self._arrived.popleft())
            if item is not None:  # the end stays the end
                raise item
            break
        return None

    def _ask(self) -> None:
        if self._asked - self._taken <= self._ahead // 3:
            while self._asked - self._taken <= self._ahead:
                self._asked += 1
                self._demand.put(True)

    def stop(self) -> None:
        """Have :meth:`next` return ``None`` from now on, and the thread end. Never blocks."""
        if self._stopped:
            return
        self._stopped = self._reading.stopping = True
        self._demand.put(False)
        self._wake.set()
        self._news.set()

    def statistics(self) -> tuple[SourceStatistics, ...]:
        """How far each source was read."""
        return tuple(self._reading.seen)

    @property
    def stored_bytes_read(self) -> int:
        """Bytes consumed of all sources, as stored."""
        return sum(seen.stored for seen in self._reading.seen)

    @property
    def bytes_total(self) -> int | None:
        """Bytes of all sources, as stored; ``None`` where one is a pipe."""
        sizes = [spec.size for spec in self._reading.specs]
        return None if None in sizes else sum(size or 0 for size in sizes)

    # ---------------------------------------------------------------- on the thread

    def _work(self) -> None:
        end: Exception | None = None
        batches = self._reading.batches()
        try:
            while self._demand.get():
                batch = next(batches, None)
                if batch is None:
                    break
                self._arrive(batch)
        except Stopped:
            pass
        except Exception as error:  # whatever it is, it belongs to whoever waits
            end = error
        finally:
            batches.close()
            self._arrive(end)
            self._call(self._finish)

    def _arrive(self, item: Batch | Exception | None) -> None:
        """Put it where the loop finds it, and tell the loop unless that is under way."""
        self._arrived.append(item)
        if not self._told:
            self._told = True
            self._call(self._tell)

    def _call(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function)

    # ---------------------------------------------------------------- back on the loop

    def _tell(self) -> None:
        self._told = False  # before anybody looks: what arrives after the look is told of again
        self._news.set()

    def _finish(self) -> None:
        self._wake.close()
        self._finished.set()


def count_rest(
    spec: SourceSpec,
    offset: int,
    lines: int,
    deadline: float,
    limit: int | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> int | None:
    """The number of lines of a source of which ``lines`` end at ``offset``; at most ``limit``.

    ``None`` where it cannot be counted: a pipe, a damaged archive, or the clock is past the
    deadline. Blocks.
    """
    if limit is not None and lines >= limit:
        return limit
    last = b"\n"
    try:
        for piece in _from(spec, offset):
            lines += piece.count(b"\n")
            if limit is not None and lines >= limit:
                return limit
            if clock() > deadline:
                return None
            last = piece[-1:]
    except (OSError, Damaged):
        return None
    return lines + (last != b"\n")


@contextmanager
def lines_again(
    specs: Sequence[SourceSpec],
) -> Iterator[Callable[[int, int, int], bytes | None]]:
    """Reads lines of inputs a second time, by source, first line of a batch and index in it;
    ``None`` where that cannot be done. Blocks.
    """
    opened: dict[int, Lines] = {}

    def line(source: int, first_line: int, index: int) -> bytes | None:
        if source not in opened:
            opened[source] = Lines(partial(_from, specs[source], 0))
        return opened[source].line(first_line + index)

    try:
        yield line
    finally:
        for lines in opened.values():
            lines.close()


def _from(spec: SourceSpec, offset: int) -> Generator[bytes, None, None]:
    """What is in a file from an offset on, without a BOM."""
    if spec.is_pipe:
        raise Damaged("a pipe cannot be read again")
    with RawFile(spec.path, pipe=False) as file:
        skip = offset
        if spec.kind is Kind.PLAIN:
            file.seek(offset)
            skip = 0
        for whole in unpack(file.blocks(), spec.kind):
            piece = whole[skip:]
            skip = max(0, skip - len(whole))
            if offset == 0:
                piece = piece.removeprefix(BOM)
                offset = -1
            if piece:
                yield piece
