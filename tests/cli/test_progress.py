"""Progress tells the truth, never holds up a run, and never ends one."""

from __future__ import annotations

import io
import logging
import re
import threading
from dataclasses import fields

import pytest
from rich.console import Console

from ctbatch.cli.block import Block
from ctbatch.cli.faces import Face, Lines, Message, Quiet
from ctbatch.cli.logs import logging_to
from ctbatch.cli.pace import Pace, describe, expected_lines, share_done
from ctbatch.cli.progress import Display, choose_face
from ctbatch.notices import Level, Live, Notice, Phase
from ctbatch.pipeline.report.measurements import TimeS


def uploading() -> Live:
    """A run half way through: 1000 of about 2000 lines are read, 900 settled."""
    return Live(
        phase=Phase.UPLOADING,
        bytes_total=200_000,
        bytes_read=100_000,
        lines_read=1000,
        processed=800,
        unprocessed=60,
        invalid=40,
        in_flight=15,
        limit=15,
    )


def test_a_steady_rate_is_shown_as_it_is() -> None:
    """However often it is sampled, 100 lines a second are 100 lines a second."""
    for step_s in (0.125, 1.0, 5.0):
        pace, live = Pace(), Live(phase=Phase.UPLOADING)
        for n in range(50):
            live.processed = round(100 * n * step_s)
            pace.sample(n * step_s, live)
        assert pace.lines_per_s == pytest.approx(100, rel=0.02)


def test_a_rate_follows_a_change_smoothly() -> None:
    """One quiet second moves the rate a little, a quiet minute all the way."""
    pace, live = Pace(), Live(phase=Phase.UPLOADING)
    for second in range(60):
        live.processed = 100 * second
        pace.sample(second, live)
    pace.sample(60, live)
    assert 80 < pace.lines_per_s < 100
    for second in range(61, 121):
        pace.sample(second, live)
    assert pace.lines_per_s < 1


def test_time_left_is_what_is_to_be_read_and_what_is_not_settled() -> None:
    """Bytes tell how much is left to read, lines what is under way."""
    pace, live = Pace(), uploading()
    live.bytes_read = live.lines_read = live.processed = live.unprocessed = live.invalid = 0
    pace.sample(0, live)
    pace.sample(10, uploading())
    assert pace.left_s(uploading()) == pytest.approx(10 + 100 / 90)


@pytest.mark.parametrize(
    "live",
    [
        Live(phase=Phase.UPLOADING, bytes_total=None),
        Live(phase=Phase.OUTAGE, bytes_total=10),
        Live(phase=Phase.DRAINING, bytes_total=10),
        Live(phase=Phase.UPLOADING, bytes_total=10),
    ],
)
def test_time_left_is_not_guessed(live: Live) -> None:
    """From a pipe, in an outage, or before anything moved, nobody knows."""
    pace = Pace()
    pace.sample(0, live)
    pace.sample(0, live)
    pace.sample(1, live)
    assert pace.left_s(live) is None


def test_lines_are_estimated_until_they_are_counted() -> None:
    """An estimate says so and has two digits; at the end it is the count."""
    live = uploading()
    live.lines_read = 1234
    assert expected_lines(live) == "about 2,500"
    live.bytes_read = 200_000
    assert expected_lines(live) == "1,234"
    assert expected_lines(Live(lines_read=5)) is None
    small = Live(bytes_total=20, bytes_read=10, lines_read=3)
    assert expected_lines(small) == "about 6"


def test_the_share_done_is_of_settled_lines() -> None:
    """What is read but not settled is not done."""
    assert share_done(uploading()) == pytest.approx(0.45)
    assert share_done(Live(bytes_total=0, lines_read=0)) is None
    assert share_done(Live(bytes_total=0, lines_read=1, processed=1)) == 1.0


def test_a_limit_of_lines_is_where_the_run_ends() -> None:
    """What is beyond ``--limit`` is neither expected, nor part of the share, nor waited for."""
    pace, live = Pace(), uploading()
    live.bytes_read = live.lines_read = live.processed = live.unprocessed = live.invalid = 0
    pace.sample(0, live)
    live = uploading()
    live.most_lines = 1200
    pace.sample(10, live)
    assert expected_lines(live) == "1,200"
    assert share_done(live) == pytest.approx(0.75)
    assert pace.left_s(live) == pytest.approx(2 + 100 / 90)
    live.lines_read = live.processed = 1200
    live.unprocessed = live.invalid = 0
    assert share_done(live) == 1.0
    assert pace.left_s(live) == pytest.approx(0)
    live.most_lines = 5000
    assert expected_lines(live) == "about 2,400"


