"""Reading: every kind of input gives the same lines, on demand, and ends at once when told."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import os
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctbatch.errors import InputBroke, InputError, ResumeRefused
from ctbatch.models import Batch, Overlong
from ctbatch.pipeline.source.reader import (
    Kind,
    Reader,
    RecordedSpan,
    SourceSpec,
    SourceStatistics,
    count_rest,
    digest_of,
    expand,
    lines_again,
)
from ctbatch.pipeline.source.streams import Damaged, unpack
from ctbatch.settings import Batching

SMALL = Batching(batch_size=10, linger_s=0.02)
LATER = float("inf")


@pytest.fixture(autouse=True, scope="module")
def loops_keep_what_they_keep() -> None:
    """libuv opens a pipe for the process with its first loop; that one is no leak of ours."""
    uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    """Whatever a test opens through us is closed at its end, and no thread is left."""
    before = _open_fds()
    yield
    for thread in threading.enumerate():
        if thread.name == "ctbatch-reader":
            thread.join(1)
    assert _open_fds() <= before


def _open_fds() -> set[tuple[str, str]]:
    open_now = set()
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            target = str(fd.readlink())
            if target.startswith(("/tmp", "pipe:")):  # noqa: S108  # where the tests' files are
                open_now.add((fd.name, target))
    return open_now


def profiles(count: int, start: int = 0) -> bytes:
    """So many lines."""
    return b"".join(b'{"identity":"u%d"}\n' % n for n in range(start, start + count))


def written(path: Path, data: bytes) -> Path:
    """A file with the data."""
    path.write_bytes(data)
    return path


async def read_all(reader: Reader) -> list[Batch]:
    """Everything a reader gives."""
    batches = []
    async with reader:
        while (batch := await reader.next()) is not None:
            batches.append(batch)
        assert await reader.next() is None
    return batches


async def found(*paths: Path | str) -> tuple[SourceSpec, ...]:
    """The sources that files are; finding them blocks."""
    return await asyncio.to_thread(expand, paths)


async def counted(spec: SourceSpec, seen: SourceStatistics) -> int | None:
    """The lines of a source of which a part was read; counting blocks."""
    return await asyncio.to_thread(count_rest, spec, seen.bytes, seen.lines, LATER)


async def read_until_broken(reader: Reader) -> tuple[list[Batch], InputBroke]:
    """What a reader gives until an input breaks, and the error."""
    batches: list[Batch] = []
    async with reader:
        try:
            while (batch := await reader.next()) is not None:
                batches.append(batch)
        except InputBroke as error:
            with pytest.raises(InputBroke):
                await reader.next()
            return batches, error
    pytest.fail("nothing broke")


async def read_paths(*paths: Path, batching: Batching = SMALL, **options: Any) -> list[Batch]:
    """Everything in some files."""
    return await read_all(Reader(await found(*paths), batching, **options))


def joined(batches: Sequence[Batch]) -> bytes:
    """The data of batches."""
    return b"".join(batch.data for batch in batches)


# -------------------------------------------------------------------- kinds of input


async def test_sources_are_read_in_order(tmp_path: Path) -> None:
    """Each source begins at line 1, and no batch holds lines of two."""
    first = written(tmp_path / "a", profiles(25))
    second = written(tmp_path / "b", profiles(12, 100))
    empty = written(tmp_path / "c", b"")
    specs = await found(first, empty, second)
    reader = Reader(specs, SMALL)
    batches = await read_all(reader)
    assert [(b.span.source, b.span.first_line, b.span.lines) for b in batches] == [
        (0, 1, 10),
        (0, 11, 10),
        (0, 21, 5),
        (2, 1, 10),
        (2, 11, 2),
    ]
    sizes = [len(profiles(25)), 0, len(profiles(12, 100))]
    assert reader.statistics() == (
        SourceStatistics(25, sizes[0], sizes[0], ended=True),
        SourceStatistics(0, 0, 0, ended=True),
        SourceStatistics(12, sizes[2], sizes[2], ended=True),
    )
    assert reader.stored_bytes_read == reader.bytes_total == sum(sizes)


async def test_bytes_are_left_as_they_are(tmp_path: Path) -> None:
    """CRLF, NUL, invalid UTF-8 and blank lines are kept; only a BOM at the start goes."""
    text = b'{"a":1}\r\n\n\0\n\xff\xfe\n\xef\xbb\xbf{}\n{"last":1}'
    (batch,) = await read_paths(written(tmp_path / "a", b"\xef\xbb\xbf" + text))
    assert batch.data == text
    assert batch.lines() == text.split(b"\n")
    assert (batch.span.offset, batch.span.size) == (0, len(text) + 3)


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(profiles(500), mtime=0),
        gzip.compress(profiles(200), mtime=0)
        + gzip.compress(b"", mtime=0)
        + gzip.compress(profiles(300, 200), mtime=0),
        gzip.compress(profiles(500), mtime=0) + b"\0" * 1000,
        zstd.compress(profiles(500)),
        zstd.compress(profiles(200)) + zstd.compress(profiles(300, 200)),
        b"\x50\x2a\x4d\x18\4\0\0\0abcd"
        + zstd.compress(profiles(500))
        + b"\x5f\x2a\x4d\x18\0\0\0\0",
    ],
    ids=["gzip", "gzip members", "gzip padding", "zstd", "zstd frames", "zstd skippable"],
)
async def test_archives_are_read_by_content(tmp_path: Path, packed: bytes) -> None:
    """gzip and zstd, of several parts too, give the lines of what was packed; also from a pipe."""
    (spec,) = specs = await found(written(tmp_path / "a.ndjson", packed))
    reader = Reader(specs, SMALL)
    assert joined(await read_all(reader)) == profiles(500)
    (seen,) = reader.statistics()
    assert seen == SourceStatistics(500, len(profiles(500)), len(packed), ended=True)
    assert await counted(spec, SourceStatistics()) == 500
    assert joined(await read_piped(packed)) == profiles(500)


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_archives_may_come_in_any_pieces(data: st.DataObject) -> None:
    """A header with every optional field (bgzip writes extra ones) may be cut anywhere."""
    text, flags = profiles(50), data.draw(st.integers(0, 31))
    member = gzip.compress(text, mtime=0)
    header = b"\x1f\x8b\x08" + bytes([flags]) + b"\0" * 6
    header += b"\5\0extra" * bool(flags & 4) + b"name\0" * bool(flags & 8)
    header += b"comment\0" * bool(flags & 16)
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") * bool(flags & 2)
    packed = data.draw(st.sampled_from([(header + member[10:]) * 2, zstd.compress(text) * 2]))
    step = data.draw(st.integers(1, 40))
    blocks = [packed[at : at + step] for at in range(0, len(packed), step)]
    assert b"".join(unpack(blocks)) == text * 2


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        (gzip.compress(profiles(2000), mtime=0)[:-1], "cut short"),
        (gzip.compress(profiles(2000), mtime=0)[:3000], "cut short"),
        (gzip.compress(profiles(2000), mtime=0)[:5], "cut short"),
        (gzip.compress(profiles(2000), mtime=0) + b"\x1f\x8b", "cut short"),
        (gzip.compress(profiles(2000), mtime=0)[:-8] + b"\0" * 8, "corrupt"),
        (gzip.compress(profiles(2000), mtime=0) + b"\0\0garbage", "follows the end"),
        (b"\x1f\x8b\x08\x08" + b"n" * (2 << 20), "header does not end"),
        (zstd.compress(profiles(90_000))[:-9], "cut short"),
        (zstd.compress(profiles(2000)) + b"garbage", "follows the end"),
        (zstd.compress(profiles(2000)) + b"\x1f\x8b\x08" + b"\0" * 5000, "follows the end"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 30, "corrupt"),
    ],
)
async def test_a_damaged_archive_gives_its_whole_lines_and_an_error(
    tmp_path: Path, packed: bytes, says: str
) -> None:
    """The error names the file and the last good line; a line cut in two is never delivered."""
    path = written(tmp_path / "a.gz", packed)
    reader = Reader(specs := await found(path), SMALL)
    batches, error = await read_until_broken(reader)
    lines = sum(batch.span.lines for batch in batches)
    assert (error.path, error.last_good_line) == (str(path), lines)
    assert says in error.why
    assert profiles(90_000).startswith(joined(batches))
    assert not batches or joined(batches).endswith(b"\n")
    (seen,) = reader.statistics()
    assert (seen.lines, seen.ended) == (lines, False)
    assert await counted(specs[0], seen) is None


async def test_a_truncated_archive_loses_no_whole_line(tmp_path: Path) -> None:
    """What gzip itself would still give is delivered up to its last line end."""
    packed = gzip.compress(profiles(2000), mtime=0)[:4000]
    whole = zlib.decompressobj(wbits=31).decompress(packed)
    batches, _ = await read_until_broken(
        Reader(await found(written(tmp_path / "a", packed)), SMALL)
    )
    assert whole[: whole.rindex(b"\n") + 1] == joined(batches)


async def test_an_archive_that_explodes_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """100 MB of one line in 100 KB of gzip or zstd is an overlong line, not a heap of memory."""
    for pack in (lambda data: gzip.compress(data, 1, mtime=0), zstd.compress):
        packed = pack(b"a\n" + b"x" * 100_000_000 + b"\nb\n")
        specs = await found(written(tmp_path / "a", packed))
        del packed
        tracemalloc.start()
        (batch,) = await read_all(Reader(specs, SMALL))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert batch.overlong == (Overlong(1, 2, 100_000_000),)
        assert batch.data == b"a\n\nb\n"
        assert peak < 5 << 20


def test_padding_after_an_archive_is_not_held() -> None:
    """Zeros fill a preallocated file or a tape's last block: 40 MB of them are a moment and no
    memory, and a member after them is read.
    """
    member, zeros = gzip.compress(profiles(5), mtime=0), bytes(1 << 20)
    tracemalloc.start()
    pieces = list(unpack(itertools.chain([member], itertools.repeat(zeros, 40), [b"\0" + member])))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert b"".join(pieces) == profiles(5) * 2
    assert peak < 1 << 20


async def test_an_overlong_line_is_skipped(tmp_path: Path) -> None:
    """A 5 MB line stands as an empty one with its place and size; the lines around it are whole."""
    long = b"{" + b"x" * 5_000_000
    (batch,) = await read_paths(written(tmp_path / "a", b"{}\n" + long + b"\r\n{}\n"))
    assert batch.data == b"{}\n\n{}\n"
    assert batch.overlong == (Overlong(1, 3, len(long) + 1),)


async def test_a_file_that_vanishes_or_shrinks_breaks_the_input(tmp_path: Path) -> None:
    """It is told from one that ended."""
    path = written(tmp_path / "a", profiles(15))
    specs = await found(path)
    path.write_bytes(profiles(12) + b"{")
    batches, error = await read_until_broken(Reader(specs, SMALL))
    assert (len(batches), error.last_good_line) == (2, 12)
    assert joined(batches) == profiles(12)
    path.unlink()
    batches, error = await read_until_broken(Reader(specs, SMALL))
    assert (batches, error.last_good_line) == ([], 0)
    assert "No such file" in error.why


# -------------------------------------------------------------------- pipes


def piped(read_fd: int) -> SourceSpec:
    """The source that a descriptor is."""
    (spec,) = expand([f"/dev/fd/{read_fd}"])
    return spec


async def read_piped(data: bytes, batching: Batching = SMALL, **options: Any) -> list[Batch]:
    """Everything that comes through a pipe when a thread writes the data."""
    read_fd, write_fd = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(write_fd, "wb") as pipe:
            pipe.write(data)

    writer = asyncio.create_task(asyncio.to_thread(write))
    try:
        return await read_all(Reader([piped(read_fd)], batching, **options))
    finally:
        os.close(read_fd)
        await writer


async def test_a_pipe_is_read_to_its_end() -> None:
    """More than a pipe holds, and a last line without an end."""
    text = profiles(20_000) + b"{}"
    batches = await read_piped(text, Batching())
    assert joined(batches) == text
    assert sum(batch.span.lines for batch in batches) == 20_001


async def test_an_empty_pipe_is_an_empty_source() -> None:
    """No lines, no error."""
    assert await read_piped(b"") == []


async def test_a_pipe_that_trickles_is_cut_by_the_clock() -> None:
    """Whole lines are delivered after the linger, without waiting for the pipe to end."""
    read_fd, write_fd = os.pipe()
    async with Reader([piped(read_fd)], SMALL) as reader:
        for text in (b'{"a":1}\n{"a":2}\n{"b', b'":3}\n', b'{"c":4}\n'):
            os.write(write_fd, text)
            batch = await reader.next()
            assert batch is not None
            assert batch.data.endswith(b"}\n")
        assert batch is not None
        assert batch.span.first_line == 4
        os.write(write_fd, b"{}")
        os.close(write_fd)
        batch = await reader.next()
        assert batch is not None
        assert batch.data == b"{}"
        assert await reader.next() is None
    os.close(read_fd)


async def test_the_linger_counts_from_the_first_line() -> None:
    """A line now and then does not put the batch off for ever: the clock is the injected one."""
    ticks = itertools.count(step=10)
    read_fd, write_fd = os.pipe()
    batching = Batching(linger_s=3)
    async with Reader([piped(read_fd)], batching, clock=lambda: next(ticks)) as reader:
        os.write(write_fd, b"{}\n")
        began = time.monotonic()
        batch = await reader.next()
        assert batch is not None
        assert batch.data == b"{}\n"
        assert time.monotonic() - began < 10
    os.close(read_fd)
    os.close(write_fd)


@pytest.mark.parametrize("before", [b"", b"{}\n{}\n{", b"\x1f"])
async def test_an_idle_pipe_does_not_delay_a_stop(before: bytes) -> None:
    """``next`` gives ``None`` at once though the pipe stays open; lines read are counted."""
    read_fd, write_fd = os.pipe()
    async with Reader([piped(read_fd)], Batching(linger_s=0.01)) as reader:
        os.write(write_fd, before)
        for _ in range(before.count(b"\n") // 2):
            assert await reader.next() is not None
        waiting = asyncio.create_task(reader.next())
        await asyncio.sleep(0)
        reader.stop()
        reader.stop()
        async with asyncio.timeout(1):
            assert await waiting is None
        assert await reader.next() is None
    (seen,) = reader.statistics()
    assert seen.lines == before.count(b"\n")
    assert not seen.ended
    assert reader.bytes_total is None
    os.close(read_fd)
    os.close(write_fd)


async def test_a_fifo_is_opened_without_its_writer(tmp_path: Path) -> None:
    """A stop is heard before anybody writes; what is written later is read."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with Reader(await found(fifo), SMALL) as reader:
        waiting = asyncio.create_task(reader.next())
        await asyncio.sleep(0)
        reader.stop()
        assert await waiting is None
    async with Reader(await found(fifo), SMALL) as reader:
        waiting = asyncio.create_task(reader.next())
        await asyncio.to_thread(fifo.write_bytes, profiles(3))
        batch = await waiting
        assert batch is not None
        assert batch.data == profiles(3)
        assert await reader.next() is None


