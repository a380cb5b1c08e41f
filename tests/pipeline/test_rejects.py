"""The files of refused lines stay whole: row for row, through crashes and through people."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ctbatch.errors import InputBroke, LedgerFailed
from ctbatch.models import Refusal, State
from ctbatch.pipeline.ledger import rowfile
from ctbatch.pipeline.ledger.rejects import Row, pack_rows, unpack_rows
from ctbatch.pipeline.ledger.writer import Ledger
from tests.pipeline.ledgers import line, modes, nothing, opened, original, rows, settle, span

UNPROCESSED, UNKNOWN, INVALID = State.UNPROCESSED, State.UNKNOWN, State.INVALID

IN_ORDER = [(0, 1), (0, 2), (0, 3), (0, 4), (0, 6), (0, 10), (1, 3)]


async def fill(ledger: Ledger) -> None:
    """Refuse lines in an order that is not the input's, several settles of one span among
    others.
    """
    await settle(ledger, span(6), {4: UNPROCESSED, 0: INVALID, 1: UNKNOWN})
    await settle(ledger, span(source=1), {2: UNPROCESSED})
    await settle(ledger, span(), {1: INVALID, 3: INVALID}, pending=[0, 2, 4])
    await settle(ledger, span(11), {0: UNKNOWN})
    await settle(ledger, span(), {2: UNPROCESSED, 4: UNKNOWN}, pending=[0])
    await settle(ledger, span(), {0: UNPROCESSED})


def places(run_dir: Path, kind: str = "rejected") -> list[tuple[int, int]]:
    """Source and line number of each row."""
    return [row[:2] for row in rows(run_dir, kind)]


async def publish(
    run_dir: Path, read_again: Callable[[int, int, int], bytes | None] = nothing
) -> list[str]:
    """Open and put in order; returns what was moved aside."""
    async with opened(run_dir) as ledger:
        await ledger.publish_files(read_again)
        return [aside.name for aside in ledger.files.moved_aside]


def test_rows_survive_packing() -> None:
    """What is unpacked is what was packed."""
    packed = (
        Row.of(Refusal(3, UNPROCESSED, 515, "no"), b"x" * 20),
        Row.of(Refusal(4, INVALID, "too_long", "", place=(7, 8)), None),
        Row.of(Refusal(5, UNKNOWN, None, "lost"), b""),
    )
    assert unpack_rows(pack_rows(packed)) == packed


async def test_rows_are_put_in_input_order(tmp_path: Path) -> None:
    """Sources in order, lines in order, with their reasons; publishing twice changes nothing."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
        assert sorted(places(tmp_path)) == IN_ORDER != places(tmp_path)
        for _ in range(2):
            await ledger.publish_files(nothing)
            assert places(tmp_path) == IN_ORDER
            assert places(tmp_path, "unknown") == [(0, 5), (0, 7), (0, 11)]
    assert not [name for name in modes(tmp_path) if name.endswith(".sorted")]


async def test_rows_of_one_commit_stand_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    """Several batches are settled by one commit; publishing may be part of it."""
    refused = {0: UNPROCESSED, 1: UNPROCESSED}
    async with opened(tmp_path, create=True) as ledger:
        await asyncio.gather(*(settle(ledger, span(first), refused) for first in (11, 1, 6)))
        assert places(tmp_path) == [(0, 11), (0, 12), (0, 1), (0, 2), (0, 6), (0, 7)]
        await asyncio.gather(settle(ledger, span(16), refused), ledger.publish_files(nothing))
        assert ledger.files.moved_aside == []
    found = rows(tmp_path)
    assert [row[:2] for row in found] == [(0, n) for n in (1, 2, 6, 7, 11, 12, 16, 17)]
    assert [row[2] for row in found] == [line(number) for _, number, _ in found]


