"""Which lines of a batch are records, what a run has to know of them, and why the others are not.

Invariants:

1. Each line is judged by itself. ``{…"profileData":{"x":1}``, ``"q":2}`` and ``{A},{B}`` are
   three lines and, joined with commas, three records: a joined parse would be no evidence.
2. Every line ends as exactly one of record, refusal or blank, whatever its bytes; nothing raises.
3. ``{"d":[`` + the accepted lines' :func:`record_bytes`, joined with commas + ``]}`` parses to
   exactly the accepted records.
4. What is said about a line (``Refusal.error``, warnings) holds no data of it.

This is the exact check. What a line must be is in :mod:`ctbatch.pipeline.parsing` (JSON) and
:mod:`ctbatch.pipeline.fields` (the vendor's rules); framing and sealing are the sealer's.
"""

from __future__ import annotations

from dataclasses import dataclass

from ctbatch.models import Batch, Checked, Refusal, State
from ctbatch.pipeline.fields import Facts, examine
from ctbatch.pipeline.parsing import Flaw, parse

__all__ = ["Rules", "check", "record_bytes"]

# JSON's own white space without the line feed. A form feed or a no-break space is not blank.
_BLANKS = b" \t\r"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """``strict``: apply the service's own field rules too. Lengths are without the line feed."""

    strict: bool = False
    max_line_bytes: int = 1 << 20


def record_bytes(line: bytes) -> bytes:
    """What is sent of an accepted line: all but the white space around it."""
    return line.strip(_BLANKS)


def check(batch: Batch, rules: Rules) -> Checked:
    """Judge every line of a batch. ``positions`` is a ``range`` where every line is a record."""
    overlong = {over.index: over for over in batch.overlong}
    positions: list[int] = []
    kept: list[Facts] = []
    refusals: list[Refusal] = []
    for index, line in enumerate(batch.lines()):
        found = _judge(line, rules)
        if not isinstance(found, Flaw):
            positions.append(index)
            kept.append(found)
        elif index in overlong:
            over = overlong[index]
            refusals.append(_refusal(index, _too_long(over.size, rules), (over.offset, over.size)))
        elif record_bytes(line):
            refusals.append(_refusal(index, found))
    lines = batch.span.lines
    return Checked(
        positions=range(lines) if len(kept) == lines else positions,
        types="".join([kind[0] for kind, _, _, _ in kept]),
        identities=[names[0] for _, names, _, _ in kept],
        aliases={n: tuple(names[1:]) for n, (_, names, _, _) in enumerate(kept) if len(names) > 1},
        unsafe=frozenset(n for n, (_, _, repeatable, _) in enumerate(kept) if not repeatable),
        refusals=tuple(refusals),
        blank=lines - len(kept) - len(refusals),
        warnings=tuple((positions[n], text) for n, facts in enumerate(kept) for text in facts[3]),
    )


def _judge(line: bytes, rules: Rules) -> Facts | Flaw:
    if len(line) > rules.max_line_bytes:
        return _too_long(len(line), rules)
    record = parse(line)
    return record if isinstance(record, Flaw) else examine(record, line, strict=rules.strict)


def _too_long(size: int, rules: Rules) -> Flaw:
    return Flaw(
        "line_too_long", f"the line is {size} bytes long, the limit is {rules.max_line_bytes}"
    )


def _refusal(index: int, flaw: Flaw, place: tuple[int, int] | None = None) -> Refusal:
    return Refusal(index, State.INVALID, flaw.code, flaw.error, place)
