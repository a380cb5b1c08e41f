"""``ctbatch resume``: however often a run was cut off, what stands at its end is the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import Desk, Ended, Rows, until
from tests.e2e.people import counter, mixture, profiles
from tests.e2e.service import Service
from tests.e2e.standing import what_stands

COUNT = 600


def _uninterrupted(desk: Desk, users: Path) -> dict[str, Any]:
    ended = desk.ctbatch("run", users, "--batch-size", 20, "--run-dir", "whole", "--json")
    assert ended.code == 3
    return what_stands(Rows(desk.cwd / "whole"), ended.report)


def _kill_on_the_way(desk: Desk, service: Service, *args: object) -> bool:
    """Start, wait until a few more requests are answered, and kill; whether it was under way."""
    before = len(service.requests())
    started = desk.start(*args)
    until(
        "a few requests",
        lambda: started.is_over() or len(service.requests()) >= before + 4,
    )
    under_way = not started.is_over()
    if under_way:
        started.kill()
    return under_way


def test_after_several_kills_everything_is_as_if_it_had_run_through(
    desk: Desk, service: Service
) -> None:
    """kill -9 three times, with other batch sizes, concurrency and workers: the same states,
    reasons and files, and nothing missing at the service.
    """
    users = desk.write("users.ndjson", *mixture(COUNT))
    expected = _uninterrupted(desk, users)
    service.configure(latency_s=0.05)
    run = ("run", users, "--batch-size", 20, "--concurrency", 3, "--run-dir", "run")
    assert _kill_on_the_way(desk, service, *run)
    for tuning in (
        ("--batch-size", 7, "--concurrency", 2),
        ("--batch-size", 33, "--concurrency", 4, "--workers", 1),
    ):
        assert _kill_on_the_way(desk, service, "resume", "run", *tuning)
    service.configure(latency_s=0)
    ended = desk.ctbatch("resume", "run", "--json")
    assert ended.code == 3
    assert what_stands(desk.run, ended.report) == expected
    assert desk.ctbatch("resume", "run").code in {2, 3}  # nothing is left to do


def test_after_an_interruption_the_same_holds(desk: Desk, service: Service) -> None:
    """SIGINT in the middle, then ``resume`` without a directory: it finds the newest unfinished
    run.
    """
    users = desk.write("users.ndjson", *mixture(COUNT))
    expected = _uninterrupted(desk, users)
    service.configure(latency_s=0.05)
    started = desk.start("run", users, "--batch-size", 20, "--concurrency", 3)
    before = len(service.requests())
    started.until("a few requests", lambda: len(service.requests()) >= before + 4)
    started.send(signal.SIGINT)
    assert started.ended().code == 130
    service.configure(latency_s=0)
    ended = desk.ctbatch("resume", "--json", "--batch-size", 50)
    assert ended.code == 3
    (run_dir,) = (desk.cwd / "ctbatch-runs").iterdir()
    assert what_stands(Rows(run_dir), ended.report) == expected


def test_standard_input_is_read_again(desk: Desk, service: Service) -> None:
    """A run from a pipe goes on when the same is piped in again; something else is refused."""
    lines = mixture(300)
    given = b"\n".join(lines) + b"\n"
    service.configure(faults=["hang=after-3"])
    path = desk.cwd / "given"
    path.write_bytes(given)
    pipe = _pipe(path)
    started = desk.start("run", "-", "--batch-size", 20, "--run-dir", "run", stdin=pipe)
    os.close(pipe)
    started.until("requests that hang", lambda: len(service.requests()) >= 5)
    started.kill()
    service.configure(faults=[])
    other = desk.ctbatch("resume", "run", given=b"\n".join(profiles(300, "x")) + b"\n")
    assert other.code in {2, 4}
    assert "Traceback" not in other.err
    assert not {name for name in service.identities() if str(name).startswith("x")}
    ended = desk.ctbatch("resume", "run", "--json", given=given)
    assert ended.code == 3
    assert ended.report["lines"]["unsent"] == 0
    assert desk.run.lines("rejected") == [
        lines[n["line"] - 1] for n in desk.run.reasons("rejected")
    ]


def _pipe(path: Path) -> int:
    """A pipe's reading end with a small file in it."""
    read_end, write_end = os.pipe()
    os.write(write_end, path.read_bytes())
    os.close(write_end)
    return read_end


