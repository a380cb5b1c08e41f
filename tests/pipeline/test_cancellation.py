"""A run that is cancelled, or asked to end, at any await: nobody hangs, and nothing is lost."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest

from ctbatch.errors import CtbatchError
from ctbatch.pipeline import continuing, runs
from ctbatch.pipeline.equipment import Equipment
from ctbatch.pipeline.ledger import rundir
from ctbatch.pipeline.ledger.writer import Ledger
from ctbatch.pipeline.report.document import RunState
from ctbatch.pipeline.stages import Stages
from ctbatch.pipeline.stopping import Stop
from ctbatch.settings import Settings
from tests.pipeline.scripted import Line, ScriptedService, Weather
from tests.pipeline.voyages import go_on, mortal, settings_for

CONCURRENCY = 3
KINDS = ("set", "count", "set", "event", "invalid", "set", "blank", "set")
LINES = [Line(KINDS[n % len(KINDS)], "a" if n % 5 == 0 else "") for n in range(24)]

EVERY = 1000
"""More turns of the loop than a run takes; what lies beyond its end is not tried."""


class Turning(asyncio.SelectorEventLoop):
    """A loop that does something at its ``at``-th turn."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self._turns = 0
        self.action: Callable[[], object] = lambda: None

    def _run_once(self) -> None:
        self._turns += 1
        if self._turns == self.at:
            self.action()
        super()._run_once()  # type: ignore[misc]  # the standard library's loops have it

    @property
    def came(self) -> bool:
        """Whether the turn came."""
        return self._turns >= self.at


class Disturbed:
    """A run by one process that is disturbed at a turn of its loop."""

    def __init__(self, directory: Path) -> None:
        self.service = ScriptedService(
            seed=4,
            weather=[Weather.RESET, Weather.TRANSIENT, Weather.THROTTLED],
            bad_share=0.3,
            concurrency=CONCURRENCY,
        )
        source = directory / "users.ndjson"
        source.write_bytes(b"".join(line.text(n) + b"\n" for n, line in enumerate(LINES)))
        self.run_dir = directory / "run"
        self.stages: list[Stages] = []
        self.settings: Settings = settings_for(
            [source], self.run_dir, batch_size=3, concurrency=CONCURRENCY
        )

    def lives(self, at: int, disturb: str) -> bool:
        """Go on with the run, disturbed at a turn; whether that turn came."""
        loop, stages = Turning(at), self.stages

        class Watched(Equipment):
            def stages(self, ledger: Ledger) -> Stages:
                made = super().stages(ledger)
                stages.append(made)
                return made

        with (
            mortal(self.service),
            patch.object(runs, "Equipment", Watched),
            asyncio.Runner(loop_factory=lambda: loop) as runner,
        ):
            runner.run(self._main(loop, disturb))
        return loop.came

    async def _main(self, loop: Turning, disturb: str) -> None:
        stop = Stop()
        run = loop.create_task(go_on(self.settings, stop))
        loop.action = run.cancel if disturb == "cancelled" else partial(_request, stop, disturb)
        async with asyncio.timeout(20):
            with suppress(asyncio.CancelledError):
                await run
        assert asyncio.all_tasks() == {asyncio.current_task()}, f"a task is left at {loop.at}"

    def look(self) -> None:
        """Nothing of the process is left."""
        assert not [t for t in threading.enumerate() if t.name.startswith("ctbatch")]
        assert not rundir.is_locked(self.run_dir)
        for stages in self.stages:
            assert stages.slots.in_flight == stages.slots.waiting == 0
            assert stages.admissions._value == CONCURRENCY + 2
        self.stages.clear()

    def begun(self) -> bool:
        """Whether there is a run to go on with."""
        try:
            runs.report(self.run_dir).check_balance()
            continuing.mode_of(self.run_dir)
        except CtbatchError:
            return False
        return True

    def finish(self) -> None:
        """Go on to the end: every line is accounted for, what counts was applied once."""
        if not self.begun():
            assert not self.service.requests
            shutil.rmtree(self.run_dir, ignore_errors=True)
        self.lives(0, "cancelled")
        self.look()
        report = runs.report(self.run_dir)
        report.check_balance()
        assert report.state is RunState.COMPLETE
        lines, times = report.lines, self.service.times()
        assert lines.total == len(LINES)
        assert lines.invalid == lines.blank == KINDS.count("blank") * len(LINES) // len(KINDS)
        assert max(times[n] for n, line in enumerate(LINES) if line.is_unsafe) == 1
        records = [n for n, line in enumerate(LINES) if line.is_record]
        certain = [n for n in records if n in self.service.told]
        assert lines.processed + lines.unprocessed + lines.unknown == len(records)
        assert lines.processed <= len(certain)


def _request(stop: Stop, disturb: str) -> None:
    for _ in range(("asked to end", "told to end now").index(disturb) + 1):
        stop.request(2)


@pytest.mark.parametrize("disturb", ["cancelled", "asked to end", "told to end now"])
@pytest.mark.parametrize(
    "step", [29, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_a_disturbance_at_any_turn_leaves_nothing_behind(
    tmp_path: Path, disturb: str, step: int
) -> None:
    """No task, thread, slot, permit or lock is left, the ledger balances, and the run can be
    finished with every line accounted for.
    """
    for at in range(3, EVERY, step):
        directory = tmp_path / f"{at}"
        directory.mkdir()
        disturbed = Disturbed(directory)
        came = disturbed.lives(at, disturb)
        disturbed.look()
        disturbed.finish()
        if not came:
            break
    else:
        pytest.fail("it never ended by itself")
