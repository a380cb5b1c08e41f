"""kill -9 at every step of the ledger's protocol and of the closing: nothing shows of it."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.e2e.command import Desk, living, until
from tests.e2e.dying import doomed
from tests.e2e.people import mixture, profile
from tests.e2e.service import Service
from tests.e2e.standing import what_stands

COUNT = 40
POISON = 12
"""The line of the counter that the service breaks on: it is unknown, however the run goes."""

SOME = (21, 62)
"""While batches are on the wire, and while the files are put in order."""

EVERY = range(1, 300)
"""More than a run has: what lies beyond its end is skipped."""

RUN = ("run", "users.ndjson", "--batch-size", 10, "--json")


@pytest.fixture
def users(desk: Desk, service: Service) -> None:
    """An input with a line for every state, and a service that breaks on one of them."""
    service.configure(faults=["poison-500"])
    lines = mixture(COUNT)
    lines[POISON - 1] = profile("breaks", poison="x", Visits={"$incr": 1})
    desk.write("users.ndjson", *lines)


_expected: dict[str, Any] = {}


def _whole(desk: Desk) -> dict[str, Any]:
    """What one uninterrupted run ends with; the same for all."""
    if not _expected:
        ended = desk.ctbatch(*RUN, "--run-dir", "whole")
        assert ended.code == 3, ended.err
        _expected.update(what_stands(desk.rows("whole"), ended.report, words=False))
        assert [line for line, _, _ in desk.rows("whole").places("unknown")] == [POISON]
    return _expected


def _dies(desk: Desk, at: int, *args: object) -> int | None:
    """Run until it dies, or ends before it would have; returns its exit code."""
    started = desk.start(*args, env=doomed(desk.cwd, at))
    until("its end", started.is_over)
    until("the end of its workers", lambda: not living(started.pid))
    assert started.code in {-signal.SIGKILL, 2, 3}, started.err
    return started.code


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(
    "at", [*SOME, *[pytest.param(n, marks=pytest.mark.slow) for n in EVERY if n not in SOME]]
)
def test_a_kill_at_any_step_shows_nowhere(desk: Desk, service: Service, at: int) -> None:
    """The run dies at the n-th step, its resume too, and the next one ends as if nothing had
    been: the same counts, reasons and rows; nobody is left behind, and the lock is free.
    """
    expected = _whole(desk)
    before = len(service.requests())
    begin = (*RUN, "--run-dir", "run", "--concurrency", 2, "--workers", at % 2)
    if _dies(desk, at, *begin) != -signal.SIGKILL:
        pytest.skip("beyond the end of the run")
    if _dies(desk, at, "resume", "run", "--batch-size", 7) == 2:
        assert len(service.requests()) == before  # it had died before it began
        desk.remove("run")
        assert _dies(desk, 2 * at, *begin) == -signal.SIGKILL
    ended = desk.ctbatch("resume", "run", "--json", "--concurrency", 3)
    if ended.code == 2:
        assert len(service.requests()) == before
        desk.remove("run")
        ended = desk.ctbatch(*begin)
    assert ended.code == 3, ended.err
    assert what_stands(desk.run, ended.report, words=False) == expected
    assert "breaks" not in service.identities()