def _interrupted(desk: Desk, service: Service, users: Path) -> None:
    """A run of ``users`` that was killed after a few requests."""
    service.configure(faults=["hang=after-3"])
    started = desk.start("run", users, "--batch-size", 10, "--concurrency", 2, "--run-dir", "run")
    started.until("requests that hang", lambda: len(service.requests()) >= 5)
    started.kill()
    service.configure(faults=[])


def _refused(ended: Ended, service: Service, requests: int, *words: str) -> None:
    assert ended.code == 2, ended.err
    for word in words:
        assert word in ended.complaint, ended.err
    assert len(service.requests()) == requests


def test_an_input_that_changed_is_refused_by_name(desk: Desk, service: Service) -> None:
    """Cut, replaced, or altered where it was read already: refused, and nothing is sent. A file
    that only grew goes on.
    """
    lines = profiles(100)
    users = desk.write("users.ndjson", *lines)
    _interrupted(desk, service, users)
    sent = len(service.requests())
    desk.write("users.ndjson", *lines[:90])
    _refused(desk.ctbatch("resume", "run"), service, sent, "users.ndjson", "cut")
    users.unlink()
    _refused(desk.ctbatch("resume", "run"), service, sent, "users.ndjson")
    altered = [lines[0].replace(b"Gold", b"Zinc"), *lines[1:]]
    desk.write("users.ndjson", *altered)
    changed = desk.ctbatch("resume", "run")
    assert changed.code == 2, changed.err
    assert "users.ndjson" in changed.err
    desk.write("users.ndjson", *lines, *profiles(5, "late"))
    ended = desk.ctbatch("resume", "run", "--json")
    assert ended.code == 0
    assert ended.report["lines"]["processed"] == 105


def test_another_account_or_mode_is_refused(desk: Desk, service: Service) -> None:
    """What may have reached one account is never continued into another."""
    _interrupted(desk, service, desk.write("users.ndjson", *profiles(100)))
    sent = len(service.requests())
    other = desk.ctbatch("resume", "run", "--account-id", "OTHER-1")
    _refused(other, service, sent, "OTHER-1", service.account_id)
    nobody = desk.ctbatch("resume", "run", env=dict.fromkeys(service.env))
    _refused(nobody, service, sent)
    assert desk.ctbatch("resume", "run").code == 0


def test_a_rejects_file_that_somebody_mended_is_kept(desk: Desk, service: Service) -> None:
    """Edited between the stop and the resume: moved aside and named, never overwritten."""
    users = desk.write("users.ndjson", *mixture(100))
    _interrupted(desk, service, users)
    rejected = desk.run.path / "rejected.ndjson"
    rejected.write_bytes(b"mended by hand\n")
    ended = desk.ctbatch("resume", "run", "--json")
    assert ended.code == 3
    (aside,) = desk.run.path.glob("*edited*")
    assert aside.read_bytes() == b"mended by hand\n"
    assert aside.name in ended.err
    assert len(desk.run.lines("rejected")) == len(desk.run.reasons("rejected"))


@pytest.mark.slow
@pytest.mark.parametrize("after", range(1, 31))
def test_a_kill_after_any_request_loses_nothing(desk: Desk, service: Service, after: int) -> None:
    """Killed after the n-th answer, for many n: the same end, and counters never twice."""
    service.configure(latency_s=0.02)
    lines = [counter(n) if n % 7 == 0 else line for n, line in enumerate(mixture(300))]
    users = desk.write("users.ndjson", *lines)
    started = desk.start("run", users, "--batch-size", 10, "--concurrency", 3, "--run-dir", "run")
    until("so many requests", lambda: started.is_over() or len(service.requests()) >= after)
    started.kill()
    service.configure(latency_s=0)
    ended = desk.ctbatch("resume", "run", "--json")
    counts = ended.report["lines"]
    assert counts["unsent"] == 0
    stored = service.identities()
    counted = [name for name in stored if isinstance(name, int)]
    assert len(counted) == len(set(counted))
    unknown = {line for line, _, _ in desk.run.places("unknown")}
    expected = {n for n in range(300) if n % 7 == 0 and n + 1 not in unknown}
    assert expected <= set(counted)


