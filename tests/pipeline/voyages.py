"""Whole runs against a scripted service, by processes that die in between.

Everything but the transport is the product's. A process dies at a step of its ledger: the run
directory is copied as a crash leaves it, the service hears nothing from then on, and the next one
works on the copy.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

from ctbatch.notices import Watcher
from ctbatch.pipeline import equipment, runs
from ctbatch.pipeline.ledger.writer import Ledger
from ctbatch.pipeline.report.document import Report
from ctbatch.pipeline.stopping import Stop
from ctbatch.settings import Account, Batching, Delivery, Endpoint, OnAmbiguous, Secret, Settings
from tests.pipeline.scripted import ScriptedService

__all__ = ["Death", "at_once", "go_on", "mortal", "settings_for"]

ACCOUNT = Account(id="TEST-1", passcode=Secret("invented"))
ENDPOINT = Endpoint(base_url="http://localhost:9")  # nothing listens there


class Death:
    """The end of a process at the ``at``-th step of its ledger; 0: it lives to its end.

    Steps are counted before each transaction, between the sync of its rows and its commit, and
    after it; the disk is slow at times, so that whoever does not wait for it is found out. What the
    directory holds at the step is copied to ``image``, and from that moment on the service hears
    nothing more of this process.
    """

    def __init__(self, service: ScriptedService, image: Path, at: int) -> None:
        self._service = service
        self.image = image
        self._at = at
        self._slow = random.Random(at)
        self.steps = 0
        self.came = False
        self._kill: Callable[[], object] = lambda: None

    def of_this_task(self) -> None:
        """It is the death of the running task."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._kill = lambda: loop.call_soon_threadsafe(task.cancel)

    def step(self, run_dir: Path) -> None:
        """The ledger is about to write, or has written."""
        self.steps += 1
        if self._at:
            time.sleep(self._slow.choice([0, 0, 0.002]))
        if self.steps == self._at:
            with self._service.lock:
                self._service.dead = True
            shutil.copytree(run_dir, self.image)
            self.came = True
            self._kill()


@contextmanager
def mortal(service: ScriptedService, death: Death | None = None) -> Iterator[None]:
    """Runs made inside talk to ``service`` and end as ``death`` says."""

    class MortalLedger(Ledger):
        def _transact(self, writes: Sequence[Callable[[], object]]) -> None:
            if death is None:
                super()._transact(writes)
                return
            death.step(self._path.parent)
            with patch.object(self.files, "sync", partial(self._sync, self.files.sync)):
                super()._transact(writes)
            death.step(self._path.parent)

        def _sync(self, sync: Callable[[], None]) -> None:
            sync()
            assert death is not None
            death.step(self._path.parent)

    def transport(*_: object, **__: object) -> ScriptedService:
        return service

    with (
        patch.object(equipment, "Transport", transport),
        patch.object(runs, "Ledger", MortalLedger),
    ):
        yield


def settings_for(
    inputs: Sequence[Path],
    run_dir: Path,
    *,
    batch_size: int,
    concurrency: int,
    on_ambiguous: OnAmbiguous = OnAmbiguous.AUTO,
) -> Settings:
    """A run whose requests a scripted service can read."""
    return Settings(
        inputs=inputs,
        account=ACCOUNT,
        endpoint=ENDPOINT,
        plaintext=True,
        batching=Batching(batch_size=batch_size),
        delivery=Delivery(
            workers=0, timeout_s=0.1, concurrency=concurrency, on_ambiguous=on_ambiguous
        ),
        run_dir=run_dir,
    )


def at_once(tries: int, retry_after: str | None) -> float:
    """No pauses."""
    return 0.0


async def go_on(
    settings: Settings, stop: Stop | None = None, watcher: Watcher | None = None
) -> Report:
    """Begin the run, or go on with it where its directory exists, with the settings' tuning."""
    assert settings.run_dir is not None
    if not settings.run_dir.exists():
        return await runs.run(settings, watcher=watcher, stop=stop, backoff=at_once)
    tuning = {
        "batch_size": settings.batching.batch_size,
        "concurrency": settings.delivery.concurrency,
    }
    return await runs.resume(
        settings.run_dir,
        account=ACCOUNT,
        endpoint=ENDPOINT,
        keys=None,
        tuning=tuning,
        watcher=watcher,
        stop=stop,
        backoff=at_once,
    )
