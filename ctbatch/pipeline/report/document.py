"""What a run came to: the report and its JSON form.

Invariants:

1. The JSON form is a contract (``"schema": 1``): keys may be added, never renamed or removed, and
   a reader ignores those it does not know.
2. Per source and in all, the states add up to the lines read; :meth:`Report.check_balance` says so.
3. No secret and no personal data: paths, counts, times, codes and cleaned words.

What does not live here: measuring (:mod:`~ctbatch.pipeline.report.measurements`), reading the
ledger, wording for people (:mod:`ctbatch.cli.summary`), and printing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson

from ctbatch.errors import BalanceError, ExitCode, InputError
from ctbatch.models import Counts, Mode, State
from ctbatch.paths import legible
from ctbatch.pipeline.report.bottleneck import Bottleneck, Cause
from ctbatch.pipeline.report.measurements import (
    Attempts,
    LatencyMs,
    Measurements,
    Throughput,
    TimeS,
)
from ctbatch.settings import Account, Batching, Delivery, Endpoint, KeyFiles, OnAmbiguous, Settings

__all__ = [
    "FIRST_LINES",
    "REPORT_NAME",
    "Attempts",
    "Batches",
    "Bottleneck",
    "Keys",
    "LatencyMs",
    "Measurements",
    "Reason",
    "Report",
    "RunState",
    "SourceReport",
    "Throughput",
    "TimeS",
    "Warned",
    "Why",
    "gather_reasons",
    "public_settings",
    "restore_settings",
]

REPORT_NAME = "report.json"

FIRST_LINES = 5
"""How many places a reason names: enough to look at, not enough to swell the report."""

_SCHEMA = 1

_T = TypeVar("_T")

Why = tuple[str, int | str | None, str]
"""Why a line was not accepted: the state, code and error of its refusal."""


class RunState(StrEnum):
    """Where a run stands. ``killed``: it is not running, and nothing says how it ended."""

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"
    KILLED = "killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """One input. ``bytes`` is its size as stored, ``None`` for a pipe."""

    path: str
    bytes: int | None = None
    fingerprint: str | None = None
    lines: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Batches by how they ended."""

    total: int = 0
    delivered: int = 0
    partial: int = 0
    refused: int = 0
    unknown: int = 0
    isolated: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Ids of the keys that were used (none for keys without a prefix)."""

    sealed_with: tuple[int, ...] = ()
    opened_with: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why lines were not accepted, how many, and the first of them as (path, line)."""

    state: State
    code: int | str | None
    error: str
    count: int
    first_lines: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """What is odd about lines that were accepted all the same: how many, and the first of them as
    (path, line).
    """

    text: str
    count: int
    first_line: tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run came to; its fields are the keys of ``report.json``.

    ``started_at`` and ``finished_at`` are UTC in ISO 8601; ``elapsed_s`` is how long processes
    worked on it, of those that came to an end. ``counted_to_end``: the lines are those of all
    inputs, not only of what was read of them. ``settings`` are without secrets. ``problem`` says
    why the run ended early and ``resume`` the command that goes on with it, quoted for a shell;
    both ``None`` at its end.
    Latencies are per attempt (on the wire) and per batch (from admission to settlement).
    ``bound_by`` is what held the run up most; ``None`` before anything is measured. ``moved`` are
    files that somebody had edited and that were moved out of the way. ``flags`` are the options of
    the command that said where the run goes: endpoint, account, keys; no secrets.
    """

    schema: int = _SCHEMA
    run_id: str
    state: RunState
    mode: Mode
    account_id: str | None = None
    host: str | None = None
    started_at: str
    finished_at: str | None = None
    elapsed_s: float = 0.0
    sources: tuple[SourceReport, ...] = ()
    lines: Counts = field(default_factory=Counts)
    counted_to_end: bool = True
    batches: Batches = field(default_factory=Batches)
    attempts: Attempts = field(default_factory=Attempts)
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[Warned, ...] = ()
    latency_ms: LatencyMs = field(default_factory=LatencyMs)
    batch_latency_ms: LatencyMs = field(default_factory=LatencyMs)
    throughput: Throughput = field(default_factory=Throughput)
    time_s: TimeS = field(default_factory=TimeS)
    bound_by: Bottleneck | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    keys: Keys = field(default_factory=Keys)
    resume: str | None = None
    problem: str | None = None
    exit_code: int = ExitCode.OK
    run_dir: str = ""
    moved: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def worst_exit(self) -> ExitCode:
        """The exit code of a run that reached its end: 3 if any line was not accepted, else 0."""
        lines = self.lines
        refused = lines.unprocessed + lines.invalid + lines.unknown
        return ExitCode.SOME_REFUSED if refused else ExitCode.OK

    def check_balance(self) -> None:
        """Raises :class:`BalanceError` unless every line is in exactly one state, per source and
        in all.
        """
        for source in self.sources:
            _balance(source.path, source.lines.total, source.lines)
        total = sum(source.lines.total for source in self.sources)
        _balance("all inputs", total if self.sources else self.lines.total, self.lines)

    def to_json(self) -> bytes:
        """The report as indented JSON with a newline at its end."""
        option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        try:
            return orjson.dumps(self, option=option)
        except orjson.JSONEncodeError:
            # A path that is not UTF-8 reaches us with lone surrogates, which JSON has no room for.
            return orjson.dumps(_legible(asdict(self)), option=option)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a report back. Raises :class:`InputError` if it is not one."""
        try:
            raw = orjson.loads(data)
            if raw["schema"] != _SCHEMA:
                raise ValueError(f"its schema is {raw['schema']}, not {_SCHEMA}")
            return cls(**_report_fields(raw))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            why = "is not a report" if not isinstance(error, ValueError) else f"{error}"
            raise InputError(REPORT_NAME, why, "`ctbatch report` makes it anew") from None


