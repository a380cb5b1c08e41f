"""The report's JSON form is a contract, and its numbers add up or say so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from ctbatch.errors import BalanceError, ExitCode, InputError
from ctbatch.models import Counts, Mode, State
from ctbatch.pipeline.report.bottleneck import Bottleneck, Cause
from ctbatch.pipeline.report.document import (
    Batches,
    Keys,
    Reason,
    Report,
    RunState,
    SourceReport,
    gather_reasons,
    public_settings,
    restore_settings,
)
from ctbatch.pipeline.report.measurements import Attempts, LatencyMs, Throughput, TimeS
from ctbatch.settings import Account, Batching, Delivery, Endpoint, OnAmbiguous, Secret, Settings

LINES = Counts(total=10, processed=5, unprocessed=1, invalid=1, unknown=1, unsent=1, blank=1)

REPORT = Report(
    run_id="r1",
    state=RunState.STOPPED,
    mode=Mode.SEALED,
    account_id="TEST-1",
    host="in1.api.clevertap.com",
    started_at="2026-01-31T12:00:00Z",
    finished_at="2026-01-31T12:00:09Z",
    elapsed_s=9.0,
    sources=(SourceReport(path="a.ndjson", bytes=100, fingerprint="f", lines=LINES),),
    lines=LINES,
    batches=Batches(total=2, delivered=1),
    attempts=Attempts(total=2, by_result={"200": 2}),
    reasons=(
        Reason(
            state=State.UNPROCESSED,
            code=515,
            error="bad",
            count=1,
            first_lines=(("a.ndjson", 3),),
        ),
    ),
    latency_ms=LatencyMs(p50=1.5, p90=2.0, p99=2.0, max=2.25),
    throughput=Throughput(lines_per_s=1.0, sealed_bytes=9),
    batch_latency_ms=LatencyMs(p50=2.5, p90=3.0, p99=3.0, max=3.25),
    time_s=TimeS(reading=0.5),
    bound_by=Bottleneck(Cause.SERVICE, "bound by the service"),
    settings={"batch_size": 1000},
    keys=Keys(sealed_with=(1,), opened_with=(2,)),
    resume="ctbatch resume d",
    problem="the service gave no usable answer",
    exit_code=4,
    run_dir="d",
    moved=("rejected.ndjson.edited-1",),
)

SCHEMA_1 = (
    "schema run_id state mode account_id host started_at finished_at elapsed_s sources lines "
    "counted_to_end batches attempts reasons latency_ms throughput time_s settings keys resume"
)


def test_the_json_form_keeps_every_key_of_schema_1() -> None:
    """Keys may be added, never renamed: other people's tools read them."""
    raw = orjson.loads(REPORT.to_json())
    assert raw["schema"] == 1
    assert set(SCHEMA_1.split()) <= set(raw)
    assert list(raw["lines"]) == (
        ["total", "processed", "unprocessed", "invalid", "unknown", "unsent", "blank", "maybe_sent"]
    )
    assert list(raw["sources"][0]) == ["path", "bytes", "fingerprint", "lines"]
    assert list(raw["batches"]) == [
        "total",
        "delivered",
        "partial",
        "refused",
        "unknown",
        "isolated",
    ]
    assert list(raw["attempts"]) == ["total", "retries", "late_possible", "by_result"]
    assert list(raw["latency_ms"]) == ["p50", "p90", "p99", "max"]
    assert {"reading", "sealing", "waiting_for_slot", "on_the_wire", "backing_off"} <= set(
        raw["time_s"]
    )
    assert raw["bound_by"] == {"cause": "service", "text": "bound by the service"}
    assert raw["reasons"] == [
        {
            "state": "unprocessed",
            "code": 515,
            "error": "bad",
            "count": 1,
            "first_lines": [["a.ndjson", 3]],
        }
    ]
    assert raw["keys"] == {"sealed_with": [1], "opened_with": [2]}


def test_a_report_survives_being_written_and_read() -> None:
    """What was written is what is read."""
    data = REPORT.to_json()
    assert data.endswith(b"}\n")
    assert Report.from_json(data) == REPORT