async def test_a_file_that_is_cut_while_it_is_put_in_order_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read any more is read from the input, or is said not to be copied; a row of
    the one file still belongs to a row of the other.
    """
    refused = {0: UNPROCESSED, 1: UNPROCESSED}
    verify = rowfile.RowFile.rewrite

    def cut(self: rowfile.RowFile) -> rowfile.Rewrite:
        begun = verify(self)
        if self._path.name == "rejected.ndjson":
            os.truncate(self._path, 40)
        return begun

    async with opened(tmp_path, create=True) as ledger:
        for first in (1, 6, 11):
            await settle(ledger, span(first), refused)
        whole = rows(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(rowfile.RowFile, "rewrite", cut)
            await ledger.publish_files(original)
        assert rows(tmp_path) == whole
        with monkeypatch.context() as patched:
            patched.setattr(rowfile.RowFile, "rewrite", cut)
            await ledger.publish_files(nothing)
        left = len(b"".join(row[2] + b"\n" for row in whole)[:40].splitlines()) - 1
        expected = [*whole[:left], *((*row[:2], b"") for row in whole[left:])]
        for _ in range(2):
            assert rows(tmp_path) == expected
            await ledger.publish_files(nothing)
    reasons = (tmp_path / "rejected.reasons.ndjson").read_text().splitlines()
    assert ['"copied":false' in reason for reason in reasons] == [not row[2] for row in expected]


async def test_a_crash_after_appending_to_published_files_moves_nothing_aside(
    tmp_path: Path,
) -> None:
    """What stands beyond the last commit was appended by the process that crashed."""
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span(), {0: UNPROCESSED})
        await ledger.publish_files(nothing)
        await settle(ledger, span(6), {0: UNPROCESSED})
        with (tmp_path / "rejected.ndjson").open("ab") as file:
            file.write(b"half a r")
        copy = tmp_path.with_name("copy")
        # Another process: closing the files in this one would give up SQLite's locks on them.
        process = await asyncio.create_subprocess_exec("cp", "-r", tmp_path, copy)
        assert await process.wait() == 0
    assert await publish(copy) == []
    assert places(copy) == [(0, 1), (0, 6)]


async def test_a_run_that_goes_on_adds_to_published_files(tmp_path: Path) -> None:
    """What is refused after a resume comes behind, and then into its place."""
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span(6), {0: UNPROCESSED})
        await ledger.publish_files(nothing)
        await settle(ledger, span(11), {0: UNPROCESSED})
    async with opened(tmp_path) as ledger:
        await settle(ledger, span(), {0: UNPROCESSED})
        assert places(tmp_path) == [(0, 6), (0, 11), (0, 1)]
        await ledger.publish_files(nothing)
        assert ledger.files.moved_aside == []
    assert places(tmp_path) == [(0, 1), (0, 6), (0, 11)]


async def test_nothing_refused_makes_no_files(tmp_path: Path) -> None:
    """A clean run leaves no empty files to wonder about."""
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span())
        await ledger.publish_files(nothing)
    assert list(modes(tmp_path)) == ["ledger.sqlite"]


# -- edited files ---------------------------------------------------------------------------------

EDITS: dict[str, Callable[[Path], object]] = {
    "changed": lambda path: path.write_bytes(path.read_bytes().replace(b":", b"=")),
    "added to": lambda path: path.write_bytes(path.read_bytes() + b"{}\n"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "emptied": lambda path: path.write_bytes(b""),
}


async def test_a_file_that_somebody_put_there_is_kept(tmp_path: Path) -> None:
    """A run without refused lines has none of its own."""
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span())
        await ledger.publish_files(nothing)
    (tmp_path / "rejected.ndjson").write_bytes(b"mended")
    assert await publish(tmp_path) == ["rejected.ndjson.edited-1"]
    assert (tmp_path / "rejected.ndjson.edited-1").read_bytes() == b"mended"
    assert not (tmp_path / "rejected.ndjson").exists()


async def test_a_process_that_writes_nothing_leaves_files_published(tmp_path: Path) -> None:
    """A resume that is refused: what somebody adds after it is as little ours as before."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
        await ledger.publish_files(nothing)
    async with opened(tmp_path):
        pass
    with (tmp_path / "rejected.ndjson").open("ab") as file:
        file.write(b"mine\n")
    (tmp_path / "mine").write_bytes((tmp_path / "rejected.ndjson").read_bytes())
    assert await publish(tmp_path) == ["rejected.ndjson.edited-1"]
    aside = tmp_path / "rejected.ndjson.edited-1"
    assert aside.read_bytes() == (tmp_path / "mine").read_bytes()
    assert places(tmp_path) == IN_ORDER


async def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    """It is moved aside as any other that is not ours."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
        await ledger.publish_files(nothing)
    (tmp_path / "rejected.ndjson").unlink()
    os.mkfifo(tmp_path / "rejected.ndjson")
    assert await publish(tmp_path, original) == ["rejected.ndjson.edited-1"]
    assert places(tmp_path) == IN_ORDER


async def test_nothing_is_written_through_a_link_to_nothing(tmp_path: Path) -> None:
    """Lines stay in the run directory; a link to a file is as good as the file."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
        await ledger.publish_files(nothing)
    file = tmp_path / "rejected.ndjson"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert await publish(tmp_path) == []
    file.unlink()
    file.symlink_to(tmp_path / "nowhere")
    assert await publish(tmp_path, original) == ["rejected.ndjson.edited-1"]
    assert places(tmp_path) == IN_ORDER
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("how", EDITS)
async def test_an_edited_file_is_moved_aside_and_made_anew(tmp_path: Path, how: str) -> None:
    """What somebody made of a published file is kept; the rows are read from the input again."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
        await ledger.publish_files(nothing)
    EDITS[how](tmp_path / "rejected.ndjson")
    edited = (tmp_path / "rejected.ndjson").read_bytes()
    assert await publish(tmp_path, original) == ["rejected.ndjson.edited-1"]
    assert places(tmp_path) == IN_ORDER
    assert (tmp_path / "rejected.ndjson.edited-1").read_bytes() == edited
    assert await publish(tmp_path) == []
    EDITS["changed"](tmp_path / "rejected.ndjson")
    assert await publish(tmp_path, original) == ["rejected.ndjson.edited-2"]


async def test_added_rows_cost_nothing(tmp_path: Path) -> None:
    """Where only something was added the rows are whole: a pipe loses none."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
        await ledger.publish_files(nothing)
    EDITS["added to"](tmp_path / "rejected.ndjson")
    edited = (tmp_path / "rejected.ndjson").read_bytes()
    assert await publish(tmp_path, nothing) == ["rejected.ndjson.edited-1"]
    assert (tmp_path / "rejected.ndjson.edited-1").read_bytes() == edited
    assert places(tmp_path) == IN_ORDER
    assert all(row[2] for row in rows(tmp_path))


