"""What a set of figures says: which setting to use, and where more stops to pay. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctbatch.tuning.figures import Figures, rank

__all__ = ["AS_GOOD", "Knee", "choose", "is_undecided", "knee", "slowest"]

AS_GOOD = 0.95
"""Settings this close to the best are as good: trials of some seconds differ by a few percent."""

MAX_THROTTLED = 0.05
"""A setting with more 429s than that is not recommended, however fast."""


def choose(figures: Sequence[Figures]) -> Figures | None:
    """The most modest setting that is as good as the best: the fewest requests at a time, then the
    fewest processes, then the largest batches, which cost the fewest requests. ``None``: of
    what settled lines nothing is certain.
    """
    certain = [found for found in figures if found.certain]
    calm = [found for found in certain if found.throttled_share <= MAX_THROTTLED] or certain
    usable = [found for found in calm if found.lines]
    if not usable:
        return None
    enough = AS_GOOD * max(found.lines_per_s for found in usable)
    return min(
        (found for found in usable if found.lines_per_s >= enough),
        key=lambda found: (
            found.setting.concurrency,
            rank(found.setting.workers),
            -found.setting.batch_size,
        ),
    )


def is_undecided(figures: Sequence[Figures], best: Figures) -> bool:
    """Whether something looked better than the chosen one that was not measured for long enough."""
    return any(
        AS_GOOD * found.lines_per_s > best.lines_per_s
        for found in figures
        if not found.certain and found.throttled_share <= MAX_THROTTLED
    )


@dataclass(frozen=True, slots=True)
class Knee:
    """Where a curve bends: beyond ``concurrency`` more brings less than 5 %, ``None``: nowhere up
    to ``tried``.
    """

    concurrency: int | None
    tried: int

    @property
    def text(self) -> str:
        """In words."""
        if self.concurrency is None:
            return f"there is no knee up to {self.tried} requests at a time: more still brings more"
        return (
            f"the knee is at {self.concurrency} requests at a time: "
            f"up to {self.tried}, more brings less than 5 %"
        )


def knee(figures: Sequence[Figures], of: Figures) -> Knee | None:
    """The knee of the curve that ``of`` is on: same batch size and workers, any concurrency;
    ``None``: one point is no curve.
    """
    curve = [
        found
        for found in figures
        if found.setting.batch_size == of.setting.batch_size
        and found.setting.workers == of.setting.workers
        and found.certain
    ]
    if len({found.setting.concurrency for found in curve}) < 2:
        return None
    tried = max(found.setting.concurrency for found in curve)
    enough = AS_GOOD * max(found.lines_per_s for found in curve)
    at = min(found.setting.concurrency for found in curve if found.lines_per_s >= enough)
    return Knee(at if at < tried else None, tried)


def slowest(figures: Sequence[Figures]) -> float:
    """The longest time, in milliseconds, in which half of the answers came."""
    return max((found.p50_ms or 0.0 for found in figures), default=0.0)
