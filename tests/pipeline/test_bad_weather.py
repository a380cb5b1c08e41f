"""Whole runs in weather that could cost more than it has to."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

from ctbatch.api.transport import Reply
from ctbatch.errors import ReplyLost
from ctbatch.notices import Live, Notice
from ctbatch.pipeline import runs
from ctbatch.pipeline.report.document import Report, RunState
from ctbatch.pipeline.stopping import Stop
from ctbatch.settings import Settings
from tests.pipeline.lines import event, profile
from tests.pipeline.scripted import ScriptedService
from tests.pipeline.voyages import at_once, go_on, mortal, settings_for


def _taken(records: int) -> Reply:
    body = {"status": "success", "processed": records, "unprocessed": []}
    return Reply(200, {}, json.dumps(body).encode(), 0.0, "application/json")


def _run(settings: Settings, service: ScriptedService, watcher: Watching | None = None) -> Report:
    with mortal(service):
        return asyncio.run(runs.run(settings, watcher=watcher, backoff=at_once))


class Watching:
    """A watcher that keeps the tally."""

    live = Live()

    def watch(self, live: Live) -> None:
        """Keep it."""
        self.live = live

    def tell(self, notice: Notice) -> None:
        """Never mind."""


class Losing(ScriptedService):
    """After its first answer it gives none; at one request the run directory is copied, as a crash
    leaves it, and the run is stopped.
    """

    def __init__(self, run_dir: Path, image: Path, at: int) -> None:
        super().__init__()
        self._run_dir, self._image, self._at = run_dir, image, at
        self.stop = Stop()
        self.lost = 0

    async def request(self, *_: object, body: bytes, **__: object) -> Reply:
        """Take the first, lose the rest."""
        self.requests += 1
        records = len(json.loads(body)["d"])
        if self.requests == 1:
            return _taken(records)
        await asyncio.sleep(0)
        self.lost += records
        if self.requests == self._at:
            await asyncio.to_thread(shutil.copytree, self._run_dir, self._image)
            self.stop.request(2)
            self.stop.request(2)
        raise ReplyLost("reset", "reset")


def test_an_outage_exposes_only_what_was_sent(tmp_path: Path) -> None:
    """Who waits for better weather is in no way noted as perhaps on the wire: after a kill -9
    that would be unknown.
    """
    source = tmp_path / "events.ndjson"
    source.write_bytes(b"".join(event({"n": n}, identity=f"u{n}") + b"\n" for n in range(400)))
    settings = settings_for([source], tmp_path / "run", batch_size=10, concurrency=6)
    service = Losing(tmp_path / "run", tmp_path / "image", at=9)
    with mortal(service):
        asyncio.run(runs.run(settings, stop=service.stop, backoff=lambda _tries, _after: 0.05))
    lines = runs.report(tmp_path / "image").lines
    assert lines.processed == 10
    assert lines.unknown + lines.maybe_sent <= service.lost


class Crowded(ScriptedService):
    """It takes three requests at a time, and says so in the body of a 200."""

    refused = 0
    _inside_now = 0

    async def request(self, *_: object, body: bytes, **__: object) -> Reply:
        """Refuse what is too many."""
        self.requests += 1
        self._inside_now += 1
        try:
            too_many = self._inside_now > 3
            await asyncio.sleep(0.001)
        finally:
            self._inside_now -= 1
        if not too_many:
            return _taken(len(json.loads(body)["d"]))
        self.refused += 1
        said = {"status": "fail", "error": "Too many concurrent requests", "code": 429}
        return Reply(200, {}, json.dumps(said).encode(), 0.0, "application/json")


def test_a_429_in_the_body_lowers_the_limit_too(tmp_path: Path) -> None:
    """The row of the table is that of the code, and so is what follows."""
    source = tmp_path / "users.ndjson"
    source.write_bytes(b"".join(profile({"n": n}, identity=f"u{n}") + b"\n" for n in range(1000)))
    service, watching = Crowded(), Watching()
    settings = settings_for([source], tmp_path / "run", batch_size=10, concurrency=15)
    report = _run(settings, service, watching)
    assert report.lines.processed == 1000
    assert 0 < service.refused <= 10
    assert watching.live.throttled == service.refused
    assert watching.live.limit <= 3


class Trickle(ScriptedService):
    """It loses the answers to its second and third request; whoever writes hears of each."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = threading.Semaphore(0)

    async def request(self, *_: object, body: bytes, **__: object) -> Reply:
        """Answer, or do not."""
        self.requests += 1
        self.heard.release()
        if self.requests in {2, 3}:
            raise ReplyLost("reset", "reset")
        return _taken(len(json.loads(body)["d"]))


def test_a_pipe_that_is_quiet_after_a_lost_answer_does_not_tax_patience(tmp_path: Path) -> None:
    """Nothing was left to send meanwhile, so that time does not count towards giving up."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    service, quiet = Trickle(), threading.Event()

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            for n in range(4):
                file.write(event({"n": n}, identity=f"u{n}") + b"\n")
                service.heard.acquire(timeout=10)
                quiet.wait(0.3)  # longer than patience

    settings = settings_for([pipe], tmp_path / "run", batch_size=10, concurrency=2)
    settings = replace(
        settings,
        batching=replace(settings.batching, linger_s=0.01),
        delivery=replace(settings.delivery, give_up_after_s=0.2),
    )
    writer = threading.Thread(target=write)
    writer.start()
    report = _run(settings, service)
    writer.join()
    assert (report.state, report.lines.processed) == (RunState.COMPLETE, 2)
    assert report.lines.unknown == 2


class Fickle(ScriptedService):
    """It refuses the first record of its first request for now, and the run is stopped."""

    def __init__(self, stop: Stop) -> None:
        super().__init__()
        self._stop = stop

    async def request(self, *_: object, body: bytes, **__: object) -> Reply:
        """Take all the others, and later all."""
        self.requests += 1
        records = json.loads(body)["d"]
        if self.requests > 1:
            return _taken(len(records))
        self._stop.request(2)
        words = "Miscellaneous error. Skipped record number : 1"
        entry = {"status": "fail", "code": 555, "error": words, "record": records[0]}
        told = {"status": "partial", "processed": len(records) - 1, "unprocessed": [entry]}
        return Reply(200, {}, json.dumps(told).encode(), 0.0, "application/json")


def test_lines_of_a_batch_that_is_gone_on_with_are_counted_once(tmp_path: Path) -> None:
    """The progress of a resumed run begins with what was settled of it."""
    source = tmp_path / "users.ndjson"
    source.write_bytes(b"".join(profile({"n": n}, identity=f"u{n}") + b"\n" for n in range(100)))
    settings = settings_for([source], tmp_path / "run", batch_size=100, concurrency=1)
    stop, watching = Stop(), Watching()
    service = Fickle(stop)
    with mortal(service):
        first = asyncio.run(go_on(settings, stop))
        assert (first.lines.processed, first.lines.unsent) == (99, 1)
        last = asyncio.run(go_on(settings, watcher=watching))
    assert last.lines.processed == 100
    assert (watching.live.lines_read, watching.live.settled) == (100, 100)
