"""A run goes on only as what it began as: same mode, same account, same inputs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ctbatch.errors import ResumeRefused
from ctbatch.models import Mode
from ctbatch.pipeline.closing import write_report
from ctbatch.pipeline.continuing import Continuation, continue_from, unfinished
from ctbatch.pipeline.ledger import rundir
from ctbatch.pipeline.ledger.accounts import Accounts, SourceRow
from ctbatch.pipeline.ledger.writer import Ledger
from ctbatch.pipeline.report.document import Report, RunState
from ctbatch.pipeline.source.reader import SourceSpec, expand
from ctbatch.pipeline.source.sniffing import Kind
from tests.pipeline.ledgers import admit, opened, settle, span

TEXT = b'{"n":1}\n' * 10


def _begun(
    directory: Path, mode: Mode = Mode.SEALED, *, sent: bool = True, names: tuple[str, ...] = ("a",)
) -> list[SourceSpec]:
    """A run over files of ten lines, of which the first five may have arrived; what it reads."""
    for name in names:
        (directory / name).write_bytes(TEXT)
    specs = list(expand([directory / name for name in names]))

    async def begin() -> None:
        async with await asyncio.to_thread(Ledger, directory, create=True) as ledger:
            rows = [SourceRow(s.path, s.size, s.mtime_ns, s.fingerprint) for s in specs]
            await ledger.put_sources(rows)
            await ledger.put({"mode": mode, "account_id": "A-1"})
            await admit(ledger, span(1, 5))
            if not sent:
                await ledger.withdraw(span(1, 5))
                await settle(ledger, span(1, 5), pending=range(5))

    asyncio.run(begin())
    return specs


def _go_on(
    directory: Path,
    specs: list[SourceSpec],
    mode: Mode = Mode.SEALED,
    account: str | None = "A-1",
) -> Continuation:
    accounts = Accounts.open(directory)
    try:
        return continue_from(accounts, specs, mode=mode, account_id=account)
    finally:
        accounts.close()


def test_what_is_unchanged_goes_on(tmp_path: Path) -> None:
    """The spans that are open are delivered, and nothing has to be read twice."""
    start = _go_on(tmp_path, _begun(tmp_path))
    assert list(start.unfinished) == [span(1, 5)]
    assert not start.verify


@pytest.mark.parametrize("began", list(Mode))
@pytest.mark.parametrize("now", list(Mode))
def test_a_run_never_changes_its_mode(tmp_path: Path, began: Mode, now: Mode) -> None:
    """Sealed, plaintext, emulator or either dry run: always what it began as."""
    specs = _begun(tmp_path, began)
    if began is now:
        assert _go_on(tmp_path, specs, now).rows
        return
    with pytest.raises(ResumeRefused, match=f"{began}, not {now}"):
        _go_on(tmp_path, specs, now)


def test_another_account_is_refused_once_anything_may_have_arrived(tmp_path: Path) -> None:
    """Until then it may be corrected; the emulator has a new one each time."""
    unsent, sent, emulated = (tmp_path / name for name in ("unsent", "sent", "emulated"))
    for directory in (unsent, sent, emulated):
        directory.mkdir()
    assert _go_on(unsent, _begun(unsent, sent=False), account="B-2").rows
    specs = _begun(emulated, Mode.EMULATOR)
    assert _go_on(emulated, specs, Mode.EMULATOR, account="B-2").rows
    specs = _begun(sent)
    for account in ("B-2", None):
        with pytest.raises(ResumeRefused, match="A-1"):
            _go_on(sent, specs, account=account)


def _grow(path: Path) -> None:
    path.write_bytes(TEXT * 2)


def _touch(path: Path) -> None:
    path.write_bytes(TEXT.replace(b"1", b"2"))
    os.utime(path, (1, 1))


@pytest.mark.parametrize("change", [_grow, _touch])
def test_where_a_file_differs_the_digests_decide(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Size or modification time are another: what was read is compared as it is read again."""
    _begun(tmp_path)
    change(tmp_path / "a")
    assert _go_on(tmp_path, list(expand([tmp_path / "a"]))).verify == {0}


def test_a_pipe_is_always_compared_by_its_digests(tmp_path: Path) -> None:
    """It has neither size nor time: what comes out of it now may be something else."""
    rows = [SourceRow("-"), SourceRow("a", 80, 1, "f")]
    specs = [SourceSpec("-", Kind.PIPE), SourceSpec("a", Kind.PLAIN, 80, 1, "f")]

    async def begin() -> None:
        async with opened(tmp_path, create=True) as ledger:
            await ledger.put_sources(rows)
            await ledger.put({"mode": Mode.SEALED, "account_id": "A-1"})
            for source in range(2):
                await admit(ledger, span(1, 5, source))

    asyncio.run(begin())
    assert _go_on(tmp_path, specs).verify == {0}
    specs[1] = SourceSpec("a", Kind.PIPE)  # a named pipe where a file was
    assert _go_on(tmp_path, specs).verify == {0, 1}


def test_a_file_that_was_cut_is_refused_by_name(tmp_path: Path) -> None:
    """What was recorded of it may be gone."""
    _begun(tmp_path)
    (tmp_path / "a").write_bytes(TEXT[:-1])
    with pytest.raises(ResumeRefused, match="was cut from 80 to 79 bytes") as refused:
        _go_on(tmp_path, list(expand([tmp_path / "a"])))
    assert refused.value.subject == str(tmp_path / "a")


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    """One more, one less, or another order."""
    specs = _begun(tmp_path, names=("a", "b"))
    for others in (specs[:1], specs[::-1], [*specs, specs[0]]):
        with pytest.raises(ResumeRefused, match="not those that the run began with"):
            _go_on(tmp_path, others)


def test_a_run_that_never_began_hides_no_other(tmp_path: Path) -> None:
    """It was killed between its ledger and its first words."""

    async def begin(run_dir: Path, told: Mapping[str, object]) -> None:
        async with await asyncio.to_thread(Ledger, run_dir, create=True) as ledger:
            await ledger.put(told)

    for name, told in (("1", {"settings": {}, "state": "stopped"}), ("2", {})):
        (tmp_path / name).mkdir()
        asyncio.run(begin(tmp_path / name, told))
    assert unfinished(tmp_path) == tmp_path / "1"


def test_the_newest_unfinished_run_is_one_that_nobody_is_at(tmp_path: Path) -> None:
    """Not a complete one whose report says so, and not one that a process still holds."""

    async def make(name: str, state: str) -> Path:
        (tmp_path / name).mkdir()
        async with opened(tmp_path / name, create=True) as ledger:
            await ledger.put({"settings": {}, "state": state})
        return tmp_path / name

    older = asyncio.run(make("1", "killed"))
    newer = asyncio.run(make("2", "running"))
    last = asyncio.run(make("3", "complete"))
    assert unfinished(tmp_path) == last  # killed before it had a report
    for state in (RunState.INTERRUPTED, RunState.COMPLETE):
        report = Report(run_id="", state=state, mode=Mode.DRY_RUN, started_at="")
        write_report(last, report)
        assert (unfinished(tmp_path) == last) == (state is RunState.INTERRUPTED)
    assert unfinished(tmp_path) == newer
    with rundir.locked(newer):
        assert unfinished(tmp_path) == older
        with rundir.locked(older), pytest.raises(ResumeRefused, match="no unfinished run"):
            unfinished(tmp_path)
