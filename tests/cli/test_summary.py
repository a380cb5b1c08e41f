"""The summary is something that a manager could be sent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ctbatch.cli.summary import summary
from ctbatch.cli.wording import clean, count, duration, lines, percent, size
from ctbatch.models import Counts, Mode, State
from ctbatch.pipeline.report.bottleneck import Bottleneck, Cause
from ctbatch.pipeline.report.document import Reason, Report, RunState, SourceReport
from ctbatch.pipeline.report.measurements import Attempts, LatencyMs, Throughput, TimeS

FULL = Counts(
    total=40_000_000,
    processed=39_990_000,
    unprocessed=7_000,
    invalid=1_000,
    unknown=500,
    unsent=1_000,
    blank=500,
    maybe_sent=20,
)

REPORT = Report(
    run_id="20260131T120000Z-users",
    state=RunState.COMPLETE,
    mode=Mode.SEALED,
    account_id="TEST-1",
    host="in1.api.clevertap.com",
    started_at="2026-01-31T12:00:00Z",
    elapsed_s=552,
    sources=(SourceReport(path="users.ndjson", bytes=12_300_000_000, lines=FULL),),
    lines=FULL,
    attempts=Attempts(total=40_010, retries=10, late_possible=1),
    reasons=tuple(
        Reason(
            state=State.UNPROCESSED,
            code=code,
            error=f"reason {code}",
            count=n,
            first_lines=tuple(("users.ndjson", line) for line in range(1, min(n, 5) + 1)),
        )
        for code, n in ((515, 6_000), (512, 999), (513, 1), (514, 1))
    ),
    latency_ms=LatencyMs(p50=200, p90=300, p99=450, max=900),
    batch_latency_ms=LatencyMs(p50=450, p90=600, p99=900, max=1800),
    throughput=Throughput(lines_per_s=72_463),
    time_s=TimeS(on_the_wire=8000, waiting_for_slot=11000, sealing=900, reading=1),
    bound_by=Bottleneck(Cause.SERVICE, "bound by the service: slots full 98 % of the time"),
    run_dir="runs/a",
    moved=("rejected.ndjson.edited-1",),
)

CLEAN = Counts(total=3, processed=2, blank=1)


@pytest.fixture
def _written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's file is where it says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/report.json").touch()


@pytest.mark.usefixtures("_written")
def test_the_whole_summary() -> None:
    """What went in, what became of it, why, how long, how fast, where the files are."""
    assert summary(REPORT) == (
        """\
Run 20260131T120000Z-users is complete; 8,500 lines need a look.

Went in   40,000,000 lines from users.ndjson (12.3 GB)
Account   TEST-1 at in1.api.clevertap.com
Mode      end-to-end encrypted

What became of the lines
  processed    39,990,000    99.97 %  accepted by the service
  unprocessed       7,000     0.02 %  refused by the service
  invalid           1,000   < 0.01 %  not sent: the line itself is wrong
  unknown             500   < 0.01 %  sent, but no usable answer; not repeated
  unsent            1,000   < 0.01 %  not sent yet; 20 of them may have arrived
  blank               500   < 0.01 %  empty lines

Most frequent reasons (1 more in report.json)
  1. 6,000 lines unprocessed (515): reason 515
     users.ndjson:1, users.ndjson:2, users.ndjson:3, …
  2. 999 lines unprocessed (512): reason 512
     users.ndjson:1, users.ndjson:2, users.ndjson:3, …
  3. 1 line unprocessed (513): reason 513
     users.ndjson:1

Took      9 min 12 s, 72,463 lines/s
Requests  40,010, 10 of them retries; half were answered within 200 ms, 99 % within 450 ms
Batches   half were settled 450 ms after their admission, 99 % within 900 ms
Time      waiting for a slot 55 %, on the wire 40 %, sealing 5 %
Bound     by the service: slots full 98 % of the time
Late      1 timed out; what the service applies of them later is beyond our sight

Files
  runs/a/report.json               this report
  runs/a/rejected.ndjson           the refused and invalid lines, as they stand in the input
  runs/a/rejected.reasons.ndjson   why, row by row
  runs/a/unknown.ndjson            the lines that may or may not have arrived
  runs/a/unknown.reasons.ndjson    why, row by row
  runs/a/rejected.ndjson.edited-1  edited since, so moved out of the way

