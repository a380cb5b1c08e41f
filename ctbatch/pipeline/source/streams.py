"""Bytes out of files and pipes: opening, waiting, unpacking.

Blocks travel as iterators of ``bytes``; an empty one means "nothing for now", so that the reader
can look at its clock. Nothing here knows of lines.

Invariants:

1. Memory is bounded whatever the input: a step gives at most ``STEP_BYTES``.
2. An archive that ends early, fails its checksum or is followed by something else raises
   :class:`Damaged`, after everything before it was given; one that is intact but not for us to
   decode raises :class:`Undecodable`.
"""

from __future__ import annotations

import math
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, cast

from isal import igzip_lib

from ctbatch.pipeline.source.sniffing import HEAD_BYTES, Kind, kind_of, kind_of_all

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "BLOCK_BYTES",
    "Damaged",
    "RawFile",
    "Stopped",
    "Undecodable",
    "Wake",
    "fd_of",
    "head_of",
    "unpack",
]

BLOCK_BYTES = 1 << 20
"""Bytes to read at once. Each read gives the interpreter's lock away: with a quarter of this an
upload took 1.15 times the CPU (twelve interleaved ones of 400,000 lines, medians)."""

STEP_BYTES = 1 << 18
"""Bytes to unpack at once."""

_PACKED_STEP_BYTES = 1 << 16
"""Packed bytes to unpack at once: what isal unpacked before damage in the same step is lost."""

_MAX_HEADER_BYTES = 1 << 20

_BEYOND_US = {
    "too much memory": ("was packed with a window of more than 128 MiB", "zstd -dc --long=31"),
    "Dictionary mismatch": ("was packed with a dictionary", "zstd -dc -D DICTIONARY"),
}
"""What zstd says (its ``error_private.c``) of frames that it will not decode for us, and what will;
128 MiB is its own bound on the memory that a stranger's file may ask for.
"""

_FD_PATH = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})")
"""No system has descriptors of more digits, nor can all of them be asked about in C's int."""


class Damaged(Exception):
    """The bytes cannot be unpacked any further; the text says why."""


class Undecodable(Damaged):
    """Nothing is wrong with the bytes, but it takes ``command`` to unpack them."""

    def __init__(self, why: str, command: str) -> None:
        super().__init__(why)
        self.command = command


class Stopped(Exception):
    """Reading was told to stop while it waited."""


def fd_of(path: str) -> int | None:
    """The descriptor that a path stands for: ``-``, ``/dev/stdin``, ``/dev/fd/N``."""
    if path in {"-", "/dev/stdin"}:
        return 0
    match = _FD_PATH.fullmatch(path)
    return int(match[1]) if match else None


class RawFile:
    """An input open for reading; ``stored`` counts the bytes consumed, as they are stored."""

    def __init__(self, path: str, *, pipe: bool) -> None:
        """May block, and raises ``OSError``. A FIFO is opened without waiting for its writer."""
        number = fd_of(path)
        if number is not None:
            self.fd = os.dup(number)
        else:
            # O_NONBLOCK: opening a FIFO would wait for a writer, deaf to a stop.
            flags = os.O_RDONLY | (getattr(os, "O_NONBLOCK", 0) if pipe else 0)
            self.fd = os.open(path, flags | getattr(os, "O_BINARY", 0))
        self.stored = 0

    def __enter__(self) -> RawFile:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)

    def read(self) -> bytes:
        """The next block, empty at the end; may block."""
        block = os.read(self.fd, BLOCK_BYTES)
        self.stored += len(block)
        return block

    def seek(self, offset: int) -> None:
        """Go to an offset of a plain file."""
        self.stored = os.lseek(self.fd, offset, os.SEEK_SET)

    def blocks(self) -> Iterator[bytes]:
        """The rest, block by block."""
        while block := self.read():
            yield block


class Wake:
    """Waits for a descriptor, and can be woken from another thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        self._closed = False

    def set(self) -> None:
        """Have every wait, from now on, raise :class:`Stopped`. Never blocks."""
        if not self._closed:
            with suppress(BlockingIOError):  # a full pipe wakes as well
                os.write(self._write_fd, b"!")

    def close(self) -> None:
        """Close the descriptors; nobody may be waiting. Call it where :meth:`set` is called."""
        if not self._closed:
            self._closed = True
            os.close(self._read_fd)
            os.close(self._write_fd)

    def ready(self, fd: int, deadline: float | None) -> bool:
        """Block until there is something to read, or ``False`` once the clock is at the deadline.

        Raises:
            Stopped: woken.
        """
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        poll.register(fd, select.POLLIN)
        while True:
            left_ms = None
            if deadline is not None:
                left_ms = max(0, math.ceil((deadline - self._clock()) * 1000))
            ready = {found for found, _ in poll.poll(left_ms)}
            if self._read_fd in ready:
                raise Stopped
            if ready:
                return True
            if deadline is not None and self._clock() >= deadline:
                return False


# ---------------------------------------------------------------- unpacking


class _Decoder(Protocol):
    """What isal's and zstd's decoders have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Packing:
    """A format made of frames that follow one another, with ``padding`` between them.

    ``ready`` takes the first bytes of a frame and says whether a decoder can take over: if not,
    they are held until there are more.
    """

    name: str
    make: Callable[[], _Decoder]
    ready: Callable[[bytes], bool]
    padding: bytes
    error: type[Exception]


