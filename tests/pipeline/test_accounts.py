"""Reading a ledger: sums that belong together, also where nothing may be written."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctbatch.errors import RunDirectoryError
from ctbatch.models import Counts, Refusal, State
from ctbatch.pipeline.ledger.accounts import Accounts, SourceRow, Totals
from ctbatch.pipeline.ledger.rejects import Copies
from ctbatch.pipeline.ledger.schema import pack_indexes, unpack_indexes
from tests.pipeline.ledgers import DIGEST, admit, nothing, opened, read, rows, settle, span

ROOT = Path(__file__).parents[2]


@given(st.none() | st.frozensets(st.integers(0, 40)), st.integers(41, 50))
def test_indexes_survive_packing(indexes: frozenset[int] | None, lines: int) -> None:
    """What is unpacked is what was packed, also where the last line is among them."""
    for count in (lines, 1 + max(indexes or {0})):
        assert unpack_indexes(pack_indexes(indexes, count)) == indexes


@pytest.mark.parametrize("indexes", [{5}, {0, 5}, {0, 7}])
def test_indexes_of_another_batch_are_not_packed(indexes: set[int]) -> None:
    """They would be recorded as others."""
    with pytest.raises(AssertionError, match="another batch"):
        pack_indexes(frozenset(indexes), 5)


def test_a_thousand_pending_lines_take_a_few_bytes() -> None:
    """A dry run leaves every line of every span pending."""
    assert pack_indexes(frozenset(range(1000)), 1000) == b"[0,1000]"


async def test_totals_are_of_one_source(tmp_path: Path) -> None:
    """Settled states are summed; what may have arrived unseen is counted by line."""
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span(), {0: State.INVALID, 1: State.UNKNOWN, 2: State.UNPROCESSED})
        await admit(ledger, span(6))
        await admit(ledger, span(11), [1, 2])
        await settle(
            ledger, span(16), counts=Counts(processed=2, blank=1), pending=[3, 4], maybe=[4]
        )
        await settle(ledger, span(source=1), counts=Counts(processed=5))
    assert read(tmp_path, lambda accounts: accounts.totals(0)) == Totals(
        Counts(processed=4, unprocessed=1, invalid=1, unknown=1, blank=1), 20, 5 + 2 + 1
    )
    assert read(tmp_path, lambda accounts: accounts.totals(1)).counts == Counts(processed=5)
    assert read(tmp_path, lambda accounts: accounts.totals(2)) == Totals(Counts(), 0, 0)
    found = read(tmp_path, lambda accounts: accounts.recorded(0, open_only=True))
    assert [item.span.first_line for item in found] == [6, 11, 16]


async def test_batches_are_counted_by_how_they_ended(tmp_path: Path) -> None:
    """As the report has them."""
    async with opened(tmp_path, create=True) as ledger:
        await admit(ledger, span(1))
        await settle(ledger, span(6))
        await settle(ledger, span(11), {0: State.UNPROCESSED})
        await settle(ledger, span(16), dict.fromkeys(range(5), State.UNPROCESSED))
        await settle(ledger, span(21), {0: State.UNKNOWN})
    assert read(tmp_path, lambda accounts: accounts.batches()) == {
        "total": 5,
        "delivered": 4,
        "partial": 1,
        "refused": 1,
        "unknown": 1,
    }


@pytest.mark.parametrize(
    ("maybe", "sent"), [(None, True), (frozenset({0}), True), (frozenset[int](), False)]
)
async def test_whether_anything_may_have_been_sent(
    tmp_path: Path, maybe: frozenset[int] | None, sent: bool
) -> None:
    """Another account is refused once any line may have reached the first; not before."""
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span(), counts=Counts(invalid=1, blank=1), pending=[0, 1, 2])
        assert not read(tmp_path, lambda accounts: accounts.anything_sent())
        await ledger.admit(
            span(6),
            digest=DIGEST,
            key_id=None,
            pending=None,
            maybe=frozenset(range(5)) if maybe is None else maybe,
        )
    assert read(tmp_path, lambda accounts: accounts.anything_sent()) is sent


@pytest.mark.parametrize("state", [State.UNPROCESSED, State.UNKNOWN])
async def test_what_was_answered_was_sent(tmp_path: Path, state: State) -> None:
    """Refused and unknown lines reached the service."""
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span(), {0: state}, counts=Counts(**{state.value: 1, "blank": 4}))
    assert read(tmp_path, lambda accounts: accounts.anything_sent())


async def test_refusals_come_in_input_order(tmp_path: Path) -> None:
    """Whatever the order they were recorded in, from both files."""
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span(source=1), {0: State.INVALID})
        await settle(ledger, span(6), {0: State.INVALID})
        await settle(ledger, span(), {4: State.UNKNOWN}, pending=[0])
        await settle(ledger, span(), {0: State.UNPROCESSED})
    found = read(tmp_path, lambda accounts: list(accounts.refusals()))
    assert [item[:2] for item in found] == [(0, 1), (0, 5), (0, 6), (1, 1)]
    copies = read(tmp_path, lambda accounts: next(accounts.copies()))
    assert [type(part) for part in copies] == [Copies, Copies]


@pytest.mark.parametrize("together", [1, 2, 3, 16])
async def test_refused_lines_are_read_some_spans_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Each once and in input order, wherever one query ends and the next begins; also while their
    rows are replaced.
    """
    monkeypatch.setattr("ctbatch.pipeline.ledger.accounts.TOGETHER", together)
    lines = [(source, first) for source in (0, 1) for first in (1, 6, 11)]
    async with opened(tmp_path, create=True) as ledger:
        for source, first_line in reversed(lines):
            of = span(first_line, source=source)
            await settle(ledger, of, {1: State.INVALID}, pending=[0])
            await settle(ledger, of, {0: State.UNPROCESSED})
        expected = [(source, line) for source, first in lines for line in (first, first + 1)]
        for _ in range(2):
            found = await asyncio.to_thread(lambda: list(ledger.accounts.refusals()))
            assert [item[:2] for item in found] == expected
            assert await ledger.publish_files(nothing)
    assert [row[:2] for row in rows(tmp_path)] == expected


