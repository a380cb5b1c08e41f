"""One sentence says what a run was bound by, and it is the right one."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from ctbatch.pipeline.report.bottleneck import Cause, Usage, bound_by
from ctbatch.pipeline.report.measurements import TimeS

KINDS = [item.name for item in fields(TimeS)]


def usage(
    slots_full: float = 0.5, *, mean_limit: float = 15.0, throttled: int = 0, **spent_s: float
) -> Usage:
    """What happened in ten seconds with 15 slots."""
    return Usage(
        elapsed_s=10.0,
        spent_s=dict.fromkeys(KINDS, 0.0) | spent_s,
        slots_full=slots_full,
        mean_limit=mean_limit,
        concurrency=15,
        attempts=200,
        throttled=throttled,
        throttled_before=throttled > 0,
        failed_before=True,
    )


@pytest.mark.parametrize(
    ("seen", "cause", "text"),
    [
        (
            usage(0.987, on_the_wire=148, waiting_for_slot=180),
            Cause.SERVICE,
            "bound by the service: slots full 98 % of the time; more CPU will not help",
        ),
        (
            usage(0.99, mean_limit=4.2, throttled=20, on_the_wire=42, waiting_for_slot=250),
            Cause.THROTTLING,
            "bound by throttling: 429 on 10 % of the requests, it had 4.2 of 15 slots on average",
        ),
        (
            usage(0.95, mean_limit=6.0, on_the_wire=60, waiting_for_slot=100),
            Cause.START,
            "bound by the start: it had 6.0 of 15 slots on average, since they are opened step by"
            " step; a longer run is faster",
        ),
        (
            usage(0.1, reading=9.0, on_the_wire=15),
            Cause.READING,
            "bound by reading the input: 90 % of the time nothing was there to be sent",
        ),
        (
            usage(0.4, reading=5.5, sealing=9.5, waiting_for_sealer=200, on_the_wire=60),
            Cause.SEALING,
            "bound by sealing: batches spent 76 % of their time there and slots were full 40 %;"
            " give it --workers 3, if there are cores",
        ),
        (
            usage(0.07, waiting_for_turn=300, on_the_wire=10),
            Cause.ORDER,
            "bound by the order of records: batches waited 96 % of their time for earlier ones"
            " with the same identities",
        ),
        (
            usage(0.01, waiting_for_weather=300, on_the_wire=1, backing_off=3),
            Cause.OUTAGES,
            "bound by the service's failures: batches waited 98 % of their time for them to pass",
        ),
        (
            usage(0.3, backing_off=250, on_the_wire=45),
            Cause.OUTAGES,
            "bound by the service's failures: batches waited 84 % of their time for them to pass",
        ),
        (
            usage(0.6, throttled=50, backing_off=250, on_the_wire=45),
            Cause.THROTTLING,
            "bound by throttling: 429 on 25 % of the requests, and batches spent 84 % of their"
            " time pausing",
        ),
        (
            usage(0.5, ledger=200, on_the_wire=75),
            Cause.LEDGER,
            "bound by the ledger: batches waited 72 % of their time for the disk",
        ),
        (
            replace(usage(0.5, ledger=200, on_the_wire=75), loop_cpu=0.3, core=0.88),
            Cause.SEALING,
            "bound by sealing: the core that seals and sends was busy 88 % of the time; give it"
            " --workers 1, if there are cores",
        ),
        (
            usage(0.2, on_the_wire=30, sealing=1),
            Cause.INPUT,
            "bound by the size of the input: too few batches for 15 slots, 96 % of their time on"
            " the wire",
        ),
        (
            # One answer was late: what the others had waited for before explains nothing.
            usage(0.3, on_the_wire=60, waiting_for_sealer=4, sealing=1),
            Cause.INPUT,
            "bound by the size of the input: too few batches for 15 slots, 92 % of their time on"
            " the wire",
        ),
        (
            replace(usage(0.5, waiting_for_weather=50, on_the_wire=60), failed_before=False),
            Cause.START,
            "bound by the start: batches waited 45 % of their time for the answer to the first"
            " one; a longer run is faster",
        ),
        (
            replace(
                usage(0.95, mean_limit=3.0, on_the_wire=30, waiting_for_slot=200),
                throttled_before=True,
            ),
            Cause.THROTTLING,
            "bound by throttling: it had 3.0 of 15 slots on average, since the service had refused"
            " more (429)",
        ),
        (
            replace(usage(0.4, sealing=1.0), elapsed_s=0.3),
            Cause.INPUT,
            "bound by the size of the input: over in 0.3 s, too soon for anything else to matter",
        ),
        (
            replace(usage(0.99, on_the_wire=148), loop_cpu=0.97),
            Cause.CPU,
            "bound by this machine: the core that sends was busy 97 % of the time; a faster one"
            " would help",
        ),
        (
            replace(usage(0.87, on_the_wire=130), loop_cpu=0.05, core=0.1, starved=0.85),
            Cause.CPU,
            "bound by this machine: for 85 % of the time it had no processor for ctbatch; more of"
            " it would help",
        ),
    ],
)
def test_the_narrowest_place_is_named(seen: Usage, cause: Cause, text: str) -> None:
    """Whatever a run was bound by, it is said with the figure that shows it."""
    found = bound_by(seen)
    assert found is not None
    assert (found.cause, found.text) == (cause, text)


def test_nothing_is_said_of_nothing() -> None:
    """A run that has not begun is bound by nothing."""
    assert bound_by(usage()) is None
    assert bound_by(replace(usage(reading=1), elapsed_s=0.0)) is None


def test_a_share_is_never_rounded_up_to_all() -> None:
    """99.9 % is not always, and a trace is not nothing."""
    found = bound_by(usage(0.999, on_the_wire=150))
    assert found is not None
    assert "full 99 %" in found.text
    traces = bound_by(usage(0.001, waiting_for_turn=300))
    assert traces is not None
    sealing = bound_by(usage(0.001, sealing=10))
    assert sealing is not None
    assert "slots were full under 1 %" in sealing.text
