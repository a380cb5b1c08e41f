"""The benchmarks measure what they say: small ones, for their sense and not for their speed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks import vendor
from benchmarks.bench_upload import Case, once
from benchmarks.inputs import Profiles
from benchmarks.sink import Weather
from benchmarks.targets import Target

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.mark.parametrize("tls", [False, True])
def test_an_upload_is_measured_as_a_whole(tls: bool) -> None:
    """Every batch reaches the sink once, and time, CPU and memory of the command are known."""
    case = Case(
        profiles=Profiles(lines=400, bad_every=50),
        weather=Weather(latency_ms=20),
        batch=100,
        tls=tls,
    )
    measured = once(case)
    assert (measured.seen.requests, measured.seen.refused, measured.seen.failed) == (4, 0, 0)
    assert measured.seen.body_bytes > 390 * 250
    assert measured.elapsed_s > 2 * 0.02
    assert measured.used.cpu_s > 0
    assert measured.used.pss_peak_mb > 10
    assert 0 < measured.share_of_bound <= 1


def test_the_sink_has_weather() -> None:
    """More requests at a time than its cap are answered 429; all get through in the end."""
    case = Case(
        profiles=Profiles(lines=200), weather=Weather(latency_ms=20, cap=2), batch=10, concurrency=4
    )
    seen = once(case).seen
    assert seen.refused > 0
    assert seen.requests == 20 + seen.refused


def test_a_target_is_met_by_its_median() -> None:
    """Both bounds are kept by the middle of the rounds, whatever the others are."""
    assert str(Target("x", [1.0, 3.0, 2.0], least=2)).endswith("≥ 2  met")
    assert str(Target("x", [1.0, 3.0, 2.0], least=2.1)).endswith("≥ 2.1  MISSED")
    assert str(Target("x", [1.0, 3.0, 2.0], most=2)).endswith("≤ 2  met")
    assert str(Target("x", [1.0, 3.0, 2.0], most=1.9)).endswith("≤ 1.9  MISSED")
    assert "(1.000 to 3.000)" in str(Target("x", [1.0, 3.0, 2.0]))


GO = """#!/bin/sh
cp commands/commands.go "$4"
"""


def test_the_vendors_tool_is_built_to_post_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address is replaced in a copy; what is not its source is said to be none."""
    (tmp_path / "go").write_text(GO)
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    clone = tmp_path / "clone"
    (clone / "commands").mkdir(parents=True)
    source = clone / "commands" / "commands.go"
    text = 'post(p, "https://"+region+uploadEndpoint)'
    source.write_text(text)
    with vendor.built(clone) as tool:
        assert tool.read_text() == 'post(p, region+os.Getenv("CTBATCH_SINK"))'
    assert source.read_text() == text
    source.write_text("package commands")
    with pytest.raises(SystemExit, match="does not have"), vendor.built(clone):
        pass