What to do
  Mend the lines in rejected.ndjson, then upload that file:
    ctbatch run runs/a/rejected.ndjson
  Look up the lines in unknown.ndjson (dashboard, ctbatch profile, ctbatch events),
  delete those that did arrive, since they would count twice, then upload the rest:
    ctbatch run runs/a/unknown.ndjson"""
    )


@pytest.mark.parametrize(
    ("mode", "flag"),
    [
        (Mode.EMULATOR, " --emulator"),
        (Mode.PLAINTEXT, " --plaintext"),
        (Mode.DRY_RUN, " --dry-run"),
        (Mode.SERVER_DRY_RUN, " --server-dry-run"),
    ],
)
def test_what_is_uploaded_again_goes_the_same_way(mode: Mode, flag: str) -> None:
    """The command that is suggested can be pasted: mode kept, path quoted."""
    text = summary(replace(REPORT, mode=mode, run_dir="my runs/a", lines=Counts(invalid=1)))
    assert text.endswith(f"    ctbatch run 'my runs/a/rejected.ndjson'{flag}")
    assert "unknown.ndjson" not in text


def test_what_is_uploaded_again_goes_to_the_same_place() -> None:
    """Region, account and keys are repeated as given, and whatever the mode does not tell."""
    settings = {"server_dry_run": True, "plaintext": True, "strict": True, "emulator": False}
    flags = ("--region", "in1", "--hpke-info", "a b")
    report = replace(REPORT, mode=Mode.SERVER_DRY_RUN, settings=settings, flags=flags)
    again = " --server-dry-run --plaintext --strict --region in1 --hpke-info 'a b'"
    commands = [row for row in summary(report).splitlines() if "ctbatch run" in row]
    assert commands == [
        f"    ctbatch run runs/a/{name}.ndjson{again}" for name in ("rejected", "unknown")
    ]


@pytest.mark.parametrize("mode", [Mode.DRY_RUN, Mode.SERVER_DRY_RUN])
def test_after_a_dry_run_nobody_is_told_to_upload(mode: Mode) -> None:
    """What was only checked is checked again once it is mended; nothing can have arrived."""
    text = summary(replace(REPORT, mode=mode))
    assert "Nothing was stored, and what follows stores nothing either." in text
    assert "then check that file:" in text
    assert "upload" not in text
    assert "did arrive" not in text


def test_what_was_not_copied_is_said_to_be_empty() -> None:
    """Else somebody uploads blank lines, and believes to have mended something."""
    long = Reason(state=State.INVALID, code="line_too_long", error="it is too long", count=1)
    text = summary(replace(REPORT, lines=Counts(invalid=1), reasons=(long,)))
    assert "A line that was too long is an empty row there" in text
    assert "empty row" not in summary(REPORT)


def test_a_clean_run_is_short() -> None:
    """Nothing is said about what did not happen."""
    text = summary(
        Report(
            run_id="r",
            state=RunState.COMPLETE,
            mode=Mode.EMULATOR,
            started_at="2026-01-31T12:00:00Z",
            lines=CLEAN,
            sources=(SourceReport(path="-", lines=CLEAN),),
        )
    )
    assert text.startswith("Run r is complete: every line was accepted.\n")
    assert "EMULATOR" in text
    for absent in ("unknown", "reasons", "Requests", "Account", "Files", "bytes"):
        assert absent not in text


@pytest.mark.parametrize(
    ("report", "headline"),
    [
        (replace(REPORT, lines=Counts()), "is complete, but the input was empty."),
        (replace(REPORT, lines=Counts(total=1, invalid=1)), "is complete; 1 line needs a look."),
        (
            replace(REPORT, mode=Mode.DRY_RUN, lines=Counts(total=1, unsent=1)),
            "is complete: every line is fit to be sent.",
        ),
        (replace(REPORT, state=RunState.RUNNING), "is still running."),
        (
            replace(REPORT, state=RunState.STOPPED, lines=Counts(total=1, invalid=1)),
            "ended with a problem.",
        ),
        (
            replace(REPORT, state=RunState.STOPPED, lines=Counts(total=1, unsent=1)),
            "stopped before its end.",
        ),
        (
            replace(REPORT, state=RunState.STOPPED, lines=Counts(), counted_to_end=False),
            "stopped before its end.",
        ),
        (replace(REPORT, state=RunState.REFUSED), "was refused by the service."),
        (replace(REPORT, state=RunState.INTERRUPTED), "was interrupted."),
        (replace(REPORT, state=RunState.KILLED), "was killed before its end."),
    ],
)
def test_the_first_line_says_how_it_ended(report: Report, headline: str) -> None:
    """Who reads one line knows how it went."""
    assert summary(report).splitlines()[0].endswith(headline)


@pytest.mark.usefixtures("_written")
@pytest.mark.parametrize("state", RunState)
def test_a_report_is_named_where_the_run_came_to_an_end(state: RunState) -> None:
    """What is there of a run that was killed is the report of an earlier process."""
    ended = state not in {RunState.RUNNING, RunState.KILLED}
    report = replace(REPORT, state=state, moved=(), lines=CLEAN)
    assert ("this report" in summary(report)) == ended
    assert ("Files" in summary(report)) == ended


def test_a_report_that_could_not_be_written_is_not_named() -> None:
    """The problem tells of it."""
    assert "this report" not in summary(replace(REPORT, state=RunState.STOPPED))


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.KILLED])
def test_a_time_that_is_not_known_is_not_told(state: RunState) -> None:
    """Of a run that goes on, or was killed, it is told when it began."""
    text = summary(replace(REPORT, state=state, elapsed_s=0.0, throughput=Throughput()))
    assert "Began     2026-01-31T12:00:00Z" in text
    assert "Took" not in text


def test_a_stop_says_why() -> None:
    """The reason stands right below the headline, all of it."""
    text = summary(
        replace(REPORT, state=RunState.REFUSED, problem="refused\nLikely causes:\n  1. x")
    )
    assert text.splitlines()[1:4] == ["  refused", "  Likely causes:", "    1. x"]


def test_a_dry_run_sends_nothing_and_says_so() -> None:
    """Lines that were only checked are not called late."""
    text = summary(replace(REPORT, mode=Mode.DRY_RUN))
    assert "fit to be sent" in text
    assert "not sent yet" not in text


def test_unsent_lines_that_cannot_have_arrived_are_simply_unsent() -> None:
    """Doubt is mentioned only where there is some."""
    text = summary(replace(REPORT, lines=replace(FULL, maybe_sent=0)))
    assert "not sent yet\n" in text


def test_many_inputs_are_counted_and_pipes_have_no_size() -> None:
    """Four inputs are three names and one more; totals that were not counted say so."""
    sources = tuple(SourceReport(path=f"{n}.ndjson", bytes=n, lines=CLEAN) for n in range(4))
    text = summary(replace(REPORT, sources=sources, lines=CLEAN))
    assert "3 lines from 0.ndjson, 1.ndjson, 2.ndjson and 1 more (6 bytes)" in text
    piped = (*sources, SourceReport(path="-", lines=CLEAN))
    text = summary(replace(REPORT, sources=piped, lines=CLEAN, counted_to_end=False))
    assert "at least 3 lines from" in text
    assert "bytes" not in text


def test_what_came_from_outside_cannot_steer_the_terminal() -> None:
    """File names and the service's words are shown, not obeyed."""
    reason = Reason(state=State.INVALID, code=None, error="\x1b]0;x\x07", count=1)
    text = summary(
        replace(REPORT, sources=(SourceReport(path="a\x1b[2J\n", lines=FULL),), reasons=(reason,))
    )
    assert "\x1b" not in text
    assert "a\\x1b[2J\\n" in text
    assert "1 line invalid: \\x1b]0;x\\x07" in text


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (count(1234567), "1,234,567"),
        (lines(1), "1 line"),
        (lines(0), "0 lines"),
        (percent(0, 0), "0 %"),
        (percent(0, 5), "0 %"),
        (percent(5, 5), "100 %"),
        (percent(1, 10**6), "< 0.01 %"),
        (percent(10**6 - 1, 10**6), "> 99.99 %"),
        (percent(1, 3), "33.3 %"),
        (percent(1, 200), "0.50 %"),
        (size(1), "1 byte"),
        (size(999), "999 bytes"),
        (size(1500), "1.5 kB"),
        (size(999_900), "1 MB"),
        (size(2_000_000_000_000), "2 TB"),
        (duration(0.4213), "421 ms"),
        (duration(0.9998), "1 s"),
        (duration(4.21), "4.2 s"),
        (duration(42.4), "42 s"),
        (duration(59.6), "1 min 00 s"),
        (duration(3725), "1 h 02 min"),
        (clean("é\t日"), "é\\t日"),
    ],
)
def test_numbers_are_worded_for_people(said: str, expected: str) -> None:
    """Rounded where it helps, never to all or nothing."""
    assert said == expected
