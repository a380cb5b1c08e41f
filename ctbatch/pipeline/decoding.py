"""Decompressing streams, recognised by content; pure.

Invariants:

1. A stream that ends before its last member does raises; its end is never taken for the data's.
2. One step gives at most :data:`STEP_BYTES`: a decompression bomb is read at its reader's pace.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Protocol

from isal import isal_zlib

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["MAGIC_BYTES", "Decoder", "Kind", "decoder_for", "kind_of"]

MAGIC_BYTES = 4
STEP_BYTES = 1 << 20

Kind = str
"""``plain``, ``gzip`` or ``zstd``."""


def kind_of(head: bytes) -> Kind:
    """What the first bytes of a stream say it is: RFC 1952 (gzip), RFC 8878 (zstd frames and
    skippable frames).
    """
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5):
        return "zstd"
    return "plain"


_DAMAGED: Any = (isal_zlib.error, zstd.ZstdError, EOFError)


class Decoder(Protocol):
    """Turns stored bytes into the stream's."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take stored bytes; gives pieces of the stream.

        Raises:
            ValueError: they are damaged.
        """
        ...

    def finish(self) -> None:
        """The stored bytes have ended.

        Raises:
            ValueError: too early.
        """
        ...


def decoder_for(kind: Kind) -> Decoder:
    """A decoder for a stream of a kind."""
    if kind == "gzip":
        return _Members(_gzip, ignore_zeros=True)
    if kind == "zstd":
        return _Members(zstd.ZstdDecompressor, ignore_zeros=False)
    return _Plain()


class _Plain:
    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give them as they are."""
        yield data

    def finish(self) -> None:
        """Any end will do."""


class _Gzip:
    """One gzip member, with the interface of the standard library's decompressors."""

    def __init__(self) -> None:
        self._inner: Any = isal_zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        """What follows the member."""
        return bytes(self._inner.unused_data)

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing left to decompress."""
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Decompress what was left over, and more."""
        return bytes(self._inner.decompress(self._inner.unconsumed_tail + data, max_length))


def _gzip() -> _Gzip:
    return _Gzip()


class _Members:
    """Members (gzip) or frames (zstd), one after the other."""

    def __init__(self, make: Any, *, ignore_zeros: bool) -> None:
        self._make = make
        self._ignore_zeros = ignore_zeros
        self._member: Any = None
        self._any = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress step by step."""
        while data or (self._member is not None and not self._member.needs_input):
            if self._member is None:
                if self._any and self._ignore_zeros and not data.strip(b"\0"):
                    return  # padding, as gzip(1) takes it
                self._member, self._any = self._make(), True
            try:
                out = self._member.decompress(data, STEP_BYTES)
            except _DAMAGED as error:
                raise ValueError(f"it is damaged ({error})") from None
            data = b""
            if out:
                yield out
            if self._member.eof:
                data, self._member = self._member.unused_data, None

    def finish(self) -> None:
        """The last member must be whole."""
        if self._member is not None or not self._any:
            raise ValueError("it is cut short")
