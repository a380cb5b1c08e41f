"""Lines of an input that are read a second time, by their numbers.

Those that are asked for in rising order cost one pass over the input, however many they are.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress

from ctbatch.pipeline.source.streams import Damaged

__all__ = ["Lines"]


class Lines:
    """The lines of one input; ``pieces`` begins to read it again, without a BOM. Blocks."""

    def __init__(self, pieces: Callable[[], Generator[bytes, None, None]]) -> None:
        self._begin = pieces
        self._start()

    def _start(self) -> None:
        self._pieces = self._begin()
        self._piece, self._at, self._number = b"", 0, 1

    def line(self, number: int) -> bytes | None:
        """A line without its ``\\n``; ``None`` where it cannot be read again."""
        if number < self._number:
            self.close()
            self._start()
        parts: list[bytes] = []
        with suppress(OSError, Damaged):
            while self._skip_to(number):
                end = self._piece.find(b"\n", self._at)
                parts.append(self._piece[self._at : None if end < 0 else end])
                self._at = len(self._piece) if end < 0 else end + 1
                if end >= 0:
                    self._number += 1
                    return b"".join(parts)
        return b"".join(parts) or None

    def close(self) -> None:
        """Close the input."""
        self._pieces.close()

    def _skip_to(self, number: int) -> bool:
        """Get to a line, or to more of it; returns whether there is any."""
        while True:
            passed = self._piece.count(b"\n", self._at)
            wanted = number - self._number
            if wanted <= passed and self._at < len(self._piece):
                for _ in range(wanted):
                    self._at = self._piece.index(b"\n", self._at) + 1
                self._number = number
                if self._at < len(self._piece):
                    return True
            else:
                self._number += passed
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._piece, self._at = piece, 0