def gather_reasons(refused: Iterable[tuple[str, int, Why]]) -> tuple[Reason, ...]:
    """Refused lines, as (path, line number, why) in input order, by reason: the most frequent
    first.
    """
    counts: Counter[Why] = Counter()
    first: dict[Why, list[tuple[str, int]]] = {}
    for path, line, why in refused:
        counts[why] += 1
        if counts[why] <= FIRST_LINES:
            first.setdefault(why, []).append((path, line))
    return tuple(
        Reason(
            state=State(state),
            code=code,
            error=error,
            count=n,
            first_lines=tuple(first[state, code, error]),
        )
        for (state, code, error), n in counts.most_common()
    )


def public_settings(settings: Settings) -> dict[str, Any]:
    """The settings without credentials and key files, as the report and the ledger keep them."""
    kept = {name: getattr(settings, name) for name in _KEPT}
    kept["inputs"] = [str(item) for item in settings.inputs]
    return kept | asdict(settings.batching) | asdict(settings.delivery)


def restore_settings(
    kept: Mapping[str, Any],
    *,
    run_dir: Path,
    account: Account | None,
    endpoint: Endpoint | None,
    keys: KeyFiles | None,
    tuning: Mapping[str, Any],
    resume_flags: tuple[str, ...] = (),
) -> Settings:
    """The settings of a run that goes on: what :func:`public_settings` kept, with ``tuning``
    (fields of ``Batching`` and ``Delivery``) in its place where given, and today's credentials.
    """
    tuned = {**kept, **tuning}
    tuned["on_ambiguous"] = OnAmbiguous(tuned["on_ambiguous"])
    return Settings(
        **{name: kept[name] for name in _KEPT},
        batching=Batching(**{item.name: tuned[item.name] for item in fields(Batching)}),
        delivery=Delivery(**{item.name: tuned[item.name] for item in fields(Delivery)}),
        account=account,
        endpoint=endpoint,
        keys=keys,
        run_dir=run_dir,
        resume_flags=resume_flags,
    )


_KEPT = ("inputs", "plaintext", "dry_run", "server_dry_run", "emulator", "strict", "limit")


def _balance(name: str, total: int, lines: Counts) -> None:
    if total != lines.total:
        raise BalanceError(name, total, lines.total)
    if lines.total != lines.accounted or not 0 <= lines.maybe_sent <= lines.unsent:
        raise BalanceError(name, lines.total, lines.accounted)


def _known(kind: type[_T], raw: Mapping[str, Any], **converted: object) -> _T:
    """A value of ``kind`` from the keys it knows."""
    names = {item.name for item in fields(kind)}  # type: ignore[arg-type]  # kind is a dataclass
    return kind(**{key: value for key, value in raw.items() if key in names} | converted)


def _report_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    keys = raw["keys"]
    known = {item.name: raw[item.name] for item in fields(Report) if item.name in raw}
    return known | {
        "state": RunState(raw["state"]),
        "mode": Mode(raw["mode"]),
        "sources": tuple(
            _known(SourceReport, source, lines=_known(Counts, source["lines"]))
            for source in raw["sources"]
        ),
        "lines": _known(Counts, raw["lines"]),
        "batches": _known(Batches, raw["batches"]),
        "attempts": _known(Attempts, raw["attempts"]),
        "reasons": tuple(_reason(reason) for reason in raw["reasons"]),
        "warnings": tuple(
            _known(Warned, warned, first_line=tuple(warned["first_line"]))
            for warned in raw.get("warnings", ())
        ),
        "latency_ms": _known(LatencyMs, raw["latency_ms"]),
        "throughput": _known(Throughput, raw["throughput"]),
        "batch_latency_ms": _known(LatencyMs, raw.get("batch_latency_ms", {})),
        "time_s": _known(TimeS, raw["time_s"]),
        "bound_by": _bottleneck(raw.get("bound_by")),
        "keys": Keys(
            sealed_with=tuple(keys["sealed_with"]), opened_with=tuple(keys["opened_with"])
        ),
        "moved": tuple(raw.get("moved", ())),
        "flags": tuple(raw.get("flags", ())),
    }


def _bottleneck(raw: Mapping[str, Any] | None) -> Bottleneck | None:
    return None if raw is None else Bottleneck(Cause(raw["cause"]), raw["text"])


def _reason(raw: Mapping[str, Any]) -> Reason:
    places = tuple((path, line) for path, line in raw["first_lines"])
    return _known(Reason, raw, state=State(raw["state"]), first_lines=places)


def _legible(value: Any) -> Any:
    """The same value with lone surrogates written as escapes."""
    if isinstance(value, str):
        return legible(value)
    if isinstance(value, Mapping):
        return {_legible(key): _legible(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_legible(item) for item in value]
    return value