async def test_a_pipe_that_is_not_ndjson_is_refused_before_a_line_is_delivered() -> None:
    """As a file would be; a bad first line is still only an invalid line."""
    with pytest.raises(InputError, match="JSON array"):
        await read_piped(b'[{"a":1},\n{"a":2}]\n')
    with pytest.raises(InputError, match="table"):
        await read_piped(gzip.compress(b"name,mail\nx,y\n", mtime=0))
    assert joined(await read_piped(b"name,mail\n{}\n")) == b"name,mail\n{}\n"


async def test_a_broken_pipe_archive_gives_its_whole_lines() -> None:
    """Also where it breaks while the beginning is looked at."""
    read_fd, write_fd = os.pipe()
    os.write(write_fd, gzip.compress(profiles(30), mtime=0)[:-4])
    os.close(write_fd)
    batches, error = await read_until_broken(Reader([piped(read_fd)], SMALL))
    assert joined(batches) == profiles(30)
    assert error.last_good_line == 30
    os.close(read_fd)


async def test_an_endless_pipe_is_read_in_constant_memory() -> None:
    """Nothing is read beyond six batches more than were asked for."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    batching = Batching(batch_size=1000, linger_s=60)
    async with Reader([piped(read_fd)], batching) as reader:
        for _ in range(3):
            text, sent = profiles(4000), 0
            batch: asyncio.Task[Batch | None] | None = None
            while sent < len(text):
                with suppress(BlockingIOError):
                    sent += os.write(write_fd, text[sent:])
                if batch is None or batch.done():
                    batch = asyncio.create_task(reader.next())
                await asyncio.sleep(0)
            if batch is not None:
                batch.cancel()
            (seen,) = reader.statistics()
            assert reader.stored_bytes_read <= seen.bytes + (1 << 20)
    os.close(read_fd)
    os.close(write_fd)


# -------------------------------------------------------------------- demand, limit, stop


async def test_reading_waits_for_demand(tmp_path: Path) -> None:
    """At most six batches are read ahead, none where batches are huge."""
    path = written(tmp_path / "a", profiles(300_000))
    for batching, ahead in ((Batching(), 6), (Batching(max_batch_bytes=50_000_000), 0)):
        async with Reader(await found(path), batching) as reader:
            for taken in range(1, 30):
                assert await reader.next() is not None
                (seen,) = reader.statistics()
                assert seen.lines <= (taken + ahead) * 1000
        assert not seen.ended


@pytest.mark.parametrize("limit", [1, 9, 10, 11, 30, 31, 45, 99])
async def test_a_limit_ends_the_input(tmp_path: Path, limit: int) -> None:
    """It counts blank lines, over all sources; what is beyond it does not exist."""
    texts = [profiles(20) + b"\n" * 10, profiles(15, 50)]
    paths = [written(tmp_path / str(n), text) for n, text in enumerate(texts)]
    reader = Reader(await found(*paths), SMALL, limit=limit)
    batches = await read_all(reader)
    whole = b"".join(texts).splitlines(keepends=True)
    assert joined(batches) == b"".join(whole[:limit])
    seen = reader.statistics()
    assert all(source.ended for source in seen)
    assert sum(source.lines for source in seen) == min(limit, 45)


async def test_a_stop_leaves_consistent_figures(tmp_path: Path) -> None:
    """From where reading stopped the rest can be counted, to the same total."""
    path = written(tmp_path / "a", profiles(50_000))
    (spec,) = specs = await found(path)
    async with Reader(specs, SMALL) as reader:
        assert await reader.next() is not None
        reader.stop()
        assert await reader.next() is None
        (seen,) = reader.statistics()
        assert await counted(spec, seen) == 50_000


async def test_a_reader_that_was_never_asked_closes(tmp_path: Path) -> None:
    """No batch, no thread, no descriptor is left."""
    async with Reader(await found(written(tmp_path / "a", profiles(3))), SMALL) as reader:
        pass
    assert await reader.next() is None


# -------------------------------------------------------------------- resume


async def recorded_spans(path: Path, batching: Batching = SMALL) -> list[RecordedSpan]:
    """A file's spans, as a run that is done with all of them recorded them."""
    batches = await read_paths(path, batching=batching)
    return [RecordedSpan(batch.span, skip=True, digest=digest_of(batch)) for batch in batches]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
