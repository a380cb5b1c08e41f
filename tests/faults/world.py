"""A run in a world of its own: numbered records, our emulator, our fault proxy before it.

Everything is in this process but nothing is replaced: the run is the library's, and what was stored
is asked of the emulator. Only the pauses between attempts are shortened.
"""

from __future__ import annotations

import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctbatch.emulator.server import Emulator
from ctbatch.emulator.state import Config
from ctbatch.notices import Watcher
from ctbatch.pipeline import runs
from ctbatch.pipeline.report.document import Report
from ctbatch.pipeline.stopping import Stop
from ctbatch.settings import Account, Batching, Delivery, Endpoint, KeyFiles, Settings
from tests.proxy import FaultProxy, Kind, Script

__all__ = [
    "WEATHER",
    "Record",
    "World",
    "brief",
    "check",
    "counter",
    "event",
    "is_unsafe",
    "number_of",
    "profile",
    "settings_for",
    "world",
    "write",
]

Record = dict[str, Any]

WEATHER = tuple(kind for kind in Kind if kind is not Kind.NONE)


def brief(tries: int, retry_after: str | None) -> float:
    """Pauses of 2 ms, whatever was asked for."""
    return 0.002


def profile(number: int, user: object = None) -> Record:
    """A profile that only sets a value: it may be applied twice."""
    identity = f"user-{number if user is None else user}"
    return {"type": "profile", "identity": identity, "profileData": {"n": number}}


def counter(number: int, user: object = None) -> Record:
    """A profile that counts: it must not be applied twice."""
    record = profile(number, user)
    record["profileData"]["visits"] = {"$incr": 1}
    return record


def event(number: int, user: object = None) -> Record:
    """An event: it must not be stored twice."""
    identity = f"user-{number if user is None else user}"
    return {"type": "event", "identity": identity, "evtName": "seen", "evtData": {"n": number}}


def number_of(record: Record) -> int:
    """The number that tells a record from all others."""
    data = record.get("profileData") or record["evtData"]
    return int(data["n"])


def is_unsafe(record: Record) -> bool:
    """Whether it must not be applied twice."""
    return record["type"] == "event" or "visits" in record["profileData"]


def write(path: Path, records: Iterable[Record]) -> Path:
    """An input of these records."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def settings_for(  # noqa: PLR0917  # what every run needs, and nothing else
    emulator: Emulator, url: str, source: Path, run_dir: Path, batch_size: int, delivery: Delivery
) -> Settings:
    """A sealed run against an emulator that is reached at ``url``."""
    return Settings(
        inputs=[source],
        account=Account(id=emulator.account_id, passcode=emulator.passcode),
        endpoint=Endpoint(base_url=url),
        keys=KeyFiles(server=emulator.server_key, client=emulator.client_key),
        batching=Batching(batch_size=batch_size),
        delivery=delivery,
        run_dir=run_dir,
    )


@dataclass
class World:
    """Records on their way to an emulator, through a proxy that does as its script says."""

    records: Sequence[Record] = field(repr=False)
    emulator: Emulator
    proxy: FaultProxy
    settings: Settings
    backoff: Callable[[int, str | None], float] = brief

    @property
    def run_dir(self) -> Path:
        """The run's directory."""
        assert self.settings.run_dir is not None
        return self.settings.run_dir

    async def run(self, watcher: Watcher | None = None, stop: Stop | None = None) -> Report:
        """Upload the records."""
        return await runs.run(self.settings, watcher=watcher, stop=stop, backoff=self.backoff)

    async def resume(self, stop: Stop | None = None, **tuning: Any) -> Report:
        """Go on with it."""
        return await runs.resume(
            self.run_dir,
            account=self.settings.account,
            endpoint=self.settings.endpoint,
            keys=self.settings.keys,
            tuning=tuning,
            stop=stop,
            backoff=self.backoff,
        )

    def stored(self) -> Counter[int]:
        """How often each record was stored, by its number."""
        return Counter(number_of(row["record"]) for row in self.emulator.records())

    def last(self) -> dict[str, int]:
        """The number of the record that was stored last, by user."""
        return {
            row["record"]["identity"]: number_of(row["record"]) for row in self.emulator.records()
        }

    def listed(self, name: str) -> list[int]:
        """The numbers of the records in ``rejected`` or ``unknown``, each with its reason."""
        path = self.run_dir / f"{name}.ndjson"
        if not path.exists():
            return []
        rows = path.read_text().splitlines()
        reasons = (self.run_dir / f"{name}.reasons.ndjson").read_text().splitlines()
        numbers = [number_of(json.loads(row)) for row in rows]
        # Records are numbered as the lines are, from 0.
        assert [json.loads(reason)["line"] - 1 for reason in reasons] == numbers
        return numbers


@asynccontextmanager
async def world(
    directory: Path,
    records: Sequence[Record],
    *,
    script: Script | Sequence[Any] = (),
    batch_size: int = 100,
    tls: tuple[ssl.SSLContext, Path] | None = None,
    emulator: Config | None = None,
    backoff: Callable[[int, str | None], float] = brief,
    **delivery: Any,
) -> AsyncIterator[World]:
    """A world; ``delivery`` are fields of ``Delivery``, ``tls`` the proxy's context and its CA."""
    source = write(directory / "users.ndjson", records)
    context, ca_file = tls or (None, None)
    async with (
        Emulator(emulator) as service,
        FaultProxy(service.base_url, script=script, tls=context) as proxy,
    ):
        limits = Delivery(**{"workers": 0, **delivery})
        settings = settings_for(service, proxy.url, source, directory / "run", batch_size, limits)
        if ca_file is not None:
            endpoint = Endpoint(base_url=proxy.url, ca_file=ca_file)
            settings = Settings(**{**_fields(settings), "endpoint": endpoint})
        yield World(records, service, proxy, settings, backoff)


def _fields(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__slots__}


def check(world: World, report: Report) -> None:
    """Compare what a finished run says with what was stored: every record is where it says."""
    report.check_balance()
    stored, unknown = world.stored(), set(world.listed("unknown"))
    rejected = set(world.listed("rejected"))
    lines = report.lines
    assert lines.total == len(world.records)
    assert (lines.unknown, lines.unprocessed) == (len(unknown), len(rejected))
    assert lines.processed == len(world.records) - len(unknown) - len(rejected)
    for record in world.records:
        number = number_of(record)
        if is_unsafe(record):
            assert stored[number] <= 1, "an unsafe record was applied twice"
        if number not in unknown | rejected:
            assert stored[number] >= 1, "a processed record was not stored"
    on_disk = Report.from_json((world.run_dir / "report.json").read_bytes())
    assert on_disk == report
