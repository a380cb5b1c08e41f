"""A trial is a real run that is bounded, stores nothing with the account, and leaves nothing."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctbatch.emulator.server import Emulator
from ctbatch.emulator.state import Config
from ctbatch.errors import Interrupted, ServiceRefused, SettingsError
from ctbatch.settings import Account, Batching, Endpoint, KeyFiles, Settings
from ctbatch.tuning.bench import Grid, sweep
from ctbatch.tuning.figures import Figures, Setting
from ctbatch.tuning.trials import Trials
from tests.e2e.people import profiles

LINES = 600

Sleep = Callable[[float], Awaitable[object]]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An input; what is temporary goes where a test can look."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    path = tmp_path / "users.ndjson"
    path.write_bytes(b"\n".join(profiles(LINES)))
    return path


def leftovers(source: Path) -> list[Path]:
    """What trials left in the directory for temporary files."""
    return sorted((source.parent / "tmp").glob("ctbatch-trial-*"))


def base(emulator: Emulator, source: Path, **kind: Any) -> Settings:
    """The settings of trials at this emulator, as if it were the account."""
    return Settings(
        inputs=[source],
        account=Account(id=emulator.account_id, passcode=emulator.passcode),
        endpoint=Endpoint(base_url=emulator.base_url),
        keys=KeyFiles(server=emulator.server_key, client=emulator.client_key),
        **(kind or {"server_dry_run": True}),
    )


async def test_a_trial_is_measured_and_leaves_nothing(source: Path) -> None:
    """Rate, latencies and CPU of a run; no run directory stays, and nothing is stored."""
    async with Emulator(Config(latency_s=0.005)) as emulator:
        trials = Trials(base(emulator, source))
        figures = await trials.measure(Setting(2, 10), lines=500, seconds=30)
        assert emulator.records() == []
        assert emulator.stats()["totals"]["requests"] == 50
    assert (figures.lines, figures.requests, figures.throttled) == (500, 50, 0)
    assert figures.certain
    assert figures.lines_per_s > 0
    assert figures.cpu > 0
    assert figures.p50_ms is not None
    assert figures.batch_p99_ms is not None
    assert 5 <= figures.p50_ms <= figures.batch_p99_ms
    assert figures.cause is not None
    assert figures.throttled_share == 0
    assert leftovers(source) == []


async def test_a_trial_ends_when_its_time_is_over(source: Path) -> None:
    """Whatever is left of the input is not sent."""
    async with Emulator(Config(latency_s=0.05)) as emulator:
        trials = Trials(base(emulator, source))
        figures = await trials.measure(Setting(1, 1), lines=LINES, seconds=0.2)
    assert 0 < figures.lines < LINES


async def test_a_search_goes_no_further_than_the_first_refusal(source: Path) -> None:
    """A cap shows itself once, not for as long as there are lines."""
    async with Emulator(Config(latency_s=0.02, max_concurrent=2)) as emulator:
        trials = Trials(base(emulator, source))
        figures = await trials.measure(Setting(8, 1), lines=LINES, seconds=30, requests=LINES)
    assert figures.throttled >= 1
    assert figures.throttled_share > 0
    assert figures.lines < LINES


BAD_SERVICES = [
    ("500", "500"),
    ("500=every-3", "500"),
    ("500=after-20", "500"),
    ("503", "503"),
    ("400", "400"),
    ("413=every-3", "413"),
    ("reset=every-3", "reset"),
    ("reset-stored=every-3", "reset"),
    ("plaintext", "unopened"),
]


@pytest.mark.parametrize(("fault", "result"), BAD_SERVICES)
@pytest.mark.parametrize("latency_s", [0, 0.02])
async def test_a_search_goes_no_further_than_the_first_failure(
    source: Path, fault: str, result: str, latency_s: float
) -> None:
    """Whatever fails, the requests allowed are not exceeded, and hardly any follow."""
    allowed = 60
    async with Emulator(Config(latency_s=latency_s, faults=(fault,))) as emulator:
        trials = Trials(base(emulator, source))
        figures = await trials.measure(Setting(4, 10), lines=LINES, seconds=30, requests=allowed)
        made = emulator.stats()["totals"]["requests"]
    assert figures.failed
    also = {"stale_connection"} if result == "reset" else set()  # of a connection used before
    assert figures.results.keys() & ({result} | also)
    assert figures.requests == made <= allowed
    if not fault.startswith("413"):  # which nothing pauses for; those under way come to their end
        assert made <= 20 + 2 * 4


async def test_batches_that_their_bytes_cut_are_counted(source: Path) -> None:
    """A trial is bounded by the requests it makes, not by the lines they should have held."""
    async with Emulator() as emulator:
        small = replace(base(emulator, source), batching=Batching(max_batch_bytes=1000))
        trial = Trials(small).measure(Setting(2, 100), lines=LINES, seconds=30, requests=25)
        figures = await trial
        assert emulator.stats()["totals"]["requests"] == figures.requests == 25
    assert figures.certain
    assert not figures.failed
    assert figures.lines < LINES
    assert leftovers(source) == []


async def test_too_few_lines_are_not_certain(source: Path) -> None:
    """Three batches say nothing of four slots."""
    async with Emulator() as emulator:
        figures = await Trials(base(emulator, source)).measure(Setting(4, 10), lines=30, seconds=30)
    assert not figures.certain
    assert figures.lines == 30


async def test_a_refusal_of_the_account_ends_everything(source: Path) -> None:
    """What a run would be stopped by is said as a run says it."""
    async with Emulator(Config(faults=("401",))) as emulator:
        trials = Trials(base(emulator, source))
        with pytest.raises(ServiceRefused):
            await trials.measure(Setting(1, 10), lines=LINES, seconds=30)
    assert leftovers(source) == []


async def test_ctrl_c_ends_the_trial_and_those_after_it(source: Path) -> None:
    """The trial drains, its directory goes, and no other begins."""
    trials: list[Trials] = []

    async def interrupted(seconds: float) -> None:
        trials[0].request(signal.SIGINT)

    config = Config(latency_s=0.01)
    async with Emulator(config, sleep=interrupted) as emulator:
        trials.append(Trials(base(emulator, source)))
        with pytest.raises(Interrupted):
            await trials[0].measure(Setting(1, 10), lines=LINES, seconds=30)
        sent = emulator.stats()["totals"]["requests"]
        with pytest.raises(Interrupted):
            await trials[0].measure(Setting(1, 10), lines=LINES, seconds=30)
        assert emulator.stats()["totals"]["requests"] == sent
    assert sent < LINES / 10
    assert leftovers(source) == []


async def test_a_trial_that_would_store_something_is_not_made(source: Path) -> None:
    """There is no way to bench by uploading for real."""
    async with Emulator() as emulator:
        with pytest.raises(ValueError, match="stores nothing"):
            Trials(base(emulator, source, strict=True))


async def test_a_sweep_measures_every_combination_within_its_limit(source: Path) -> None:
    """Each once, one curve after the other, and no more lines than allowed in all."""
    told: list[Figures] = []
    grid = Grid([2, 1, 2], [10, 20], [0])
    async with Emulator() as emulator:
        trials = Trials(base(emulator, source))
        measured = await sweep(trials, grid, lines=LINES, seconds=30, limit=203, tell=told.append)
        records = emulator.stats()["totals"]["records"]
    assert [found.setting for found in measured] == [
        Setting(1, 10),
        Setting(2, 10),
        Setting(1, 20),
        Setting(2, 20),
    ]
    assert told == measured
    assert records == sum(found.lines for found in measured) == 200


async def test_a_limit_below_one_line_each_is_refused(source: Path) -> None:
    """Rather than measuring nothing."""
    async with Emulator() as emulator:
        with pytest.raises(SettingsError, match="--limit"):
            await sweep(
                Trials(base(emulator, source)),
                Grid([1, 2], [10], [0]),
                lines=10,
                seconds=1,
                limit=1,
                tell=lambda found: None,
            )
        assert await asyncio.to_thread(leftovers, source) == []