@pytest.mark.parametrize("verify", [False, True])
async def test_what_is_done_is_skipped(tmp_path: Path, pack: Any, *, verify: bool) -> None:
    """Only what is not recorded is delivered, cut anew; lines and offsets go on."""
    path = written(tmp_path / "a", pack(profiles(100)))
    spans = await recorded_spans(path)
    spans = [span for n, span in enumerate(spans) if n not in {3, 4, 9}]
    reader = Reader(
        await found(path), Batching(), recorded={0: spans}, verify={0} if verify else set()
    )
    batches = await read_all(reader)
    assert [(batch.span.first_line, batch.span.lines) for batch in batches] == [(31, 20), (91, 10)]
    assert joined(batches) == profiles(20, 30) + profiles(10, 90)
    (seen,) = reader.statistics()
    assert (seen.lines, seen.bytes, seen.ended) == (100, len(profiles(100)), True)


async def test_done_parts_of_a_file_are_not_read(tmp_path: Path) -> None:
    """A plain file is sought past them: their bytes do not even have to be readable lines."""
    path = written(tmp_path / "a", profiles(50_000))
    spans = await recorded_spans(path, Batching())
    data = bytearray(path.read_bytes())
    data[: spans[40].span.offset - 1] = b"x" * (spans[40].span.offset - 1)
    specs = await found(path)
    path.write_bytes(data)
    batches = await read_all(Reader(specs, Batching(), recorded={0: spans[:40] + spans[41:]}))
    assert [batch.span for batch in batches] == [spans[40].span]