def test_the_first_line_has_a_rate() -> None:
    """It is of the time since the run began, without what an earlier process settled."""
    stream, now = io.StringIO(), iter((0.0, 5.0))
    face, live = Lines(stream, lambda: next(now)), uploading()
    face.begin(live)
    live.processed += 500
    face.show(live)
    assert ", 100 lines/s, " in stream.getvalue()


def test_a_line_tells_all_there_is_at_a_glance() -> None:
    """Done of total, rate, in flight, refused, time left; the unusual only where there is some."""
    pace, live = Pace(), uploading()
    pace.sample(0, Live())
    pace.sample(10, live)
    assert describe(live, pace) == [
        "uploading",
        "900 of about 2,000 lines (45 %)",
        "90 lines/s",
        "15 in flight",
        "100 refused",
        "11 s left",
    ]
    live.unknown, live.retries, live.bytes_total = 7, 8, None
    assert describe(live, pace)[1:] == [
        "907 lines",
        "90 lines/s",
        "15 in flight",
        "100 refused",
        "7 unknown",
        "8 retries",
    ]


def test_the_time_of_the_last_seconds_is_accounted_for() -> None:
    """What a run is bound by now is told, not what it was bound by an hour ago."""
    pace, live = Pace(), uploading()
    live.concurrency, live.spent_s = 15, {item.name: 0.0 for item in fields(TimeS)}
    assert pace.account(live) == []
    spent = {"reading": 60.0, "on_the_wire": 15.0}
    pace.sample(0, live)
    assert pace.account(live) == []
    live.spent_s = live.spent_s | spent
    live.slots_s = (60.0, 15.0, 900.0)
    pace.sample(60, live)
    assert pace.account(live)[0].startswith("bound by reading the input: 100 % of the time")
    live.spent_s = live.spent_s | {"on_the_wire": 165.0, "waiting_for_slot": 100.0}
    live.slots_s = (70.0, 165.0, 1050.0)
    pace.sample(70, live)
    assert pace.account(live) == [
        "bound by the service: slots full 100 % of the time; more CPU will not help",
        "on the wire 60 %",
        "waiting for a slot 40 %",
    ]


def test_without_a_terminal_progress_is_plain_lines() -> None:
    """A log file gets lines without control characters."""
    stream = io.StringIO()
    face = Lines(stream, clock=lambda: 0.0)
    face.show(uploading())
    face.say(Message("warning: slow"))
    face.close()
    assert stream.getvalue().splitlines() == [
        "ctbatch: uploading, 900 of about 2,000 lines (45 %), 0 lines/s, 15 in flight, 100 refused",
        "warning: slow",
    ]


def test_on_a_terminal_messages_scroll_above_the_block() -> None:
    """The block is drawn again below a message, and wiped at the end."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    now = [0.0]
    face = Block(console, clock=lambda: now[-1])
    face.say(Message("first line"))
    live = uploading()
    live.spent_s = {item.name: 0.0 for item in fields(TimeS)}
    face.show(live)
    live.spent_s = live.spent_s | {"reading": 3.0}
    now.append(3.0)
    face.show(live)
    face.say(Message("warning: [slow] /path/1", logging.WARNING))
    face.say(Message("error: gone", logging.ERROR))
    face.show(Live(spent_s=live.spent_s))
    face.close()
    text = stream.getvalue()
    assert text.index("first line") < text.index("uploading: 900 of about 2,000 lines (45 %)")
    assert re.search("━ +0 lines/s · 15 in flight · 100 refused", text)
    assert re.search("bound by reading the input.*\\s+reading 100 %", text)
    assert text.index("warning: [slow] /path/1") < text.rindex("trying one batch")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """https://no-color.org: with ``NO_COLOR`` no colour is sent, the block stays."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = io.StringIO()
    face = Block(Console(file=stream, force_terminal=True, width=100))
    face.say(Message("error: gone", logging.ERROR))
    face.show(uploading())
    face.close()
    assert "\x1b[31" not in stream.getvalue()
    assert "\x1b[1;31" not in stream.getvalue()


