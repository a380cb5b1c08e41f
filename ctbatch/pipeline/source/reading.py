"""What the reading thread does: one source after the other, as an iterator of batches.

Synchronous: it blocks where a disk or a pipe blocks, and
:class:`~ctbatch.pipeline.source.streams.Stopped` ends it. How batches get from the thread to the
loop is :mod:`~ctbatch.pipeline.source.reader`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from ctbatch.errors import InputBroke, ResumeRefused
from ctbatch.models import Batch
from ctbatch.pipeline.batcher import Batcher, RecordedSpan, SpanMismatch, digest_of
from ctbatch.pipeline.source.inputs import SourceSpec
from ctbatch.pipeline.source.sniffing import HEAD_BYTES, Kind, refuse_unless_ndjson, refused_packing
from ctbatch.pipeline.source.streams import Damaged, RawFile, Stopped, Undecodable, Wake, unpack
from ctbatch.settings import Batching

__all__ = ["Reading", "SourceStatistics"]

HEAD_WAIT_S = 1.0
"""How long the first lines of a pipe may be held to tell whether they are NDJSON."""


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """How far a source was read.

    ``lines`` whole lines and ``bytes`` of the (unpacked) stream up to the end of the last of them,
    skipped ones included; ``stored`` bytes of the input as stored; ``ended``: there is no more.
    """

    lines: int = 0
    bytes: int = 0
    stored: int = 0
    ended: bool = False


class Reading:
    """What the thread does: all sources, one after the other."""

    def __init__(
        self,
        specs: Sequence[SourceSpec],
        batching: Batching,
        *,
        limit: int | None,
        recorded: Mapping[int, Sequence[RecordedSpan]],
        verify: Collection[int],
        wake: Wake,
        clock: Callable[[], float],
    ) -> None:
        self.specs = specs
        self.seen = [SourceStatistics()] * len(specs)
        self.stopping = False
        self._batching = batching
        self._left = limit
        self._recorded = recorded
        self._verify = verify
        self._wake = wake
        self._clock = clock
        self._deadline: float | None = None

    def batches(self) -> Generator[Batch, None, None]:
        """The batches to deliver."""
        for index, spec in enumerate(self.specs):
            if self._left == 0:
                self.seen[index] = replace(self.seen[index], ended=True)
                continue
            spans = self._recorded.get(index, ())
            verify = index in self._verify
            wanted = [replace(span, skip=span.skip and not verify) for span in spans]
            known = {span.span: span for span in spans}
            with closing(self._read(index, spec, wanted)) as batches:
                for batch in batches:
                    recorded = known.get(batch.span)
                    digest = None if recorded is None else recorded.digest
                    if digest is not None and digest_of(batch) != digest:
                        raise _other_input(spec, batch.span.first_line)
                    if recorded is None or not recorded.skip:
                        yield batch
            if self._left is not None:
                self._left = max(0, self._left - self.seen[index].lines)

    def _read(
        self, index: int, spec: SourceSpec, recorded: Sequence[RecordedSpan]
    ) -> Generator[Batch, None, None]:
        """The batches of one source, those to compare only included."""
        batcher = Batcher(index, self._batching, recorded=recorded, limit=self._left)
        file: RawFile | None = None
        try:
            with RawFile(spec.path, pipe=spec.is_pipe) as file:
                yield from self._cut(index, spec, file, batcher)
                self._see(index, file, batcher, ended=True)
        except SpanMismatch as mismatch:
            raise _other_input(spec, mismatch.line) from None
        except (OSError, Damaged) as error:
            # Whole lines are delivered; the beginning of one is not taken for a line.
            if (batch := batcher.cut()) is not None:
                yield batch
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise InputBroke(spec.path, batcher.read[0], why or "reading failed") from None
        finally:
            if file is not None:
                self._see(index, file, batcher, ended=self.seen[index].ended)

    def _cut(
        self, index: int, spec: SourceSpec, file: RawFile, batcher: Batcher
    ) -> Iterator[Batch]:
        self._deadline = None
        pieces = self._pieces(spec, file)
        while not batcher.over:
            target = batcher.seekable_to
            if target is not None and spec.kind is Kind.PLAIN:
                file.seek(target)
                batcher.jump(target)
            if (piece := next(pieces, None)) is None:
                batcher.end()
            elif piece:
                batcher.feed(piece)
            elif (batch := batcher.cut()) is not None:
                yield batch
            while (batch := batcher.next()) is not None:
                self._deadline = None
                self._see(index, file, batcher)
                yield batch
            if piece is None:
                return
            self._watch_clock(batcher)
            self._see(index, file, batcher)

    def _pieces(self, spec: SourceSpec, file: RawFile) -> Iterator[bytes]:
        """What is read, unpacked; an empty piece where the clock is to be looked at."""
        if spec.is_pipe:
            return self._checked(spec, unpack(self._pipe_blocks(file)))
        return unpack(self._file_blocks(spec, file), spec.kind)

    def _file_blocks(self, spec: SourceSpec, file: RawFile) -> Iterator[bytes]:
        while block := file.read():
            yield block
            if self.stopping:
                raise Stopped
        if file.stored < (spec.size or 0):
            raise Damaged("the file was cut short while it was being read")

    def _pipe_blocks(self, file: RawFile) -> Iterator[bytes]:
        while True:
            if not self._wake.ready(file.fd, self._deadline):
                yield b""
                continue
            with suppress(BlockingIOError):  # somebody else shares the pipe and was quicker
                if not (block := file.read()):
                    return
                yield block

    def _checked(self, spec: SourceSpec, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Look at the beginning of a pipe before anything of it is delivered.

        It is waited for as long as for a batch, but not until ``HEAD_BYTES`` are there.
        """
        head, whole, broken = b"", False, None
        try:
            for piece in pieces:
                head += piece
                if len(head) >= HEAD_BYTES or (not piece and b"\n" in head):
                    break
                if not piece:
                    self._deadline = None
                elif self._deadline is None:
                    patience_s = min(self._batching.linger_s, HEAD_WAIT_S)
                    self._deadline = self._clock() + patience_s
            else:
                whole = True
        except Undecodable as error:
            raise refused_packing(spec.path, str(error), error.command, Kind.PIPE) from None
        except (OSError, Damaged) as error:
            broken = error
        refuse_unless_ndjson(spec.path, head, whole=whole, kind=Kind.PIPE)
        self._deadline = None
        yield head
        if broken is not None:
            raise broken
        yield from pieces

    def _watch_clock(self, batcher: Batcher) -> None:
        """Begin to wait when the first whole line of a batch is there."""
        if not batcher.waiting:
            self._deadline = None
        elif self._deadline is None:
            self._deadline = self._clock() + self._batching.linger_s

    def _see(self, index: int, file: RawFile, batcher: Batcher, *, ended: bool = False) -> None:
        # One assignment of one value: the loop reads it without a lock.
        lines, offset = batcher.read
        self.seen[index] = SourceStatistics(lines, offset, file.stored, ended)


def _other_input(spec: SourceSpec, line: int) -> ResumeRefused:
    why = f"line {line:,} is not what the run recorded: the part already read was changed"
    remedy = "bring back the input the run began with, or begin a new run"
    return ResumeRefused(spec.path, why, remedy)