async def test_unfinished_spans_are_delivered_as_recorded(tmp_path: Path) -> None:
    """Whatever the batch size is now, and with their digest compared."""
    path = written(tmp_path / "a", profiles(40))
    spans = await recorded_spans(path)
    open_span = RecordedSpan(spans[1].span, skip=False, digest=spans[1].digest)
    batches = await read_paths(path, batching=Batching(), recorded={0: [open_span]})
    assert [(batch.span.first_line, batch.span.lines) for batch in batches] == [
        (1, 10),
        (11, 10),
        (21, 20),
    ]
    wrong = RecordedSpan(spans[1].span, skip=False, digest=b"?" * 16)
    with pytest.raises(ResumeRefused, match="line 11 "):
        await read_paths(path, recorded={0: [wrong]})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda text: text.replace(b"u15", b"v15"), 11),
        (lambda text: text.replace(b'"u15"', b'"longer"'), 11),
        (lambda text: text[:150], 9),
        (lambda text: b"", 1),
    ],
)
async def test_a_changed_input_is_refused(tmp_path: Path, change: Any, line: int) -> None:
    """The error names the source and the first line that differs; nothing wrong is delivered."""
    path = written(tmp_path / "a", profiles(40))
    spans = await recorded_spans(path)
    path.write_bytes(change(profiles(40)))
    with pytest.raises(ResumeRefused) as caught:
        await read_paths(path, recorded={0: spans}, verify={0})
    assert caught.value.subject == str(path)
    assert f"line {line} " in caught.value.why


