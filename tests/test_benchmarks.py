"""The benchmarks measure what they say: small ones, for their sense and not for their speed."""

from __future__ import annotations

import sys

import pytest

from benchmarks.bench_upload import Case, once
from benchmarks.inputs import Profiles
from benchmarks.sink import Weather

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
