"""A rate is right although lines are settled in lumps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctbatch.tuning.steady import slope


def test_a_straight_line_has_its_slope() -> None:
    """Where nothing comes in lumps, the rate is exact."""
    assert slope([(x / 10, 7 * x / 10 + 3) for x in range(20)]) == pytest.approx(7)


@given(lumps=st.integers(3, 20), phase=st.floats(0, 1), size=st.floats(1, 1e5))
def test_lumps_disturb_little(lumps: int, phase: float, size: float) -> None:
    """Over n lumps the rate is off by 1/n² at most, wherever in a lump one begins and ends."""
    samples = [(x / 100, size * int(x / 100 + phase)) for x in range(100 * lumps)]
    found = slope(samples)
    assert found is not None
    assert abs(found / size - 1) <= 1.05 / lumps**2


def test_one_moment_has_no_rate() -> None:
    """Nothing is made up from a single sample, nor from none."""
    assert slope([]) is None
    assert slope([(1.0, 5.0), (1.0, 6.0)]) is None