async def test_a_file_that_only_grew_goes_on(tmp_path: Path) -> None:
    """Also where its last line had no terminator when it was recorded."""
    path = written(tmp_path / "a", profiles(15) + b"{}")
    spans = await recorded_spans(path)
    path.write_bytes(profiles(15) + b"{}\n" + profiles(2))
    for verify in (set[int](), {0}):
        (batch,) = await read_paths(path, recorded={0: spans}, verify=verify)
        assert (batch.data, batch.span.first_line) == (profiles(2), 17)


async def test_a_pipe_is_skipped_by_digest() -> None:
    """Standard input is read again from its start; what is done is compared and left out."""
    batches = await read_piped(profiles(30))
    spans = [RecordedSpan(batch.span, skip=True, digest=digest_of(batch)) for batch in batches[:2]]
    rest = await read_piped(profiles(30), recorded={0: spans}, verify={0})
    assert rest == batches[2:]
    with pytest.raises(ResumeRefused):
        await read_piped(profiles(30, 1), recorded={0: spans}, verify={0})
    with pytest.raises(ResumeRefused):
        await read_piped(profiles(3), recorded={0: spans}, verify={0})


# -------------------------------------------------------------------- counting and re-reading


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
def test_the_rest_is_counted(tmp_path: Path, pack: Any) -> None:
    """From an offset on, up to a limit, a last line without an end included."""
    text = b"\xef\xbb\xbf" + profiles(30) + b"{}"
    (spec,) = expand([written(tmp_path / "a", pack(text))])
    assert count_rest(spec, 0, 0, LATER) == 31
    assert count_rest(spec, 3 + len(profiles(20)), 20, LATER) == 31
    assert count_rest(spec, len(text), 31, LATER) == 31
    assert count_rest(spec, 0, 0, LATER, 31) == 31
    assert count_rest(spec, 0, 0, LATER, 7) == 7
    assert count_rest(spec, 0, 7, LATER, 7) == 7
    assert count_rest(spec, 0, 0, time.monotonic() - 1) is None


