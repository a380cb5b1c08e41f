"""The options, what was accepted, and what is counted.

Invariants:

1. A :class:`Config` never changes; a running service swaps it for a changed one.
2. What was accepted is kept as the bytes of whole requests and read only when somebody asks, so
   that keeping costs the upload path next to nothing.
3. Where there is a state file, a request is in it before it is answered.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import orjson

from ctbatch.api.wire import MAX_CONCURRENT_UPLOADS
from ctbatch.emulator.faults import Fault
from ctbatch.errors import SettingsError, UsageError
from ctbatch.settings import Secret

__all__ = ["ACCOUNT_ID", "CHANGEABLE", "Accepted", "Call", "Config", "Gate", "Journal", "Store"]

ACCOUNT_ID: Final = "TEST-EMU-0001"
"""Shaped like a test project's id. The same every time, so that a run can be resumed against
another emulator.
"""

_MAX_CALLS_TOLD: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the emulator is asked to be.

    ``load_latency_s`` is added once per other upload in progress; ``retry_after`` (seconds, or
    ``date+N``) goes on every 429 and 503; ``outage`` is empty, ``500`` or ``reset``;
    ``in_progress`` is how often a fresh cursor answers "in progress"; ``encryption_status`` is the
    (unpublished) status of every encryption failure; ``keys_dir`` ``None`` means
    keys that go when the emulator goes.
    """

    port: int = 0
    account_id: str = ACCOUNT_ID
    passcode: Secret | None = None
    keys_dir: Path | None = None
    raw_keys: bool = False
    state_file: Path | None = None
    forget: bool = False
    idle_close_s: float = 75.0
    seed: int = 0
    latency_s: float = 0.0
    jitter_s: float = 0.0
    load_latency_s: float = 0.0
    max_concurrent: int = MAX_CONCURRENT_UPLOADS
    max_concurrent_others: int = 3
    max_body_bytes: int = 1 << 30
    max_event_properties: int = 100
    discarded_events: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    transient_times: int = 1
    retry_after: str = ""
    outage: str = ""
    feature: bool = True
    enforce: bool = False
    seal_errors: bool = False
    encryption_status: int = 400
    in_progress: int = 0
    cursor_idle_s: float = 3600.0
    cursor_life_s: float = 4 * 3600.0
    missing_profile_status: int = 200

    def __post_init__(self) -> None:
        for option, value, low, high in (
            ("--port", self.port, 0, 65535),
            ("--latency", self.latency_s, 0, 3600),
            ("--jitter", self.jitter_s, 0, 3600),
            ("--load-latency", self.load_latency_s, 0, 3600),
            ("--max-concurrent", self.max_concurrent, 0, 10_000),
            ("--max-concurrent-others", self.max_concurrent_others, 0, 10_000),
            ("--max-body-bytes", self.max_body_bytes, 1, 1 << 30),
            ("--idle-close", self.idle_close_s, 0, 86_400),
            ("--transient-times", self.transient_times, 1, 1_000_000),
            ("--in-progress", self.in_progress, 0, 1_000_000),
        ):
            # Written so that NaN and a value of another type (from JSON) fail too.
            if not _is_number(value) or not low <= value <= high:
                raise SettingsError(option, f"must be from {low} to {high}, not {value!r}")
        for text in self.faults:
            Fault.parse(text)
        if self.outage not in {"", "500", "reset"}:
            raise SettingsError("--outage", "must be 500 or reset")
        if not self.retry_after.removeprefix("date+").isdecimal() and self.retry_after:
            raise SettingsError("--retry-after", "must be seconds, or date+SECONDS")

    def changed(self, changes: Mapping[str, Any]) -> Config:
        """The same with some options changed; only those in :data:`CHANGEABLE` can be."""
        for name in changes:
            if name not in CHANGEABLE:
                known = ", ".join(sorted(CHANGEABLE))
                raise SettingsError(str(name), "cannot be changed", f"choose from {known}")
        try:
            return dataclasses.replace(self, **_as_tuples(changes))
        except (AttributeError, TypeError):
            raise SettingsError(
                ", ".join(changes), "is of the wrong type", "see GET /_emulator/config"
            ) from None

    def to_json(self) -> bytes:
        """All of it, the passcode included: for the pipe to a process of our own only."""
        values: dict[str, Any] = {}
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if isinstance(value, Secret):
                value = value.reveal()
            values[option.name] = str(value) if isinstance(value, Path) else value
        return orjson.dumps(values)

    @classmethod
    def from_json(cls, text: bytes) -> Config:
        """The inverse of :meth:`to_json`."""
        values = _as_tuples(orjson.loads(text))
        values["passcode"] = Secret(values["passcode"]) if values["passcode"] else None
        for name in ("keys_dir", "state_file"):
            values[name] = Path(values[name]) if values[name] else None
        return cls(**values)