async def test_a_file_that_was_taken_away_is_made_anew(tmp_path: Path) -> None:
    """Somebody moved it to mend it: nothing to move aside, and nothing lost."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
    (tmp_path / "rejected.ndjson").unlink()
    assert await publish(tmp_path, original) == []
    assert places(tmp_path) == IN_ORDER


async def test_edited_reasons_are_kept_and_made_anew(tmp_path: Path) -> None:
    """Notes in the reasons are somebody's work, too; no line has to be read again for them."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
        await ledger.publish_files(nothing)
    EDITS["changed"](tmp_path / "rejected.reasons.ndjson")
    assert await publish(tmp_path, nothing) == ["rejected.reasons.ndjson.edited-1"]
    assert places(tmp_path) == IN_ORDER


async def test_an_edit_after_a_kill_is_seen_as_well(tmp_path: Path) -> None:
    """The content is compared whether or not the file was ever put in order."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
    EDITS["changed"](tmp_path / "unknown.ndjson")
    assert await publish(tmp_path, original) == ["unknown.ndjson.edited-1"]
    assert places(tmp_path, "unknown") == [(0, 5), (0, 7), (0, 11)]


async def test_an_edit_while_the_run_goes_on_is_seen_at_its_end(tmp_path: Path) -> None:
    """An editor replaces the file under the run: its version is moved aside."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
        edited = tmp_path / "edited"
        edited.write_bytes(b"mine\n")
        edited.replace(tmp_path / "rejected.ndjson")
        await settle(ledger, span(16), {0: UNPROCESSED})
        await ledger.publish_files(original)
        assert [aside.read_bytes() for aside in ledger.files.moved_aside] == [b"mine\n"]
    assert places(tmp_path) == sorted([*IN_ORDER, (0, 16)])


async def test_only_what_was_moved_aside_is_read_again(tmp_path: Path) -> None:
    """Rows appended since are in the new file, so a pipe loses the older ones only; a crash in
    between changes nothing.
    """
    async with opened(tmp_path, create=True) as ledger:
        await settle(ledger, span(6), {0: UNPROCESSED})
    EDITS["changed"](tmp_path / "rejected.ndjson")
    async with opened(tmp_path):
        pass  # moved aside, and nothing else happened
    async with opened(tmp_path) as ledger:
        assert ledger.files.moved_aside == []
        await settle(ledger, span(), {0: UNPROCESSED})
    assert await publish(tmp_path, nothing) == []
    assert rows(tmp_path) == [(0, 1, line(1)), (0, 6, b"")]


def _broken(*_: int) -> bytes | None:
    raise InputBroke("users.ndjson", 0, "is gone")


def _missing(*_: int) -> bytes | None:
    raise FileNotFoundError("users.ndjson")


def _another(*_: int) -> bytes | None:
    return b"another line"


@pytest.mark.parametrize("read_again", [nothing, _broken, _missing, _another])
async def test_a_line_that_cannot_be_read_again_stands_as_an_empty_one(
    tmp_path: Path, read_again: Callable[[int, int, int], bytes | None]
) -> None:
    """Its reason says that it was not copied, now and after further sorting; rows still match."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
        await ledger.publish_files(nothing)
    EDITS["changed"](tmp_path / "rejected.ndjson")
    for _ in range(2):
        await publish(tmp_path, read_again)
        assert (tmp_path / "rejected.ndjson").read_bytes() == b"\n" * len(IN_ORDER)
        reasons = (tmp_path / "rejected.reasons.ndjson").read_text().splitlines()
        assert len(reasons) == len(IN_ORDER)
        assert all('"copied":false' in reason for reason in reasons)
    assert len(places(tmp_path, "unknown")) == 3


async def test_an_edit_between_commit_and_rename_is_kept(tmp_path: Path) -> None:
    """A crash left the new file beside the old one, and somebody edited the old one."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
        await ledger._submit(lambda: list(_sort(ledger)))
    (tmp_path / "rejected.ndjson").write_bytes(b"mine\n")
    assert await publish(tmp_path) == ["rejected.ndjson.edited-1"]
    assert (tmp_path / "rejected.ndjson.edited-1").read_bytes() == b"mine\n"
    assert places(tmp_path) == IN_ORDER