def test_what_cannot_be_counted_is_said(tmp_path: Path) -> None:
    """A pipe, or a file that is gone."""
    assert count_rest(SourceSpec("-", Kind.PIPE), 0, 5, LATER) is None
    assert count_rest(SourceSpec("-", Kind.PIPE), 0, 5, LATER, 5) == 5
    assert count_rest(SourceSpec(str(tmp_path / "gone"), Kind.PLAIN), 0, 5, LATER) is None
    (bom_only,) = expand([written(tmp_path / "a", b"\xef\xbb\xbf")])
    assert count_rest(bom_only, 0, 0, LATER) == 0


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_line_can_be_read_again(tmp_path: Path, pack: Any) -> None:
    """By its number, byte for byte, wherever blocks end."""
    lines = [b"x" * (n * 37 % 5000) + b"\r" for n in range(1, 800)]
    text = b"\xef\xbb\xbf" + b"\n".join(lines)
    (spec,) = expand([written(tmp_path / "a", pack(text))])
    with lines_again([SourceSpec("-", Kind.PIPE), spec]) as again:
        for number in (1, 2, 105, 106, 107, 400, 799, 800, 3, 3, 800, *range(1, 801)):
            assert again(1, number, 0) == (lines[number - 1] if number < 800 else None)
        assert again(1, 100, 7) == lines[106]
        assert again(0, 1, 0) is None


@pytest.mark.parametrize("head", [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"])
async def test_an_archive_cut_to_its_first_bytes_is_not_text(tmp_path: Path, head: bytes) -> None:
    """It is cut short, whether a file or from a pipe."""
    for length in range(1, len(head) + 1):
        specs = await found(written(tmp_path / "a", head[:length]))
        _, error = await read_until_broken(Reader(specs, SMALL))
        assert "cut short" in error.why
        with pytest.raises(Damaged, match="cut short"):
            list(unpack([head[:length]]))


@pytest.mark.parametrize("text", [b"", b"P", b"[", b"\x1f\n", b"\x1f\x8b\n", b"(\n", b"P*"])
async def test_text_that_begins_like_an_archive_is_text(tmp_path: Path, text: bytes) -> None:
    """Only a whole input that is the beginning of a magic number is an archive that was cut."""
    assert joined(await read_paths(written(tmp_path / "a", text))) == text
    assert b"".join(unpack([text])) == text