def test_a_pattern_that_matches_more_now_stands_for_what_it_stood_for(
    desk: Desk, service: Service
) -> None:
    """Another file is another run's; and from another directory the names lead nowhere."""
    desk.write("a1.ndjson", *profiles(20, "a1"))
    desk.write("a2.ndjson", *profiles(20, "a2"))
    service.configure(faults=["401"])
    assert desk.ctbatch("run", "a*.ndjson", "--run-dir", "run").code == 5
    service.configure(faults=[])
    desk.write("a3.ndjson", *profiles(20, "a3"))
    (desk.cwd / "elsewhere").mkdir()
    lost = Desk(desk.cwd / "elsewhere", desk.service).ctbatch("resume", "../run")
    assert lost.code == 2
    assert "the directory in which the run began" in lost.complaint
    ended = desk.ctbatch("resume", "run", "--json")
    assert ended.code == 0, ended.err
    assert ended.report["lines"]["processed"] == 40


def test_resuming_again_and_again_in_an_outage_costs_a_record_each_time(
    desk: Desk, service: Service
) -> None:
    """Of those that may not count twice; as many as a supervisor restarts it."""
    users = desk.write("users.ndjson", *(counter(n) for n in range(200)))
    service.configure(faults=["500=after-2"])
    args = ("--batch-size", 20, "--concurrency", 1, "--give-up-after", 0)
    assert desk.ctbatch("run", users, "--run-dir", "run", *args).code == 4
    before = desk.run.report["lines"]["unknown"]
    assert before >= 20
    for _ in range(2):
        assert desk.ctbatch("resume", "run").code == 4
    assert before < desk.run.report["lines"]["unknown"] <= before + 6
    service.configure(faults=[])
    assert desk.ctbatch("resume", "run").code == 3
    assert desk.run.report["lines"]["unsent"] == 0


def test_which_lines_are_too_long_does_not_change_on_the_way(desk: Desk, service: Service) -> None:
    """It is told by its name, and not as a change of the input."""
    users = desk.write("users.ndjson", *profiles(40), profiles(1, "x" * 400)[0])
    service.configure(faults=["401=after-2"])
    args = ("--batch-size", 10, "--max-line-bytes", 300)
    assert desk.ctbatch("run", users, "--run-dir", "run", *args).code == 5
    service.configure(faults=[])
    refused = desk.ctbatch("resume", "run", "--max-line-bytes", 2000)
    assert (refused.code, "--max-line-bytes: was 300" in refused.complaint) == (2, True)
    assert desk.ctbatch("resume", "run", "--max-line-bytes", 300).code == 3


def test_a_change_that_was_refused_can_be_undone(desk: Desk, service: Service) -> None:
    """The run knows its input as it was, not as it was when it was refused."""
    lines = profiles(60)
    users = desk.write("users.ndjson", *lines)
    service.configure(faults=["500=after-3"])
    args = ("--batch-size", 5, "--concurrency", 1, "--give-up-after", 0)
    assert desk.ctbatch("run", users, "--run-dir", "run", *args).code == 4
    service.configure(faults=[])
    done = len(service.identities())
    assert 10 <= done <= 20
    began = users.stat()
    changed = [*lines[:13], lines[13].replace(b"{", b"{ ", 1), *lines[14:]]
    desk.write("users.ndjson", *changed)
    refused = desk.ctbatch("resume", "run")
    assert (refused.code, "is not what the run recorded" in refused.err) == (2, True)
    desk.write("users.ndjson", *lines)
    os.utime(users, ns=(began.st_atime_ns, began.st_mtime_ns))
    ended = desk.ctbatch("resume", "run")
    assert ended.code == 0, ended.err