async def test_rows_between_sorting_and_publishing_go_to_the_new_file(tmp_path: Path) -> None:
    """Whoever appends first puts the new file in place."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
        await ledger._submit(lambda: list(_sort(ledger)))
        await settle(ledger, span(16), {0: UNPROCESSED})
    assert places(tmp_path) == [*IN_ORDER, (0, 16)]


def _sort(ledger: Ledger) -> list[None]:
    """The first half of publishing."""
    for new in ledger.files.sort(ledger.accounts.copies(), nothing):
        ledger._replace_refusals(new)
    return []


async def test_sorting_that_is_given_up_changes_nothing(tmp_path: Path) -> None:
    """Rows stay where they are, nothing is left beside them, and the next time they are sorted."""
    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
        before = places(tmp_path)
        asked = iter([False, True])
        assert not await ledger.publish_files(nothing, lambda: next(asked))
        assert places(tmp_path) == before
        assert not [name for name in modes(tmp_path) if name.endswith(".sorted")]
        assert await ledger.publish_files(nothing)
        assert places(tmp_path) == IN_ORDER
        assert ledger.files.moved_aside == []


@pytest.mark.parametrize("syncs", range(4))
async def test_no_copies_stay_where_they_could_not_be_put_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syncs: int
) -> None:
    """The disk fills up before this or that file is durable: what was written beside goes."""
    left = syncs

    def full(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        os.fsync(descriptor)

    async with opened(tmp_path, create=True) as ledger:
        await fill(ledger)
        before = places(tmp_path)
        monkeypatch.setattr(rowfile, "sync_file", full)
        with pytest.raises(LedgerFailed, match="No space left"):
            await ledger.publish_files(nothing)
        assert not [name for name in modes(tmp_path) if name.endswith(".sorted")]
    monkeypatch.undo()
    assert places(tmp_path) == before
    assert await publish(tmp_path) == []
    assert places(tmp_path) == IN_ORDER


# -- crashes --------------------------------------------------------------------------------------


async def test_a_crash_at_any_step_leaves_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is copied at each statement and around each sync and rename while rows are
    appended, sorted and published; every copy can be gone on with and ends in the same rows.
    """
    run_dir, copies = tmp_path / "run", tmp_path / "copies"
    run_dir.mkdir()
    copies.mkdir()
    taken: list[Path] = []

    def crash(*_: object) -> None:
        copy = copies / str(len(taken))
        # Another process: closing the files in this one would give up SQLite's locks on them.
        subprocess.run(["cp", "-r", run_dir, copy], check=True)
        taken.append(copy)

    def around(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def watched(*args: object) -> object:
            crash()
            result = real(*args)
            crash()
            return result

        monkeypatch.setattr(owner, name, watched)

    async with opened(run_dir, create=True) as ledger:
        await fill(ledger)
        await ledger.publish_files(nothing)
    async with opened(run_dir) as ledger:
        await settle(ledger, span(21), {0: UNPROCESSED})
        with monkeypatch.context():
            around(rowfile, "sync_file")
            around(rowfile, "sync_directory")
            around(Path, "replace")
            ledger._db.set_trace_callback(crash)
            await settle(ledger, span(16), {0: UNPROCESSED, 1: UNKNOWN})
            await ledger.publish_files(nothing)
            ledger._db.set_trace_callback(None)
            monkeypatch.undo()
    assert len(taken) > 50
    ends = {tuple(await _gone_on_with(copy)) for copy in taken}
    before = tuple(sorted([*IN_ORDER, (0, 21)]))
    assert ends == {before, tuple(sorted([*before, (0, 16)]))}


async def _gone_on_with(copy: Path) -> list[tuple[int, int]]:
    async with opened(copy) as ledger:
        assert ledger.files.moved_aside == []
        assert not [name for name in modes(copy) if name.endswith(".sorted")]
        listed = [
            (source, number)
            for source, number, row in await asyncio.to_thread(_listed, ledger)
            if row.state != UNKNOWN
        ]
        assert sorted(places(copy)) == sorted(listed)
        await ledger.publish_files(nothing)
    found = rows(copy)
    assert all(row[2] for row in found)
    assert [row[:2] for row in found] == listed
    shutil.rmtree(copy)
    return listed


def _listed(ledger: Ledger) -> list[tuple[int, int, Row]]:
    return list(ledger.accounts.refusals())
