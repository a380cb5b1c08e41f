"""What a run was bound by: one sentence, decided from its time account.

Batches pile up in front of the narrowest place, so where they wait tells what it is. Three things
do not show in queues and are looked at first: an event loop without CPU left (replies wait to be
read, which looks like a slow service), slots that are full (the aim; then the question is only who
decided how many there are), and an input that comes too slowly (then nothing waits anywhere).

Pure; the same for a run as a whole and for the last seconds of one that goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ctbatch.notices import Live

__all__ = ["SHORT_S", "Bottleneck", "Cause", "Mark", "Usage", "bound_by"]

FULL = 0.85
"""Slots count as full from here on: filling and emptying them at both ends of a run takes a few
round trips, so that a short run never reaches 1."""

REDUCED = 0.8
"""Below this part of ``--concurrency``, it is the limit that counts and not the service's speed."""

BUSY = 0.9
"""An event loop that uses so much of its core has none left."""

SHARED = 0.75
"""The same where it seals as well: on a machine that others use too it gets no more than that, and
what batches then wait for (the ledger's thread has no turn either) is not what they wait for."""

STARVED = 0.3
"""An event loop that is ready and not let run for so much of the time finds replies late: what
looks like a slow service, or like full slots, is its waiting. (Runs on two cores, the sink on them
too, were at 0.04 where they waited for it, and at 0.21 to 0.23 where they used all there was.)"""

IDLE = 0.5
"""With nothing to take for so much of the time, the input decides."""

SHORT_S = 2.0
"""Less than that is the canary, the opening of the slots and the end, whatever else there is."""

NOTICEABLE = 0.25
"""A quarter of a batch that waits somewhere all the time; less than that explains nothing."""

LEADING = 0.2
"""Nor does what batches spend less than a fifth of their time on."""


class Cause(StrEnum):
    """The narrowest place."""

    SERVICE = "service"
    THROTTLING = "throttling"
    START = "start"
    READING = "reading"
    SEALING = "sealing"
    ORDER = "order"
    OUTAGES = "outages"
    LEDGER = "ledger"
    CPU = "cpu"
    INPUT = "input"


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The narrowest place, and a sentence about it that begins with "bound by"."""

    cause: Cause
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What happened in ``elapsed_s`` seconds.

    ``spent_s``: the time of all batches by the fields of
    :class:`~ctbatch.pipeline.report.measurements.TimeS`; ``slots_full``: the share of slots made
    use of, ``mean_limit``: how many there were on average; ``loop_cpu``: the event loop's share of
    a core, for other things than sealing, ``core`` for these and for sealing, ``starved`` the share
    of the time for which it was not let have one; ``attempts``, of
    which ``throttled`` were answered 429; ``throttled_before`` and ``failed_before``: whether any
    was, or failed, up to the end of these seconds.
    """

    elapsed_s: float
    spent_s: Mapping[str, float]
    slots_full: float
    mean_limit: float
    concurrency: float
    attempts: int
    throttled: int
    throttled_before: bool = False
    failed_before: bool = False
    loop_cpu: float = 0.0
    core: float = 0.0
    starved: float = 0.0


@dataclass(frozen=True, slots=True)
class Mark:
    """What a run had used up to a moment; the difference of two is a :class:`Usage`."""

    now_s: float
    spent_s: Mapping[str, float]
    slots_s: tuple[float, float, float]
    cpu_s: tuple[float, float, float]
    attempts: int
    throttled: int
    failed: int
    concurrency: int

    @classmethod
    def of(cls, now_s: float, live: Live) -> Mark:
        """The moment now."""
        used = dict(live.spent_s), live.slots_s, live.cpu_s
        return cls(now_s, *used, live.attempts, live.throttled, live.failed, live.concurrency)

    def since(self, before: Mark) -> Usage:
        """What was used in between."""
        elapsed_s = self.now_s - before.now_s
        pairs = zip(self.slots_s, before.slots_s, strict=True)
        counted_s, taken_s, open_s = (now - then for now, then in pairs)
        pairs = zip(self.cpu_s, before.cpu_s, strict=True)
        loop_s, core_s, waited_s = (now - then for now, then in pairs)
        return Usage(
            elapsed_s=elapsed_s,
            spent_s={kind: s - before.spent_s[kind] for kind, s in self.spent_s.items()},
            slots_full=taken_s / open_s if open_s else 0.0,
            mean_limit=open_s / counted_s if counted_s else 0.0,
            concurrency=self.concurrency,
            attempts=self.attempts - before.attempts,
            throttled=self.throttled - before.throttled,
            throttled_before=self.throttled > 0,
            failed_before=self.failed > 0,
            loop_cpu=loop_s / elapsed_s if elapsed_s > 0 else 0.0,
            core=core_s / elapsed_s if elapsed_s > 0 else 0.0,
            starved=waited_s / elapsed_s if elapsed_s > 0 else 0.0,
        )


