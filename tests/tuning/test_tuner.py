"""The search finds the best of services whose best is known, within its budget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctbatch.tuning.tuner import Bounds, End, Verdict, requests_for
from tests.tuning.services import Service, found

BOUNDS = Bounds(concurrency=15, batch_size=1000, requests=500)


@pytest.mark.parametrize(
    ("service", "end", "concurrency"),
    [
        pytest.param(Service(), End.FOUND, (15, 15), id="latency alone"),
        pytest.param(Service(record_s=0.0005), End.FOUND, (15, 15), id="latency per record"),
        pytest.param(Service(most=30_000), End.FOUND, (6, 7), id="knee"),
        pytest.param(Service(most=30_000, noise=0.03), End.FOUND, (6, 9), id="noisy knee"),
        pytest.param(Service(crowd_s=0.005), End.FOUND, (5, 9), id="latency grows with load"),
        pytest.param(Service(load_s=0.02), End.FOUND, (15, 15), id="grows slowly"),
        pytest.param(Service(square_s=2e-6), End.BUDGET, (15, 15), id="smaller batches"),
        pytest.param(
            Service(square_s=2e-6, most=6000), End.FOUND, (9, 15), id="smaller batches and a knee"
        ),
    ],
)
def test_the_best_of_a_known_service_is_found(
    service: Service, end: End, concurrency: tuple[int, int]
) -> None:
    """Within a tenth of the best goodput of all settings, and no more requests at a time than
    that takes.
    """
    verdict, _ = found(service, BOUNDS)
    assert verdict.best is not None
    assert verdict.end is end
    assert concurrency[0] <= verdict.best.concurrency <= concurrency[1]
    best = service.rate(verdict.best.concurrency, verdict.best.batch_size)
    assert best >= 0.9 * service.best_rate(BOUNDS)


@pytest.mark.parametrize("cap", range(1, 15))
def test_the_first_sign_of_throttling_ends_the_search(cap: int) -> None:
    """One try is refused, none follows, and what is recommended is under the cap and near it."""
    verdict, seen = found(Service(cap=cap), BOUNDS)
    assert [was.throttled for _, was in seen[:-1]] == [False] * (len(seen) - 1)
    assert seen[-1][1].throttled
    assert verdict.end is End.THROTTLED
    assert verdict.best is not None
    assert 0.75 * cap <= verdict.best.concurrency <= cap


def test_a_service_that_refuses_everything_is_given_no_advice() -> None:
    """One request is enough to see it."""
    verdict, seen = found(Service(cap=0), BOUNDS)
    assert verdict == Verdict(None, End.THROTTLED, requests=1)
    assert len(seen) == 1


@pytest.mark.parametrize(("fails", "requests", "best"), [(1, 1, None), (9, 9, 1)])
def test_the_first_failure_ends_the_search(fails: int, requests: int, best: int | None) -> None:
    """What was measured before it is recommended, what was measured with it is not."""
    verdict, seen = found(Service(fails=fails), BOUNDS)
    assert verdict.end is End.FAILED
    assert requests <= verdict.requests <= requests + 1
    assert [was.failed for _, was in seen] == [False] * (len(seen) - 1) + [True]
    assert (verdict.best and verdict.best.concurrency) == best


def test_a_budget_too_small_for_anything_is_not_touched() -> None:
    """Nothing is asked for, and nothing recommended."""
    assert found(Service(), Bounds(15, 1000, 5)) == (Verdict(None, End.BUDGET, 0), [])


def test_a_short_input_ends_the_search() -> None:
    """What could be measured is recommended, and that there was too little is said."""
    verdict, _ = found(Service(lines=20_000), BOUNDS)
    assert verdict.end is End.INPUT
    assert verdict.best is not None
    assert requests_for(verdict.best.concurrency) * 1000 <= 20_000


def test_smaller_batches_are_climbed_with_where_they_are_better() -> None:
    """Where a call of few records is much faster, more of them at a time are tried too."""
    service = Service(square_s=1e-5, crowd_s=0.002)
    verdict, seen = found(service, Bounds(15, 1000, 5000))
    assert verdict.end is End.FOUND
    assert verdict.best is not None
    assert verdict.best.batch_size < 1000
    assert any(tried.batch_size < 1000 and was.certain for tried, was in seen)
    best = service.rate(verdict.best.concurrency, verdict.best.batch_size)
    assert best >= 0.85 * service.best_rate(Bounds(15, 1000, 5000))


def test_batches_of_one_are_the_smallest() -> None:
    """A service that gets no faster with larger batches is told at one record."""
    verdict, _ = found(Service(fixed_s=0, square_s=1), Bounds(1, 4, 1000))
    assert verdict.best is not None
    assert verdict.best.batch_size == 1


@settings(max_examples=200, deadline=None)
@given(
    service=st.builds(
        Service,
        fixed_s=st.floats(0.001, 5),
        record_s=st.floats(0, 0.01),
        square_s=st.floats(0, 1e-4),
        load_s=st.floats(0, 0.1),
        crowd_s=st.floats(0, 0.1),
        cap=st.integers(0, 20),
        fails=st.integers(1, 2000),
        noise=st.floats(0, 0.1),
    ),
    bounds=st.builds(Bounds, st.integers(1, 40), st.integers(1, 1000), st.integers(1, 1000)),
)
def test_no_search_exceeds_its_bounds(service: Service, bounds: Bounds) -> None:
    """Whatever the service, and whenever it fails, the requests asked for stay within the budget,
    nothing is tried twice, and what is recommended was tried.
    """
    verdict, seen = found(service, bounds)
    tried = [wanted for wanted, _ in seen]
    assert sum(wanted.requests for wanted in tried) <= bounds.requests
    assert len(set(tried)) == len(tried)
    assert all(t.concurrency <= bounds.concurrency for t in tried)
    assert verdict.best is None or verdict.best in tried
    assert verdict.requests == sum(was.requests for _, was in seen)
