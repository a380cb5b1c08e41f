"""How counts, sizes, times and places are worded for people.

Text that comes from outside (paths, the service's words) passes :func:`clean` before it reaches a
terminal, so that it cannot steer one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["clean", "count", "duration", "lines", "named_results", "percent", "shares", "size"]

_KINDS_OF_TIME = {
    "reading": "reading",
    "waiting_for_sealer": "waiting to be sealed",
    "sealing": "sealing",
    "waiting_for_turn": "waiting for a turn",
    "waiting_for_weather": "waiting for the weather",
    "waiting_for_slot": "waiting for a slot",
    "on_the_wire": "on the wire",
    "opening": "opening replies",
    "backing_off": "backing off",
    "ledger": "ledger",
}
"""The fields of the time account, as people read them."""


def count(number: float) -> str:
    """``1,234,567``."""
    return f"{number:,.0f}"


def lines(number: int) -> str:
    """``1 line``, ``2 lines``."""
    return f"{count(number)} line{'' if number == 1 else 's'}"


def percent(part: int, whole: int) -> str:
    """A share that never rounds to all or nothing unless it is."""
    if not whole or part == whole:
        return "100 %" if whole else "0 %"
    share = 100 * part / whole
    if not part:
        return "0 %"
    if share < 0.01:
        return "< 0.01 %"
    if share > 99.99:
        return "> 99.99 %"
    return f"{share:.2f} %" if share < 1 or share > 99 else f"{share:.1f} %"


def named_results(results: Iterable[str]) -> str:
    """What came of requests: ``500, early reply``."""
    return clean(", ".join(sorted(results))).replace("_", " ")


def shares(spent_s: Mapping[str, float]) -> list[str]:
    """Where the time of batches went: ``on the wire 61 %``, largest first, nothing under 1 %."""
    total = sum(spent_s.values())
    parts = sorted(((seconds, kind) for kind, seconds in spent_s.items()), reverse=True)
    return [
        f"{_KINDS_OF_TIME[kind]} {100 * seconds / total:.0f} %"
        for seconds, kind in parts
        if seconds > 0 and seconds >= total / 100
    ]


def size(number: int) -> str:
    """Bytes in powers of ten, as disks and networks count."""
    if number < 1000:
        return f"{number} bytes" if number != 1 else "1 byte"
    value = float(number)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5:
            return f"{value:.3g} {unit}"
    return f"{value / 1000:.3g} TB"


def duration(seconds: float) -> str:
    """``420 ms``, ``4.2 s``, ``12 s``, ``9 min 12 s``, ``3 h 05 min``."""
    if seconds < 0.9995:  # which three digits would round up to 1e+03 ms
        return f"{1000 * seconds:.3g} ms"
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def clean(text: str) -> str:
    """The text with everything that is not printable written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