def unpack(blocks: Iterable[bytes], kind: Kind | None = None) -> Iterator[bytes]:
    """What is in the blocks, unpacked as ``kind`` or as their first bytes say.

    Raises:
        Damaged: an archive is cut short or corrupt.
    """
    blocks = iter(blocks)
    head = b""
    while kind is None or kind is Kind.PIPE:
        block = next(blocks, None)
        if block is None:
            kind = kind_of_all(head)
            break
        head += block
        kind = kind_of(head)
        if kind is None:
            yield b""
    whole = chain([head], blocks) if head else blocks
    return (yield from (_frames(whole, _PACKINGS[kind]) if kind in _PACKINGS else whole))


def head_of(path: str, kind: Kind) -> tuple[bytes, bool]:
    """The first ``HEAD_BYTES`` of what is in a file, as far as it can be unpacked, and whether that
    is all there is.

    Raises:
        Undecodable: it never can be, not here.
    """
    head = b""
    with RawFile(path, pipe=False) as file:
        try:
            for piece in unpack(file.blocks(), kind):
                head += piece
                if len(head) > HEAD_BYTES:
                    return head[:HEAD_BYTES], False
        except Undecodable:
            raise
        except Damaged:
            return head, False
    return head, True


def _frames(blocks: Iterable[bytes], packing: _Packing) -> Iterator[bytes]:
    """Unpack frame after frame."""
    decoder: _Decoder | None = None
    data = b""
    for step in _steps(blocks):
        if not step:
            yield b""
            continue
        data += step
        while data:
            if decoder is None:
                data = data.lstrip(packing.padding)  # at once: a tape's may be longer than memory
                if not packing.ready(data):
                    break
                decoder = packing.make()
            yield from _decode(decoder, data, packing)
            data = decoder.unused_data if decoder.eof else b""
            decoder = None if decoder.eof else decoder
    if decoder is not None or data:
        raise Damaged(f"the {packing.name} archive is cut short")


def _steps(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks in smaller pieces; empty ones stay."""
    for block in blocks:
        for at in range(0, len(block) or 1, _PACKED_STEP_BYTES):
            yield block[at : at + _PACKED_STEP_BYTES]


def _decode(decoder: _Decoder, data: bytes, packing: _Packing) -> Iterator[bytes]:
    """What a frame's decoder makes of more data, in bounded pieces."""
    while True:
        try:
            piece = decoder.decompress(data, STEP_BYTES)
        except packing.error as error:
            for words, (why, command) in _BEYOND_US.items():
                if words in str(error):
                    raise Undecodable(f"the {packing.name} archive {why}", command) from None
            what = f"the {packing.name} archive is corrupt ({error}), perhaps in earlier lines, too"
            raise Damaged(what) from None
        if piece:
            yield piece
        if decoder.eof or decoder.needs_input:
            return
        data = b""


def _gzip_ready(data: bytes) -> bool:
    """Whether a member's header is whole: isal misreads one with extra fields that comes in pieces
    (bgzip writes such).
    """
    if not b"\x1f\x8b".startswith(data[:2]):
        raise Damaged("something that is not gzip follows the end of the gzip archive")
    if _header_is_whole(data):
        return True
    if len(data) >= _MAX_HEADER_BYTES:
        raise Damaged("the gzip archive is corrupt (its header does not end)")
    return False


def _header_is_whole(data: bytes) -> bool:
    """Whether a gzip member's header is all there: RFC 1952, section 2.3."""
    if len(data) < 10:
        return False
    flags, at = data[3], 10
    if flags & 4:
        at += 2 + int.from_bytes(data[10:12], "little")
    for flag in (8, 16):
        if flags & flag:
            at = data.find(b"\0", at) + 1
            if not at:
                return False
    return len(data) > at + (2 if flags & 2 else 0)


def _zstd_ready(data: bytes) -> bool:
    """Whether a frame's magic number is there."""
    kind = kind_of(data[:4])
    if kind not in {None, Kind.ZSTD}:
        raise Damaged("something that is not zstd follows the end of the zstd archive")
    return kind is Kind.ZSTD


_PACKINGS = {
    Kind.GZIP: _Packing(
        "gzip",
        lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
        _gzip_ready,
        b"\0",  # gzip(1) takes zeros after a member for the padding of a tape
        cast(type[Exception], igzip_lib.IsalError),
    ),
    Kind.ZSTD: _Packing("zstd", zstd.ZstdDecompressor, _zstd_ready, b"", zstd.ZstdError),
}
