"""The rate of a run in its steady state, from samples of a counter. Pure.

Lines are settled in lumps: 15 requests that went out together come back together. Counting between
two moments is off by up to a lump at each end, a fifth of the rate over five round trips. The slope
of the line that fits the counter best (least squares) is off by at most 1/n² over n lumps.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["slope"]


def slope(samples: Sequence[tuple[float, float]]) -> float | None:
    """The least-squares slope of (x, y) samples; ``None`` where they are all at one x."""
    if not samples:
        return None
    mean_x = sum(x for x, _ in samples) / len(samples)
    mean_y = sum(y for _, y in samples) / len(samples)
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    if spread == 0:
        return None
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread
