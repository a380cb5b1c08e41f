"""The sweep of ``ctbatch bench``: every combination of a grid, one trial each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ctbatch.errors import SettingsError
from ctbatch.tuning.figures import Figures, Setting, rank
from ctbatch.tuning.trials import Trials

__all__ = ["Grid", "sweep"]


@dataclass(frozen=True, slots=True)
class Grid:
    """What is combined; each value once, in rising order."""

    concurrency: Sequence[int]
    batch_size: Sequence[int]
    workers: Sequence[int | None]

    def settings(self) -> list[Setting]:
        """All combinations: one curve over concurrency after the other."""
        axes = [sorted(set(axis)) for axis in (self.batch_size, self.concurrency)]
        return [
            Setting(concurrency, batch_size, workers)
            for workers in sorted(set(self.workers), key=rank)
            for batch_size, concurrency in itertools.product(*axes)
        ]


async def sweep(
    trials: Trials,
    grid: Grid,
    *,
    lines: int,
    seconds: float,
    limit: int | None,
    tell: Callable[[Figures], None],
) -> list[Figures]:
    """Measure every combination with at most ``lines`` lines and so many seconds, and with
    ``limit`` lines in all; ``tell`` is called after each.

    Raises:
        SettingsError: the limit leaves less than a line for each.
        CtbatchError: a trial failed, or the user ended it.
    """
    settings = grid.settings()
    if limit is not None:
        lines = min(lines, limit // len(settings))
        if not lines:
            why = f"is less than a line for each of {len(settings)} combinations"
            raise SettingsError("--limit", why, "raise it, or try fewer")
    measured = []
    for setting in settings:
        figures = await trials.measure(setting, lines=lines, seconds=seconds)
        measured.append(figures)
        tell(figures)
    return measured