def test_keys_that_were_added_later_are_passed_over() -> None:
    """A report of a newer version is readable."""
    raw = orjson.loads(REPORT.to_json())
    raw["new"] = raw["lines"]["new"] = raw["reasons"][0]["new"] = 1
    assert Report.from_json(orjson.dumps(raw)) == REPORT


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"schema":2}', b'{"schema":1}'])
def test_what_is_not_a_report_is_said_to_be_none(data: bytes) -> None:
    """A torn or foreign file is one clear message."""
    with pytest.raises(InputError, match=r"report\.json"):
        Report.from_json(data)


def test_a_path_that_is_not_utf8_does_not_lose_the_report() -> None:
    """POSIX file names are bytes; JSON is not."""
    source = SourceReport(path="caf\udce9.ndjson", lines=LINES)
    raw = orjson.loads(replace(REPORT, sources=(source,)).to_json())
    assert raw["sources"][0]["path"] == "caf\\udce9.ndjson"
    assert raw["reasons"][0]["count"] == 1


def test_a_report_that_balances_says_nothing() -> None:
    """Every line in exactly one state, per source and in all."""
    REPORT.check_balance()
    replace(REPORT, sources=()).check_balance()


@pytest.mark.parametrize(
    ("report", "name"),
    [
        (replace(REPORT, lines=replace(LINES, total=11)), "all inputs"),
        (replace(REPORT, lines=replace(LINES, blank=0)), "all inputs"),
        (replace(REPORT, lines=replace(LINES, maybe_sent=2)), "all inputs"),
        (
            replace(
                REPORT, sources=(SourceReport(path="a.ndjson", lines=replace(LINES, processed=4)),)
            ),
            "a.ndjson",
        ),
    ],
)
def test_a_report_that_does_not_balance_says_where(report: Report, name: str) -> None:
    """A lost or doubled line never passes unseen."""
    with pytest.raises(BalanceError, match=name):
        report.check_balance()


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (Counts(), ExitCode.OK),
        (Counts(total=2, processed=1, blank=1), ExitCode.OK),
        (Counts(total=1, unprocessed=1), ExitCode.SOME_REFUSED),
        (Counts(total=1, invalid=1), ExitCode.SOME_REFUSED),
        (Counts(total=1, unknown=1), ExitCode.SOME_REFUSED),
    ],
)
def test_the_exit_code_tells_whether_every_line_was_accepted(lines: Counts, code: ExitCode) -> None:
    """0 is for processed and blank lines only."""
    assert replace(REPORT, lines=lines).worst_exit is code


def test_reasons_come_by_frequency_with_their_first_lines() -> None:
    """The commonest reason is first, and names a few lines in input order."""
    rare = ("invalid", "json", "not JSON")
    common = ("unprocessed", 515, "bad")
    found = gather_reasons([("a", 1, rare), *(("a", n, common) for n in range(2, 10))])
    assert [(reason.code, reason.count) for reason in found] == [(515, 8), ("json", 1)]
    assert found[0].state is State.UNPROCESSED
    assert found[0].first_lines == tuple(("a", n) for n in range(2, 7))


def test_settings_are_kept_without_secrets_and_brought_back() -> None:
    """A run directory holds no credentials; resume takes the rest from it, flags first."""
    account = Account(id="TEST-1", passcode=Secret("hunter2"))
    settings = Settings(
        inputs=[Path("a.ndjson")],
        account=account,
        endpoint=Endpoint.of_region("in1"),
        plaintext=True,
        batching=Batching(batch_size=10),
        delivery=Delivery(concurrency=3, on_ambiguous=OnAmbiguous.HOLD),
        limit=5,
    )
    data = orjson.dumps(public_settings(settings))
    assert b"hunter2" not in data
    again = restore_settings(
        orjson.loads(data),
        run_dir=Path("d"),
        account=account,
        endpoint=settings.endpoint,
        keys=None,
        tuning={"concurrency": 4},
    )
    assert again == replace(
        settings,
        inputs=["a.ndjson"],
        run_dir=Path("d"),
        delivery=replace(settings.delivery, concurrency=4),
    )