def bound_by(usage: Usage, short_s: float = SHORT_S) -> Bottleneck | None:
    """What a run was bound by; ``None`` if nothing happened. ``short_s``: seconds below which a
    run as a whole is too short to tell.
    """
    if usage.elapsed_s <= 0 or not any(usage.spent_s.values()):
        return None
    if usage.elapsed_s < short_s:
        why = f"over in {usage.elapsed_s:.1f} s, too soon for anything else to matter"
        return Bottleneck(Cause.INPUT, f"bound by the size of the input: {why}")
    if (lack := _why_slow(usage)) is not None:
        return Bottleneck(Cause.CPU, f"bound by this machine: {lack}")
    if usage.slots_full >= FULL:
        return _full(usage)
    if _lacks_input(usage):
        share = _percent(usage.spent_s["reading"] / usage.elapsed_s)
        why = f"{share} of the time nothing was there to be sent"
        return Bottleneck(Cause.READING, f"bound by reading the input: {why}")
    return _queued(usage)


def _why_slow(usage: Usage) -> str | None:
    """What this machine lacks for replies to be read as they come, if anything."""
    if usage.loop_cpu >= BUSY:
        busy = f"the core that sends was busy {_percent(usage.loop_cpu)} of the time"
        return f"{busy}; a faster one would help"
    if usage.starved >= STARVED:
        share = _percent(usage.starved)
        return f"for {share} of the time it had no processor for ctbatch; more of it would help"
    return None


def _lacks_input(usage: Usage) -> bool:
    """Whether the input comes too slowly: it is waited for, and nothing that came waits to be
    sealed. Behind a full sealer a reader may be late without any harm.
    """
    queued = usage.spent_s["waiting_for_sealer"] >= usage.elapsed_s
    return usage.spent_s["reading"] >= IDLE * usage.elapsed_s and not queued


def _full(usage: Usage) -> Bottleneck:
    full = f"slots full {_percent(usage.slots_full)} of the time"
    if usage.mean_limit >= REDUCED * usage.concurrency:
        text = f"bound by the service: {full}; more CPU will not help"
        return Bottleneck(Cause.SERVICE, text)
    slots = f"it had {usage.mean_limit:.1f} of {usage.concurrency:g} slots on average"
    if usage.throttled:
        return Bottleneck(Cause.THROTTLING, f"bound by throttling: {_refused(usage)}, {slots}")
    if usage.throttled_before:
        why = f"{slots}, since the service had refused more (429)"
        return Bottleneck(Cause.THROTTLING, f"bound by throttling: {why}")
    why = f"{slots}, since they are opened step by step"
    return Bottleneck(Cause.START, f"bound by the start: {why}; a longer run is faster")


def _queued(usage: Usage) -> Bottleneck:
    """Where batches waited most, if that was enough to matter."""
    if usage.core >= SHARED and usage.core - usage.loop_cpu >= usage.loop_cpu:
        busy = f"the core that seals and sends was busy {_percent(usage.core)} of the time"
        return Bottleneck(Cause.SEALING, f"bound by sealing: {busy}; {_more_workers(1)}")
    spent_s = usage.spent_s
    sealing_s = spent_s["waiting_for_sealer"] + spent_s["sealing"]
    waits = {
        Cause.SEALING: sealing_s,
        Cause.ORDER: spent_s["waiting_for_turn"],
        Cause.OUTAGES: spent_s["waiting_for_weather"],
        Cause.THROTTLING: spent_s["backing_off"],
        Cause.LEDGER: spent_s["ledger"],
    }
    cause = max(waits, key=lambda wait: waits[wait])
    least_s = max(NOTICEABLE * usage.elapsed_s, LEADING * sum(spent_s.values()))
    if waits[cause] < least_s:
        wire = _percent(spent_s["on_the_wire"] / sum(spent_s.values()))
        why = f"too few batches for {usage.concurrency:g} slots, {wire} of their time on the wire"
        return Bottleneck(Cause.INPUT, f"bound by the size of the input: {why}")
    share = _percent(waits[cause] / sum(spent_s.values()))
    if cause is Cause.THROTTLING and not usage.throttled:
        cause = Cause.OUTAGES
    if cause is Cause.OUTAGES and not usage.failed_before:
        cause = Cause.START  # nothing failed: it is the canary that they wait for
    return Bottleneck(cause, f"bound by {_words(cause, usage, share)}")


def _words(cause: Cause, usage: Usage, share: str) -> str:
    match cause:
        case Cause.SEALING:
            lanes = usage.spent_s["sealing"] / usage.elapsed_s
            workers = max(2, math.ceil(lanes / max(usage.slots_full, 0.05)))
            return (
                f"sealing: batches spent {share} of their time there and slots were full "
                f"{_percent(usage.slots_full)}; {_more_workers(workers)}"
            )
        case Cause.ORDER:
            return (
                f"the order of records: batches waited {share} of their time for earlier ones with "
                "the same identities"
            )
        case Cause.THROTTLING:
            return f"throttling: {_refused(usage)}, and batches spent {share} of their time pausing"
        case Cause.START:
            return (
                f"the start: batches waited {share} of their time for the answer to the first one; "
                "a longer run is faster"
            )
        case Cause.OUTAGES:
            return f"the service's failures: batches waited {share} of their time for them to pass"
        case _:
            return f"the ledger: batches waited {share} of their time for the disk"


def _more_workers(workers: int) -> str:
    return f"give it --workers {workers}, if there are cores"


def _refused(usage: Usage) -> str:
    return f"429 on {_percent(usage.throttled / max(usage.attempts, 1))} of the requests"


def _percent(share: float) -> str:
    """Never rounded up to all."""
    return f"{math.floor(100 * min(share, 1.0) + 1e-9)} %" if share >= 0.01 else "under 1 %"
