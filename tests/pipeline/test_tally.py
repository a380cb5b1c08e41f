"""Settled lines are counted, and too many refused ones among them stop the run."""

from __future__ import annotations

from ctbatch.errors import TooManyRefused
from ctbatch.models import Counts
from ctbatch.notices import Live
from ctbatch.pipeline.breaker import Tally


def test_the_tally_counts_what_a_batch_has_settled_since() -> None:
    """States may move back: a processed record is sent again with an earlier one of its user."""
    tally = Tally(Live(), None)
    first = Counts(processed=3, invalid=1, blank=2)
    then = Counts(processed=2, invalid=1, blank=2, unprocessed=1, unknown=1)
    assert tally.add(Counts(), first) is None
    assert tally.add(first, then) is None
    live = tally.live
    assert (live.processed, live.unprocessed, live.invalid, live.unknown) == (2, 1, 1, 1)
    assert (live.blank, live.settled) == (2, 7)


def test_too_many_refused_of_the_first_lines_stop_the_run() -> None:
    """More than the share of 10,000 lines, however few were settled yet; unknown ones are none."""
    tally = Tally(Live(), 1.0)
    assert tally.add(Counts(), Counts(unprocessed=60, invalid=40, unknown=5000)) is None
    error = tally.add(Counts(), Counts(invalid=1))
    assert isinstance(error, TooManyRefused)
    assert (error.refused, error.lines) == (101, 5101)


def test_too_many_refused_are_judged_by_the_whole_run_later() -> None:
    """Beyond 10,000 lines the share is of those settled; at the end, of those there were."""
    tally = Tally(Live(), 1.0)
    assert tally.add(Counts(), Counts(processed=100_000, unprocessed=900)) is None
    assert tally.judge() is None
    tally = Tally(Live(), 1.0)
    assert tally.add(Counts(), Counts(processed=5_000, unprocessed=90)) is None
    assert tally.judge() is not None
    assert Tally(Live(), 0.0).add(Counts(), Counts(processed=5)) is None
    assert Tally(Live(), 0.0).add(Counts(), Counts(invalid=1)) is not None
    assert Tally(Live(), None).add(Counts(), Counts(invalid=10**6)) is None


def test_in_a_dry_run_the_share_is_of_the_lines_read() -> None:
    """What is found good stays unsent, and is not settled."""
    live = Live(lines_read=20_000)
    tally = Tally(live, 1.0, dry_run=True)
    assert tally.add(Counts(), Counts(invalid=200)) is None
    assert tally.judge() is None
    error = tally.add(Counts(), Counts(invalid=1))
    assert isinstance(error, TooManyRefused)
    assert (error.refused, error.lines) == (201, 20_000)
