"""How a process that handles batches manages its memory: what is collected, what is kept.

Both are for speed only, with figures in benchmarks/README.md.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

__all__ = ["keep_freed", "settle"]

COLLECT_AFTER = 20_000
"""Objects more than before, instead of 700 (2,000 from Python 3.13 on): of what a batch makes, next
to nothing is left in cycles.
"""

KEPT_BYTES = 32 << 20
"""As much as glibc's own moving threshold goes up to on 64 bits (mallopt(3), M_MMAP_THRESHOLD)."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def settle() -> None:
    """Call it once all is imported, before the work begins.

    What start-up made lives as long as the process: to go through it again and again took a
    twentieth of an upload's CPU.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    keep_freed()


def keep_freed() -> None:
    """Have glibc, where that is the C library, keep what is freed for what comes next.

    Otherwise it gives the memory of each batch back to the system and takes it anew, page by page,
    each of which the system has to clear: 300 a batch in a worker, fewer in a process that holds
    dozens of batches.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
