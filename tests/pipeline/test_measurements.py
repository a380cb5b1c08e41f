"""Measurements of several processes sum up to those of one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctbatch.pipeline.report.measurements import LatencyMs, Measurements, Stopwatch, TimeS

attempts = st.lists(
    st.tuples(st.sampled_from(["200", "429", "timeout"]), st.floats(0, 3600)), max_size=20
)


def measured(*seen: tuple[str, float]) -> Measurements:
    """Measurements with these attempts."""
    made = Measurements()
    for result, elapsed_s in seen:
        made.attempt(result, elapsed_s)
        made.add_time("on_the_wire", elapsed_s)
    return made


def test_latencies_are_milliseconds_to_three_digits() -> None:
    """Percentiles are close, the maximum is exact, and none exceeds it."""
    latency = measured(*[("200", n / 1000) for n in range(1, 101)]).latency_ms()
    assert latency.p50 == pytest.approx(50, rel=1e-3)
    assert latency.p90 == pytest.approx(90, rel=1e-3)
    assert latency.p99 == pytest.approx(99, rel=1e-3)
    assert latency.max == 100.0


def test_nothing_sent_is_no_latency() -> None:
    """A dry run has no latency, rather than one of zero."""
    assert Measurements().latency_ms() == LatencyMs()
    assert Measurements().throughput().lines_per_s == 0


@settings(max_examples=30, deadline=None)
@given(attempts, attempts)
def test_merged_is_as_if_measured_at_once(
    first: list[tuple[str, float]], second: list[tuple[str, float]]
) -> None:
    """An interruption changes no number, also after a turn through the ledger."""
    total = Measurements()
    for part in (measured(*first), measured(*second)):
        total.merge(Measurements.decode(part.encode()))
    whole = measured(*first, *second)
    assert total.latency_ms() == whole.latency_ms()
    assert total.attempts().total == len(first) + len(second)
    assert dict(total.attempts().by_result) == dict(whole.attempts().by_result)
    assert total.time_s().on_the_wire == pytest.approx(whole.time_s().on_the_wire, abs=2e-3)


def test_sums_are_summed_and_the_peak_stays_the_peak() -> None:
    """Counters add up, the peak does not, key ids are a set."""
    one, two = Measurements(), Measurements()
    for part, flying in ((one, 3), (two, 15)):
        part.retry()
        part.late()
        part.isolated()
        part.sealed(100)
        part.opened(7)
        part.opened(None)
        part.in_flight(flying)
        part.in_flight(1)
        part.add_time("on_the_wire", 10)
        part.add_time("reading", 0.5)
        part.batch(2.0 * flying)
        part.used((4.0, 30.0, 40.0), (1.0, 4.0, 2.0), concurrency=flying)
        part.ran(5, 500)
    one.merge(Measurements.decode(two.encode()))
    assert one.attempts().retries == one.attempts().late_possible == one.isolated_batches == 2
    assert one.opened_with == (7,)
    assert one.elapsed_s == 10
    assert one.time_s() == TimeS(on_the_wire=20, reading=1)
    rates = one.throughput()
    assert (rates.lines_per_s, rates.sealed_bytes) == (100.0, 200)
    assert (rates.mean_in_flight, rates.peak_in_flight) == (2.0, 15)
    assert (rates.slots_full, rates.mean_limit, rates.loop_cpu) == (0.75, 10.0, 0.2)
    assert one.core == 0.8
    assert one.starved == 0.4
    assert one.concurrency == 9
    assert one.batch_latency_ms().max == 30_000


def test_a_latency_beyond_every_limit_is_still_counted() -> None:
    """A clock that jumped does not lose an attempt."""
    made = measured(("200", 1e9), ("200", -1.0))
    assert made.attempts().total == 2
    assert made.latency_ms().max == 4_000_000.0


def test_an_unknown_kind_of_time_is_a_mistake() -> None:
    """A misspelt kind would vanish from the report."""
    with pytest.raises(ValueError, match="thinking"):
        Measurements().add_time("thinking", 1)


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_each_second_of_a_batch_is_attributed_once() -> None:
    """The kinds add up to the life of the batch; sealing is told from waiting for it."""
    clock, made = Clock(), Measurements()
    watch = Stopwatch(made, clock)
    clock.now += 3
    watch.sealed(1.0)
    clock.now += 4
    watch.lap("waiting_for_slot")
    clock.now += 5
    assert watch.lap("on_the_wire") == 5
    assert made.time_s() == TimeS(
        waiting_for_sealer=2, sealing=1, waiting_for_slot=4, on_the_wire=5
    )
    assert sum(made.spent_s.values()) == clock.now - 100


def test_work_longer_than_the_wait_for_it_is_not_believed() -> None:
    """Two clocks never make a wait negative."""
    clock, made = Clock(), Measurements()
    watch = Stopwatch(made, clock)
    clock.now += 1
    watch.sealed(1.5)
    assert made.time_s() == TimeS(sealing=1)


def test_a_batch_is_timed_from_its_first_admission() -> None:
    """Back-offs and repetitions are part of what a batch went through; one that was never admitted
    went through nothing.
    """
    clock, made = Clock(), Measurements()
    Stopwatch(made, clock).settled()
    assert made.batch_latency_ms() == LatencyMs()
    watch = Stopwatch(made, clock)
    clock.now += 1
    watch.admitted()
    clock.now += 2
    watch.admitted()
    clock.now += 1
    watch.settled()
    assert made.batch_latency_ms().max == 3000
