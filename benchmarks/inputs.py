"""The files that whole runs are measured on: invented profiles, made once and kept.

They are kept in the system's directory for temporary files, a name for each set of parameters.
"""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.load import profile
from ctbatch.models import Batch, Span

__all__ = ["ROOT", "Profiles"]

ROOT = Path(__file__).resolve().parent.parent
"""Where the package and the benchmarks are."""

VALUE_BYTES = 500
"""Values that fill up a large profile: under the vendor's 512."""

SCATTER = 387_420_489
"""Times this, modulo 10^9, to which it is prime, no two numbers of a file are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """A file of ``lines`` distinct profiles of about ``line_bytes``, sorted by identity unless they
    are ``scattered``; every ``bad_every``-th line is one that the checker refuses (0: none).
    """

    lines: int
    line_bytes: int = 300
    bad_every: int = 0
    scattered: bool = False

    def path(self) -> Path:
        """The file, made if it is not there yet."""
        folder = Path(tempfile.gettempdir()) / "ctbatch-benchmarks"
        folder.mkdir(exist_ok=True)
        order = "-scattered" if self.scattered else ""
        name = f"{self.lines}x{self.line_bytes}-{self.bad_every}{order}.ndjson"
        path = folder / name
        if not path.exists():
            half = path.with_suffix(f".{os.getpid()}")
            with half.open("wb") as file:
                file.writelines(self._lines())
            half.rename(path)
        return path

    def batches(self, count: int = 1000) -> list[Batch]:
        """The file in memory, so many lines to a batch."""
        made: list[Batch] = []
        # Line by line: to free all of a file at once would have glibc keep memory from then on.
        with self.path().open("rb") as file:
            while lines := list(itertools.islice(file, count)):
                data = b"".join(lines)
                span = Span(0, 1 + len(made) * count, len(lines), 0, len(data))
                made.append(Batch(span, data))
        return made

    def _lines(self) -> Iterator[bytes]:
        rng = random.Random(7)
        for number in range(self.lines):
            if self.bad_every and number % self.bad_every == self.bad_every - 1:
                yield b'{"type":"profile","identity":"user-%09d"}\n' % number
            else:
                person = number * SCATTER % 10**9 if self.scattered else number
                yield self._filled(profile(person, rng)) + b"\n"

    def _filled(self, line: bytes) -> bytes:
        """The profile with as many further fields as its size asks for."""
        count = (self.line_bytes - len(line)) // (VALUE_BYTES + 15)
        if count <= 0:
            return line
        record = orjson.loads(line)
        record["profileData"] |= {f"Field {n:03d}": "x" * VALUE_BYTES for n in range(count)}
        return orjson.dumps(record)
