"""Which lines of a batch are records, what a run has to know of them, and why the others are not.

Invariants:

1. Each line is judged by itself. ``{…"profileData":{"x":1}``, ``"q":2}`` and ``{A},{B}`` are
   three lines and, joined with commas, three records: a joined parse would be no evidence.
2. Every line ends as exactly one of record, refusal or blank, whatever its bytes; nothing raises.
3. ``{"d":[`` + the accepted lines' :func:`record_bytes`, joined with commas + ``]}`` parses to
   exactly the accepted records.
4. What is said about a line (``Refusal.error``, warnings) holds no data of it.

:func:`check` is the exact check. What a line must be is in :mod:`ctbatch.pipeline.checker.parsing`
(JSON) and :mod:`ctbatch.pipeline.checker.fields` (the vendor's rules). :class:`Checker` finds the
same in a fraction of the time, since it leaves to it only what
:mod:`ctbatch.pipeline.checker.fastlane` does not know to be clean. Framing and sealing are
:mod:`ctbatch.pipeline.sealer.sealing`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

from ctbatch.models import Batch, Checked, Names, Refusal, State
from ctbatch.pipeline.checker.fastlane import Alike, FastLane, Sorted
from ctbatch.pipeline.checker.fields import Facts, examine
from ctbatch.pipeline.checker.parsing import Flaw, parse

__all__ = ["Checker", "Rules", "check", "record_bytes"]

# JSON's own white space without the line feed. A form feed or a no-break space is not blank.
_BLANKS = b" \t\r"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """``strict``: apply the service's own field rules too. Lengths are without the line feed."""

    strict: bool = False
    max_line_bytes: int = 1 << 20


def record_bytes(line: bytes) -> bytes:
    """What is sent of an accepted line: all of it, but the white space around it may be missing."""
    return line.strip(_BLANKS)


class Checker:
    """Checks batch after batch, quickly where lines are like those before; not for threads."""

    def __init__(self, rules: Rules, lane: FastLane | None = None) -> None:
        self._rules = rules
        self._lane = FastLane() if lane is None else lane

    def check(self, batch: Batch) -> Checked:
        """What :func:`check` finds."""
        rules, count = self._rules, batch.span.lines
        if rules.strict or _may_be_too_long(batch, rules):
            return check(batch, rules)
        found = self._lane.sort(batch.data, count)
        if isinstance(found, Alike):
            return _alike(found, count)
        lines = batch.lines() if found.left else []
        judged = {index: _judge(lines[index], rules) for index in found.left}
        self._lane.learn([
            (lines[index], facts) for index, facts in judged.items() if not isinstance(facts, Flaw)
        ])  # fmt: skip
        return _gather(batch, lines, rules, found, judged)


def check(batch: Batch, rules: Rules) -> Checked:
    """Judge every line of a batch. ``positions`` is a ``range`` where every line is a record."""
    lines = batch.lines()
    judged = {index: _judge(line, rules) for index, line in enumerate(lines)}
    empty = [""] * len(lines)
    return _gather(batch, lines, rules, Sorted(empty, empty.copy(), ()), judged)


def _alike(found: Alike, count: int) -> Checked:
    return Checked(
        positions=range(count),
        types=found.kind * count,
        identities=found.names,
        aliases={},
        unsafe=frozenset(() if found.kind == "p" else range(count)),
        refusals=(),
        blank=0,
    )


def _may_be_too_long(batch: Batch, rules: Rules) -> bool:
    limit = rules.max_line_bytes
    return len(batch.data) > limit and max(map(len, batch.lines())) > limit


def _gather(
    batch: Batch,
    lines: Sequence[bytes],
    rules: Rules,
    found: Sorted,
    judged: Mapping[int, Facts | Flaw],
) -> Checked:
    """Put together the lines that were found clean and those that the exact check judged."""
    kinds, names, _ = found
    unsafe = set() if kinds.count("p") + len(judged) == len(kinds) else _not_profiles(kinds)
    aliases: dict[int, tuple[str, ...]] = {}
    warnings: list[tuple[int, str]] = []
    for index, facts in judged.items():
        if isinstance(facts, Flaw):
            continue
        kind, (names[index], *others), repeatable, words = facts
        kinds[index] = kind[0]
        if not repeatable:
            unsafe.add(index)
        if others:
            aliases[index] = tuple(others)
        warnings += [(index, text) for text in words]
    refusals, blank = _refusals(batch, lines, rules, judged)
    positions: Sequence[int] = range(len(kinds))
    if refusals or blank:
        positions, names = list(compress(positions, kinds)), list(filter(None, names))
    numbers = {index: n for n, index in enumerate(positions)} if unsafe or aliases else {}
    return Checked(
        positions=positions,
        types="".join(kinds),
        identities=Names(names),
        aliases={numbers[index]: others for index, others in aliases.items()},
        unsafe=frozenset(numbers[index] for index in unsafe),
        refusals=refusals,
        blank=blank,
        warnings=tuple(warnings),
    )


def _not_profiles(kinds: Sequence[str]) -> set[int]:
    return {index for index, kind in enumerate(kinds) if kind and kind != "p"}


def _refusals(
    batch: Batch, lines: Sequence[bytes], rules: Rules, judged: Mapping[int, Facts | Flaw]
) -> tuple[tuple[Refusal, ...], int]:
    """The lines that are no records, and how many blank ones are left out of them."""
    flaws = [(index, found) for index, found in judged.items() if isinstance(found, Flaw)]
    if not flaws:
        return (), 0
    overlong = {over.index: over for over in batch.overlong}
    refusals: list[Refusal] = []
    for index, flaw in flaws:
        if (over := overlong.get(index)) is not None:
            long = _too_long(over.size, rules)
            refusals.append(_refusal(index, long, (over.offset, over.size)))
        elif record_bytes(lines[index]):
            refusals.append(_refusal(index, flaw))
    return tuple(refusals), len(flaws) - len(refusals)


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
