"""What the ledger's tests share: small spans, invented lines, and a ledger opened off the loop."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import orjson

from ctbatch.models import Counts, Refusal, Span, State
from ctbatch.pipeline.ledger.accounts import Accounts, SourceRow
from ctbatch.pipeline.ledger.writer import Ledger

__all__ = [
    "DIGEST",
    "admit",
    "line",
    "modes",
    "nothing",
    "opened",
    "original",
    "read",
    "rows",
    "settle",
    "span",
]

DIGEST = b"d" * 8

T = TypeVar("T")


def span(first_line: int = 1, lines: int = 5, source: int = 0) -> Span:
    """A span of 20-byte lines."""
    return Span(source, first_line, lines, 20 * (first_line - 1), 20 * lines)


def line(number: int, source: int = 0) -> bytes:
    """The original of a line, by its number; lines differ in length."""
    return orjson.dumps({"source": source, "line": number, "x": "é" * (number % 7)})


def original(source: int, first_line: int, index: int) -> bytes | None:
    """Reads any line from the input again."""
    return line(first_line + index, source)


def nothing(source: int, first_line: int, index: int) -> bytes | None:
    """The input is gone."""
    return None


@asynccontextmanager
async def opened(
    run_dir: Path, *, create: bool = False, sources: Iterable[str] = ("users.ndjson", "more.ndjson")
) -> AsyncIterator[Ledger]:
    """A ledger, opened as the run does it."""
    ledger = await asyncio.to_thread(Ledger, run_dir, create=create)
    async with ledger:
        if create:
            await ledger.put_sources([SourceRow(path) for path in sources])
        yield ledger


def read(run_dir: Path, what: Callable[[Accounts], T]) -> T:
    """What a report would read, off the loop."""

    def reading() -> T:
        accounts = Accounts.open(run_dir)
        try:
            return what(accounts)
        finally:
            accounts.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(reading).result()


async def admit(ledger: Ledger, of: Span, maybe: Iterable[int] | None = None) -> None:
    """Admit a fresh span."""
    indexes = frozenset(range(of.lines) if maybe is None else maybe)
    await ledger.admit(of, digest=DIGEST, key_id=7, pending=None, maybe=indexes)


async def settle(
    ledger: Ledger,
    of: Span,
    refused: Mapping[int, State] | None = None,
    *,
    counts: Counts | None = None,
    pending: Iterable[int] = (),
    maybe: Iterable[int] = (),
    copied: bool = True,
) -> None:
    """Settle a span; the lines that are neither refused nor pending were processed."""
    refused, left = refused or {}, frozenset(pending)
    states = list(refused.values())
    await ledger.settle(
        of,
        digest=DIGEST,
        counts=counts
        or Counts(
            processed=of.lines - len(refused) - len(left),
            unprocessed=states.count(State.UNPROCESSED),
            invalid=states.count(State.INVALID),
            unknown=states.count(State.UNKNOWN),
        ),
        refusals=[
            (
                Refusal(index, state, 500 + index, f"reason {index}"),
                line(of.first_line + index, of.source) if copied else None,
            )
            for index, state in refused.items()
        ],
        pending=left,
        maybe=frozenset(maybe),
    )


def modes(run_dir: Path) -> dict[str, int]:
    """The permissions of each file in a directory, by name."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in run_dir.iterdir()}


def rows(run_dir: Path, kind: str = "rejected") -> list[tuple[int, int, bytes]]:
    """The rows of a file with their reasons: (source's number, line number, original)."""
    if not (run_dir / f"{kind}.ndjson").exists():
        return []
    lines = (run_dir / f"{kind}.ndjson").read_bytes().split(b"\n")
    reasons = [
        orjson.loads(text)
        for text in (run_dir / f"{kind}.reasons.ndjson").read_bytes().splitlines()
    ]
    assert lines.pop() == b""
    assert len(lines) == len(reasons)
    sources = ["users.ndjson", "more.ndjson"]
    found = []
    for copy, reason in zip(lines, reasons, strict=True):
        source = sources.index(reason["source"])
        assert reason.get("copied", True) is (copy != b"")
        if copy:
            assert copy == line(reason["line"], source)
        found.append((source, reason["line"], copy))
    return found