CHANGEABLE: Final = frozenset(option.name for option in dataclasses.fields(Config)) - {
    "port",
    "account_id",
    "passcode",
    "keys_dir",
    "raw_keys",
    "state_file",
    "forget",
    "idle_close_s",
    "seed",
}
"""The options that can be changed while it runs."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An upload of which something was stored: when (epoch seconds), its opened body, and which of
    its records were not.
    """

    request: int
    at: int
    body: bytes = field(repr=False)
    refused: frozenset[int] = frozenset()

    def records(self) -> Iterator[dict[str, Any]]:
        """The records that were stored, in the order of the call."""
        for index, record in enumerate(orjson.loads(self.body)["d"]):
            if index not in self.refused:
                yield record


class Journal:
    """The state file: what was accepted, in SQLite, written on a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="emulator-journal")
        self._db: sqlite3.Connection | None = None

    async def load(self) -> list[Accepted]:
        """Open or make the file and give what is in it. Raises :class:`SettingsError`."""
        found: list[Accepted] = await self._on_thread(self._load)
        return found

    async def add(self, accepted: Accepted) -> None:
        """Return when it is in the file."""
        await self._on_thread(self._add, accepted)

    async def aclose(self) -> None:
        """Close the file and end the thread."""
        await self._on_thread(self._close)
        self._thread.shutdown(wait=False)

    async def _on_thread(self, work: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _load(self) -> list[Accepted]:
        try:
            # It holds records: nobody else may read it.
            self._path.touch(mode=0o600)
            db = self._db = sqlite3.connect(self._path, isolation_level=None)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute(
                "CREATE TABLE IF NOT EXISTS accepted"
                " (n INTEGER PRIMARY KEY, request INTEGER, at INTEGER, body BLOB, refused TEXT)"
            )
            rows = db.execute(
                "SELECT request, at, body, refused FROM accepted ORDER BY n"
            ).fetchall()
        except (OSError, sqlite3.Error) as error:
            raise SettingsError("--state", f"{self._path} cannot be used ({error})") from None
        return [
            Accepted(request, at, body, frozenset(orjson.loads(no)))
            for request, at, body, no in rows
        ]

    def _add(self, accepted: Accepted) -> None:
        assert self._db is not None
        self._db.execute(
            "INSERT INTO accepted (request, at, body, refused) VALUES (?, ?, ?, ?)",
            (
                accepted.request,
                accepted.at,
                accepted.body,
                orjson.dumps(sorted(accepted.refused)).decode(),
            ),
        )

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()


class Store:
    """What was accepted, in order of acceptance."""

    def __init__(self, *, forget: bool = False, journal: Journal | None = None) -> None:
        self._forget = forget
        self._journal = journal
        self.uploads: list[Accepted] = []

    async def __aenter__(self) -> Self:
        if self._journal is not None:
            try:
                self.uploads = await self._journal.load()
            except UsageError:
                await self._journal.aclose()
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._journal is not None:
            await self._journal.aclose()

    async def keep(self, accepted: Accepted) -> None:
        """Keep it, durably where there is a state file, unless told to forget."""
        if self._journal is not None:
            await self._journal.add(accepted)
        if not self._forget:
            self.uploads.append(accepted)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each acceptance of a record in order: ``n`` (from 1), ``request``, ``stored`` (how often
        this very record was stored in all) and ``record``.
        """
        stored = Counter(
            _canonical(record) for upload in self.uploads for record in upload.records()
        )
        n = 0
        for upload in self.uploads:
            for record in upload.records():
                n += 1
                times = stored[_canonical(record)]
                yield {"n": n, "request": upload.request, "stored": times, "record": record}


class Gate:
    """A cap on concurrent calls. ``inside`` counts those let in, ``turned_away`` the others."""

    __slots__ = ("inside", "peak", "turned_away")

    def __init__(self) -> None:
        self.inside = 0
        self.peak = 0
        self.turned_away = 0

    def enter(self, cap: int) -> bool:
        """Whether the call is let in; if so, it must :meth:`leave`."""
        if self.inside >= cap:
            self.turned_away += 1
            return False
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        return True

    def leave(self) -> None:
        """A call let in is over."""
        self.inside -= 1


@dataclass(slots=True)
class Call:
    """One request, as it is counted and told of: no personal data, so no query string either."""

    n: int
    method: str
    path: str
    status: int = 0
    bytes: int = 0
    sealed: bool = False
    key_id: int | None = None
    records: int = 0
    processed: int = 0
    faults: tuple[str, ...] = ()
    over_cap: bool = False
    outcome: str = ""


class Tally:
    """Counts over all calls, and the latest calls themselves."""

    def __init__(self) -> None:
        self.calls: deque[Call] = deque(maxlen=_MAX_CALLS_TOLD)
        self.totals: Counter[str] = Counter()
        self.by_status: Counter[str] = Counter()
        self.by_fault: Counter[str] = Counter()

    def add(self, call: Call) -> None:
        """Count a call that is over."""
        self.calls.append(call)
        self.totals["requests"] += 1
        self.totals["bytes"] += call.bytes
        self.totals["records"] += call.records
        self.totals["processed"] += call.processed
        self.by_status[call.outcome or str(call.status)] += 1
        self.by_fault.update(call.faults)


def _canonical(record: dict[str, Any]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _as_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
