"""Figures for tests of what is made of them."""

from __future__ import annotations

from ctbatch.tuning.figures import Figures, Setting

__all__ = ["figures"]


def figures(
    concurrency: int,
    lines_per_s: float,
    *,
    batch_size: int = 1000,
    workers: int = 0,
    throttled: int = 0,
    lines: int = 50_000,
    certain: bool = True,
) -> Figures:
    """What a trial of 100 requests came to."""
    return Figures(
        setting=Setting(concurrency, batch_size, workers),
        lines_per_s=lines_per_s,
        certain=certain,
        lines=lines,
        requests=100,
        throttled=throttled,
        elapsed_s=2.0,
        cpu=0.5,
        in_flight=0.9 * concurrency,
        p50_ms=200.0,
        p99_ms=220.0,
        batch_p99_ms=40.0 * concurrency,
    )