def test_quiet_shows_errors_only() -> None:
    """``--quiet`` is for cron: it speaks when a person must act."""
    stream = io.StringIO()
    with Display(Quiet(stream)) as display:
        display.watch(uploading())
        display.say("ctbatch 1.0: account X")
        display.tell(Notice(Level.WARNING, "a.b", "slow"))
        display.tell(Notice(Level.ERROR, "a.b", "stop"))
    assert stream.getvalue() == "error: stop\n"


def test_notices_are_shown_from_the_log_level_on() -> None:
    """INFO is for the curious, and control characters stay harmless."""
    for level, shown in (
        (logging.WARNING, "warning: b\\x1b[2J\n"),
        (logging.INFO, "info: a\nwarning: b\\x1b[2J\n"),
    ):
        stream = io.StringIO()
        with Display(Lines(stream), level=level) as display:
            display.tell(Notice(Level.INFO, "x", "a"))
            display.tell(Notice(Level.WARNING, "x", "b\x1b[2J"))
        assert stream.getvalue() == shown


class Scripted:
    """A face that tells when it was shown, and fails when told to."""

    period_s: float | None = 0.001

    def __init__(self, *, fails: bool = False) -> None:
        self.shown = threading.Event()
        self.closed = False
        self.said: list[str] = []
        self._fails = fails

    def begin(self, live: Live) -> None:
        """Nothing is drawn yet."""
        assert not self.shown.is_set()

    def show(self, live: Live) -> None:
        """Be shown."""
        self.shown.set()

    def say(self, message: Message) -> None:
        """Say it, or fail."""
        if self._fails:
            raise BrokenPipeError
        self.said.append(message.text)

    def close(self) -> None:
        """Be closed."""
        self.closed = True


def test_a_run_is_shown_again_and_again_until_the_end() -> None:
    """The display samples the tally by itself; nothing is drawn before there is one."""
    face: Scripted = Scripted()
    with Display(face) as display:
        assert not face.shown.wait(0.01)
        display.watch(uploading())
        assert face.shown.wait(10)
    assert face.closed


def test_a_terminal_that_went_away_does_not_end_the_run() -> None:
    """Messages go nowhere, and nobody waits."""
    face = Scripted(fails=True)
    with Display(face) as display:
        for n in range(100):
            display.say(f"message {n}")
    assert not face.said


def test_the_log_goes_through_the_display() -> None:
    """Log lines scroll above the block; libraries are heard from WARNING on only."""
    stream = io.StringIO()
    with Display(Lines(stream)) as display, logging_to(display, logging.DEBUG):
        logging.getLogger("ctbatch.api").debug("send.started")
        logging.getLogger("aiohttp.client").info("noise")
        logging.getLogger("aiohttp.client").warning("careful")
    told = stream.getvalue()
    assert "DEBUG ctbatch.api: send.started" in told
    assert "WARNING aiohttp.client: careful" in told
    assert "noise" not in told
    assert logging.getLogger("ctbatch").level == logging.NOTSET


def test_a_log_record_that_cannot_be_written_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong format is logging's trouble, not the run's."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with Display(Lines(io.StringIO())) as display, logging_to(display, logging.DEBUG):
        logging.getLogger("ctbatch").warning("%d", "not a number")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


@pytest.mark.parametrize(
    ("stream", "quiet", "term", "kind"),
    [
        (io.StringIO(), False, "xterm", Lines),
        (Terminal(), False, "dumb", Lines),
        (Terminal(), False, "xterm", Block),
        (Terminal(), True, "xterm", Quiet),
    ],
)
def test_the_face_fits_where_standard_error_goes(
    monkeypatch: pytest.MonkeyPatch,
    stream: io.StringIO,
    quiet: bool,
    term: str,
    kind: type[Face],
) -> None:
    """A block on a terminal, lines elsewhere, neither when asked to be quiet."""
    monkeypatch.setattr("sys.stderr", stream)
    assert type(choose_face(quiet=quiet, env={"TERM": term})) is kind
