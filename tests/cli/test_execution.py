"""What a person sees of a run from its first line to its last, and how a signal reaches it.

The run itself is scripted here; the end-to-end tests run the real one.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable
from dataclasses import replace

import orjson
import pytest

from ctbatch.cli.execution import Begin, execute, header
from ctbatch.cli.loop import signals_to
from ctbatch.cli.options import Output
from ctbatch.cli.targets import Target
from ctbatch.errors import Interrupted
from ctbatch.models import Counts, Mode
from ctbatch.notices import Level, Live, Notice, Watcher
from ctbatch.pipeline.report.document import Report, RunState
from ctbatch.pipeline.stopping import Stop
from ctbatch.settings import Account, Endpoint, Secret

REPORT = Report(
    run_id="r1",
    state=RunState.COMPLETE,
    mode=Mode.SEALED,
    started_at="2026-01-31T12:00:00Z",
    lines=Counts(total=1, processed=1),
    run_dir="d",
)

STOPPED = replace(
    REPORT,
    state=RunState.STOPPED,
    problem="the service is away",
    resume="ctbatch resume 'my runs/a'",
    exit_code=4,
)

SEALED = Target(
    Mode.SEALED,
    Account(id="TEST-1", passcode=Secret("hunter2")),
    Endpoint.of_region("in1"),
)


def ends_with(report: Report) -> Begin:
    """A run that tells one warning and one error and ends with this report."""

    async def begin(target: Target, watcher: Watcher, stop: Stop) -> Report:
        watcher.watch(Live())
        watcher.tell(Notice(Level.WARNING, "x", "slow"))
        watcher.tell(Notice(Level.ERROR, "x", "gone"))
        return report

    return begin


def test_the_first_line_names_account_host_and_mode(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is sent, one reads where to; the result goes to standard output."""
    assert execute(ends_with(REPORT), SEALED, Output(), {}) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Run r1 is complete")
    assert err.splitlines() == [
        "ctbatch 0.1.0: end-to-end encrypted, account TEST-1 at in1.api.clevertap.com",
        "warning: slow",
        "error: gone",
    ]
    assert "hunter2" not in out + err


def test_quiet_leaves_errors_the_result_and_the_way_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command that resumes is printed whenever there is one."""
    assert execute(ends_with(STOPPED), SEALED, Output(quiet=True), {}) == 4
    out, err = capsys.readouterr()
    assert out.startswith("Run r1 ended with a problem.")
    assert err.splitlines() == [
        "error: gone",
        "ctbatch: the service is away",
        "ctbatch: go on with",
        "ctbatch resume 'my runs/a'",
    ]


def test_json_makes_standard_output_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else on standard output, the way on still on standard error."""
    assert execute(ends_with(STOPPED), SEALED, Output(json=True), {}) == 4
    out, err = capsys.readouterr()
    assert orjson.loads(out)["run_id"] == "r1"
    assert err.splitlines()[-1] == "ctbatch resume 'my runs/a'"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (replace(SEALED, mode=Mode.EMULATOR), "EMULATOR"),
        (replace(SEALED, mode=Mode.PLAINTEXT), "PLAINTEXT"),
        (replace(SEALED, mode=Mode.SERVER_DRY_RUN), "nothing is stored"),
        (Target(Mode.DRY_RUN), "nothing is sent"),
    ],
)
def test_the_mode_is_in_plain_sight(target: Target, said: str) -> None:
    """Nobody takes a trial for the real thing, or the real thing for a trial."""
    assert said in header(target)


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send itself these signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_insists(number: int) -> None:
    """A signal ends a run through its stop, so that it can drain and report."""

    async def begin(target: Target, watcher: Watcher, stop: Stop) -> Report:
        os.kill(os.getpid(), number)
        await stop.wait()
        assert not stop.at_once
        os.kill(os.getpid(), number)
        await stop.wait_now()
        assert isinstance(stop.reason, Interrupted)
        return replace(STOPPED, exit_code=128 + stop.reason.signal_number)

    before = signal.getsignal(number)
    assert execute(begin, SEALED, Output(quiet=True), {}) == 128 + number
    assert signal.getsignal(number) == before


def test_an_error_before_the_start_passes_through() -> None:
    """Nothing is rendered; the caller says what is wrong."""

    def begin(target: Target, watcher: Watcher, stop: Stop) -> Awaitable[Report]:
        raise Interrupted(signal.SIGINT)

    with pytest.raises(Interrupted):
        execute(begin, SEALED, Output(), {})


async def test_signals_reach_a_loop_without_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a loop cannot handle signals (Windows), a plain handler passes them on to it."""
    asked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr("sys.platform", "win32")
    with signals_to(asked.set_result):
        monkeypatch.undo()
        signal.raise_signal(signal.SIGTERM)
        assert await asked == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_emulator_takes_the_place_of_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    """A trial gets an account, an endpoint on this machine, and keys that are there."""
    seen: list[Target] = []

    async def begin(target: Target, watcher: Watcher, stop: Stop) -> Report:
        seen.append(target)
        assert target.keys is not None
        assert await asyncio.to_thread(target.keys.server.is_file)
        assert await asyncio.to_thread(target.keys.client.is_file)
        return REPORT

    assert execute(begin, Target(Mode.EMULATOR), Output(), {}) == 0
    assert seen[0].endpoint is not None
    assert seen[0].endpoint.is_loopback
    assert "EMULATOR" in capsys.readouterr().err.splitlines()[0]