async def test_refused_lines_come_by_line_and_not_by_code(tmp_path: Path) -> None:
    """Also of sources whose spans have the same numbers."""
    codes = {2: "a", 0: "c", 1: None}
    async with opened(tmp_path, create=True) as ledger:
        for source in (1, 0):
            await ledger.settle(
                span(source=source),
                digest=DIGEST,
                counts=Counts(invalid=3, processed=2),
                refusals=[
                    (Refusal(index, State.INVALID, code, ""), b"{}")
                    for index, code in codes.items()
                ],
                pending=frozenset(),
                maybe=frozenset(),
            )
    found = read(tmp_path, lambda accounts: list(accounts.refusals()))
    expected = [(source, 1 + index, codes[index]) for source in (0, 1) for index in (0, 1, 2)]
    assert [(source, number, row.code) for source, number, row in found] == expected
    groups = read(tmp_path, lambda accounts: list(accounts.copies()))
    assert [[part.source for part in group] for group in groups] == [[0], [1]]


def test_a_reader_sees_one_instant(tmp_path: Path) -> None:
    """What is committed after opening is not seen: sums and reasons belong together."""

    async def write(first_line: int) -> None:
        async with opened(tmp_path, create=first_line == 1) as ledger:
            await settle(ledger, span(first_line), {0: State.INVALID})

    asyncio.run(write(1))
    accounts = Accounts.open(tmp_path)
    asyncio.run(write(6))
    assert accounts.totals(0).last_line == 5
    assert [line for _, line, _ in accounts.refusals()] == [1]
    accounts.close()
    assert read(tmp_path, lambda accounts: accounts.totals(0)).last_line == 10


def test_a_directory_without_a_ledger_is_said(tmp_path: Path) -> None:
    """A mistyped path is answered with what to name."""
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunDirectoryError, match=r"holds no ledger\.sqlite\. name a run"):
            Accounts.open(path)


def test_a_file_that_is_no_ledger_is_said(tmp_path: Path) -> None:
    """Neither a traceback nor a guess."""
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(RunDirectoryError, match=r"cannot be read.*not a database"):
        Accounts.open(tmp_path)


def test_a_broken_companion_is_said(tmp_path: Path) -> None:
    """With a ``-wal`` beside it the ledger is not read without it: that would be an older state."""
    asyncio.run(_one_source(tmp_path))
    (tmp_path / "ledger.sqlite-wal").mkdir()
    with pytest.raises(RunDirectoryError, match="cannot be read"):
        Accounts.open(tmp_path)


async def _one_source(run_dir: Path) -> None:
    async with opened(run_dir, create=True, sources=()) as ledger:
        await ledger.put_sources([SourceRow("a", 1, 2, "f", 3, 4, ended=True)])


READ = """
import os, sys
from pathlib import Path
from ctbatch.pipeline.ledger.accounts import Accounts
if os.geteuid() == 0:
    os.setuid(65534)  # nobody: root may write everywhere
accounts = Accounts.open(Path(sys.argv[1]))
print(accounts.sources()[0])
accounts.close()
"""


def test_an_archived_run_can_be_read_where_nothing_may_be_written() -> None:
    """A report does not need to write to the run directory."""
    with tempfile.TemporaryDirectory() as place:
        run_dir = Path(place)
        asyncio.run(_one_source(run_dir))
        (run_dir / "ledger.sqlite").chmod(0o444)
        run_dir.chmod(0o555)
        command = [sys.executable, "-c", READ, place]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == f"{SourceRow('a', 1, 2, 'f', 3, 4, ended=True)}\n"
