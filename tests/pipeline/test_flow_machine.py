"""A whole run in any weather, killed and interrupted at any step: what must hold, always."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ctbatch.errors import ResumeRefused, RunDirectoryError
from ctbatch.pipeline import runs
from ctbatch.pipeline.ledger.accounts import Accounts
from ctbatch.pipeline.report.document import Report, RunState
from ctbatch.pipeline.settlement import MAX_AMBIGUOUS
from ctbatch.pipeline.stopping import Stop
from ctbatch.settings import OnAmbiguous
from tests.pipeline.scripted import Conduct, Line, ScriptedService, Weather
from tests.pipeline.voyages import Death, go_on, mortal, settings_for

MARGIN = 2
"""Batches that may be admitted beyond those that have a slot."""


CONDUCTS = st.sampled_from([*[Conduct.TAKEN] * 12, *[Conduct.BAD] * 3, Conduct.POISON, Conduct.BIG])
LINES = st.builds(
    Line,
    kind=st.sampled_from(["set"] * 5 + ["count", "count", "event", "event", "blank", "invalid"]),
    name=st.sampled_from(["", "", "a", "b"]),
    conduct=CONDUCTS,
)


@dataclass(frozen=True)
class Passage:
    """What a process goes through: the weather, its share of the requests, and its options."""

    weather: tuple[Weather, ...] = (Weather.CALM,)
    share: float = 0.0
    batch_size: int = 3
    concurrency: int = 3


PASSAGES = st.builds(
    Passage,
    weather=st.lists(
        st.sampled_from([*Weather, Weather.TRANSIENT, Weather.TRANSIENT]), min_size=1, max_size=4
    ).map(tuple),
    share=st.sampled_from([0.0, 0.2, 0.4, 0.8]),
    batch_size=st.integers(1, 7),
    concurrency=st.integers(1, 5),
)


@dataclass(frozen=True)
class Service:
    """What the service is like throughout; see :class:`ScriptedService`."""

    seed: int
    largest: int
    numbered: bool


SERVICES = st.builds(
    Service,
    seed=st.integers(0, 1000),
    largest=st.sampled_from([1000, 1000, 2]),
    numbered=st.booleans(),
)


class Voyage(RuleBasedStateMachine):
    """One run over one or two files, by as many processes as it takes."""

    def __init__(self) -> None:
        super().__init__()
        shared = Path("/dev/shm")  # noqa: S108  # memory: a commit costs a tenth
        self.base = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
        self.service = ScriptedService()
        self.lines: list[Line] = []
        self.run_dir = self.base / "run-0"
        self.processes = 0
        self.complete = False
        self.exposed: set[int] = set()

    @initialize(
        lines=st.lists(LINES, min_size=4, max_size=24),
        cut=st.floats(0, 1),
        policy=st.sampled_from([*[OnAmbiguous.AUTO] * 3, OnAmbiguous.HOLD, OnAmbiguous.RESEND]),
        service=SERVICES,
    )
    def begin(self, lines: list[Line], cut: float, policy: OnAmbiguous, service: Service) -> None:
        self.lines, self.policy = lines, policy
        self.first_of_last = round(cut * len(lines))
        self.inputs = [self.base / "a.ndjson", self.base / "b.ndjson"]
        self._write(self.inputs[0], 0, self.first_of_last)
        self._write(self.inputs[1], self.first_of_last, len(lines))
        self.service.seed, self.service.largest = service.seed, service.largest
        self.service.numbered = service.numbered

    def _write(self, path: Path, first: int, end: int) -> None:
        path.write_bytes(b"".join(self._text(n) + b"\n" for n in range(first, end)))

    def _text(self, number: int) -> bytes:
        return self.lines[number].text(number)

    # -- what happens ----------------------------------------------------------------------------

    def _is_open(self) -> bool:
        # No precondition: what the clock decided must not decide what is drawn next.
        return not self.complete

    @rule(passage=PASSAGES)
    def run_through(self, passage: Passage) -> None:
        if self._is_open():
            self._process(passage)

    @rule(passage=PASSAGES, at=st.one_of(st.integers(1, 90), st.integers(20, 60)))
    def die(self, passage: Passage, at: int) -> None:
        """kill -9 before, in or after a transaction."""
        if self._is_open():
            self._process(passage, die_at=at)

    @rule(passage=PASSAGES, at=st.integers(1, 20), times=st.integers(1, 2))
    def interrupt(self, passage: Passage, at: int, times: int) -> None:
        """One signal or two while a request is on the wire."""
        if self._is_open():
            self._process(passage, stop_at=at, stops=times)

    @precondition(lambda self: len(self.lines) < 40)
    @rule(more=st.lists(LINES, min_size=1, max_size=4))
    def grow(self, more: list[Line]) -> None:
        """Lines are appended to the last file between two processes."""
        if self.lines and self.run_dir.exists():
            before = len(self.lines)
            self.lines += more
            self.complete = False
            with self.inputs[1].open("ab") as file:
                file.writelines(self._text(n) + b"\n" for n in range(before, len(self.lines)))

    # -- a process -------------------------------------------------------------------------------

    def _process(
        self, passage: Passage, *, die_at: int = 0, stop_at: int = 0, stops: int = 0
    ) -> Report | None:
        """Begin the run or go on with it; returns how it ended, unless it died."""
        service, stop = self.service, Stop()
        service.weather, service.bad_share = passage.weather, passage.share
        service.concurrency, service.requests, service.dead = passage.concurrency, 0, False

        def on_request(number: int) -> None:
            for _ in range(stops if number == stop_at else 0):
                stop.request(2)

        service.on_request = on_request
        self.processes += 1
        death = Death(service, self.base / f"run-{self.processes}", die_at)
        report = self._live(passage, death, stop)
        if death.came:
            self.run_dir = death.image
            self._count_admitted(passage.concurrency)
        self._look(report)
        self.complete = report is not None and report.state is RunState.COMPLETE
        return report

    def _live(self, passage: Passage, death: Death, stop: Stop) -> Report | None:
        settings_ = settings_for(
            self.inputs,
            self.run_dir,
            batch_size=passage.batch_size,
            concurrency=passage.concurrency,
            on_ambiguous=self.policy,
        )

        async def main() -> Report:
            death.of_this_task()
            async with asyncio.timeout(20):
                return await go_on(settings_, stop)

        report: Report | None = None
        with mortal(self.service, death), asyncio.Runner() as runner:
            try:
                report = runner.run(main())
            except asyncio.CancelledError:
                assert death.came
            except (RunDirectoryError, ResumeRefused):
                # The one before died before it began: nothing was sent, and it can begin again.
                assert not self.service.stored
                assert not self.service.requests
                shutil.rmtree(self.run_dir)
        return None if death.came else report

    def _count_admitted(self, concurrency: int) -> None:
        """What the ledger says may have arrived counts as sent for the next process."""
        maybe = _maybe(self.run_dir)
        assert len(maybe) <= concurrency + MARGIN, "more is repeated than promised"
        for batch in maybe:
            self.exposed |= {self._number(source, line) for source, line in batch}

    def _number(self, source: int, line: int) -> int:
        return line - 1 + (self.first_of_last if source else 0)

    # -- what must hold --------------------------------------------------------------------------

    def _look(self, report: Report | None) -> None:
        """After each process: sums, and nothing that may have arrived is forgotten."""
        times = self.service.times()
        for number, count in times.items():
            line = self.lines[number]
            if line.is_unsafe and self.policy is not OnAmbiguous.RESEND:
                assert count <= 1, "what counts was applied twice"
            if self.policy is OnAmbiguous.HOLD:
                assert count <= 1 or self.service.transient, "held, yet sent again"
        if not self.run_dir.exists() or not (self.run_dir / "ledger.sqlite").exists():
            assert not times
            return
        try:
            drawn = runs.report(self.run_dir)
        except RunDirectoryError:
            assert not times
            return
        drawn.check_balance()
        maybe = {
            self._number(source, line) for batch in _maybe(self.run_dir) for source, line in batch
        }
        settled = {self._number(*place) for place in _settled(self.run_dir)}
        assert set(times) <= settled | maybe, "something that arrived is forgotten"
        if report is not None:
            report.check_balance()
            assert report.lines == drawn.lines
            assert report.lines.total == len(self.lines) or not report.counted_to_end
            self._look_at_files(drawn)

    def _look_at_files(self, report: Report) -> None:
        """Each row is a line of the input with its reason, in input order, as the sums say."""
        rejected, unknown = self._rows("rejected"), self._rows("unknown")
        assert report.lines.unprocessed + report.lines.invalid == len(rejected)
        assert report.lines.unknown == len(unknown)
        assert not rejected.keys() & unknown.keys()
        counted = sum(reason.count for reason in report.reasons)
        assert counted == len(rejected) + len(unknown)
        for number, reason in rejected.items():
            self._look_at_rejected(number, reason)
        for number in unknown:
            self._look_at_unknown(number)

    def _look_at_rejected(self, number: int, reason: dict[str, object]) -> None:
        line, code = self.lines[number], reason["code"]
        if reason["state"] == "invalid":
            assert line.kind == "invalid"
        elif code == 555:
            assert number in self.service.transient
        else:
            assert line.is_record
            expected = {515: Conduct.BAD, 400: Conduct.POISON, 413: Conduct.BIG}
            if code == 413 and line.conduct is not Conduct.BIG:
                raise AssertionError("a line that is small enough is called too large")
            assert line.conduct is expected[code], "a line is blamed for another"  # type: ignore[index]
            if line.conduct is Conduct.BAD:
                assert number not in self.service.times()

    def _look_at_unknown(self, number: int) -> None:
        line, service = self.lines[number], self.service
        assert line.is_record
        assert number in service.exposed | self.exposed, "certain, yet called unknown"
        # Unless it was left open which record was refused, and one after it must not be repeated.
        if not line.is_unsafe and self.policy is OnAmbiguous.AUTO and service.numbered:
            assert service.ambiguous[number] >= MAX_AMBIGUOUS, "it could have been sent again"

    def _rows(self, kind: str) -> dict[int, dict[str, object]]:
        """The rows of a file by the number of their line."""
        path = self.run_dir / f"{kind}.ndjson"
        if not path.exists():
            return {}
        rows = path.read_bytes().split(b"\n")
        assert rows.pop() == b""
        texts = (self.run_dir / f"{kind}.reasons.ndjson").read_text().splitlines()
        reasons = [json.loads(text) for text in texts]
        assert len(rows) == len(reasons)
        numbers = [
            self._number(self.inputs.index(Path(reason["source"])), reason["line"])
            for reason in reasons
        ]
        assert numbers == sorted(set(numbers)), "not in input order"
        assert rows == [self._text(number) for number in numbers]
        return dict(zip(numbers, reasons, strict=True))

    # -- the end -----------------------------------------------------------------------------------

    def teardown(self) -> None:
        """The weather clears up: the run can be finished, and then everything is right."""
        try:
            if self.lines:
                self._finish()
        finally:
            shutil.rmtree(self.base)

    def _finish(self) -> None:
        report: Report | None = None
        for _ in range(4):
            report = self._process(Passage())
            if report is not None and report.state is RunState.COMPLETE:
                break
            if report is not None:
                # All that is left is refused as a whole: the service has to be mended first.
                assert report.state is RunState.REFUSED, report.problem
                assert any(line.conduct is Conduct.POISON for line in self.lines)
                self.service.lenient = True
        assert report is not None
        assert report.state is RunState.COMPLETE
        assert report.lines.unsent == report.lines.maybe_sent == 0
        self._ended_right(report)

    def _ended_right(self, report: Report) -> None:
        refused = self._rows("rejected").keys() | self._rows("unknown").keys()
        processed = [n for n, line in enumerate(self.lines) if line.is_record and n not in refused]
        assert report.lines.processed == len(processed)
        assert report.lines.blank == sum(line.kind == "blank" for line in self.lines)
        assert report.lines.invalid == sum(line.kind == "invalid" for line in self.lines)
        times, told = self.service.times(), self.service.told
        last = {number: at for at, number in enumerate(self.service.stored)}
        for number in processed:
            assert times[number] >= 1, "processed, but never stored"
            assert number in told, "processed, but nobody said so"
            for earlier in range(number):
                if self._same_user(earlier, number) and earlier in last:
                    assert last[earlier] < last[number], "an earlier record was applied last"

    def _same_user(self, one: int, other: int) -> bool:
        return self.lines[one].name == self.lines[other].name != ""


def _maybe(run_dir: Path) -> list[list[tuple[int, int]]]:
    """The places of the lines that may have arrived and are not settled, by batch."""
    accounts = Accounts.open(run_dir)
    try:
        batches = []
        for source in range(len(accounts.sources())):
            for item in accounts.recorded(source, open_only=True):
                indexes = range(item.span.lines) if item.maybe is None else item.maybe
                if indexes:
                    batches.append([(source, item.span.first_line + i) for i in indexes])
        return batches
    finally:
        accounts.close()


def _settled(run_dir: Path) -> set[tuple[int, int]]:
    """The places of the lines whose state is recorded."""
    accounts = Accounts.open(run_dir)
    try:
        return {
            (source, item.span.first_line + index)
            for source in range(len(accounts.sources()))
            for item in accounts.recorded(source)
            for index in range(item.span.lines)
            if item.done or (item.pending is not None and index not in item.pending)
        }
    finally:
        accounts.close()


def test_what_was_refused_since_has_not_arrived() -> None:
    """A second process sends more than what the first left open, and is told that it is too large:
    what the ledger keeps is still what was left open.
    """
    voyage = Voyage()
    lines = [Line("set", ""), Line("event", "", Conduct.BIG)]
    voyage.begin(lines, 1.0, OnAmbiguous.AUTO, Service(seed=0, largest=1000, numbered=True))
    for _ in range(2):
        voyage.run_through(Passage((Weather.UNOPENED,), share=1.0))
        assert _maybe(voyage.run_dir) == [[(0, 1)]]
    voyage.teardown()


def test_what_was_refused_for_now_has_not_arrived() -> None:
    """Interrupted between a 555 and the next try, a record is unsent, and may be sent."""
    voyage = Voyage()
    lines = [Line("set", "") for _ in range(16)]
    voyage.begin(lines, 0.0, OnAmbiguous.HOLD, Service(seed=0, largest=1000, numbered=True))
    voyage.interrupt(Passage((Weather.TRANSIENT,), share=1.0, batch_size=4, concurrency=1), 1, 1)
    assert voyage.service.transient
    assert not _maybe(voyage.run_dir)
    voyage.teardown()


def test_what_was_refused_for_now_may_have_arrived_before() -> None:
    """A 555 says that this request stored nothing of it, not that an unanswered one did not."""
    voyage = Voyage()
    lines = [Line("set", "") for _ in range(16)]
    voyage.begin(lines, 1.0, OnAmbiguous.AUTO, Service(seed=0, largest=1000, numbered=True))
    voyage.service.script = [Weather.RESET, Weather.TRANSIENT]
    voyage.interrupt(Passage(batch_size=16, concurrency=1), 2, 1)
    assert voyage.service.transient
    [maybe] = _maybe(voyage.run_dir)
    assert {line - 1 for _, line in maybe} == voyage.service.transient
    voyage.teardown()


def test_what_was_never_sent_has_not_arrived() -> None:
    """Interrupted while nobody could be reached: the lines are unsent, and nothing more."""
    voyage = Voyage()
    lines = [Line("set", ""), Line("event", "")]
    voyage.begin(lines, 1.0, OnAmbiguous.AUTO, Service(seed=0, largest=1000, numbered=True))
    voyage.interrupt(Passage((Weather.NOT_SENT,), share=1.0), 1, 1)
    assert voyage.service.requests == 1
    assert not _maybe(voyage.run_dir)
    voyage.teardown()


class LongVoyage(Voyage):
    """The same, many times over."""


TestVoyage = Voyage.TestCase
TestVoyage.settings = settings(
    max_examples=25,
    stateful_step_count=5,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

TestLongVoyage = pytest.mark.slow(pytest.mark.timeout(3600)(LongVoyage.TestCase))
TestLongVoyage.settings = settings(TestVoyage.settings, max_examples=1500)


def test_a_refusal_is_known_also_to_who_is_cancelled_right_after_it() -> None:
    """Two signals while its words are cleaned: nothing of the batch was stored, so on the next day
    the event in it is sent, and not called unknown.
    """
    taken, poison = Conduct.TAKEN, Conduct.POISON
    kinds = [("set", taken)] * 5 + [("count", poison), *[("set", taken)] * 2]
    voyage = Voyage()
    try:
        voyage.begin(
            [Line(kind=kind, name="", conduct=conduct) for kind, conduct in kinds],
            cut=0.0,
            policy=OnAmbiguous.AUTO,
            service=Service(seed=0, largest=1000, numbered=False),
        )
        weather = (Weather.CALM,)
        passage = Passage(weather=weather, share=0.0, batch_size=3, concurrency=1)
        voyage.interrupt(passage=passage, at=3, times=2)
    finally:
        voyage.teardown()
