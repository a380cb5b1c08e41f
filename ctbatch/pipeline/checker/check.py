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
from typing import NamedTuple

from ctbatch.models import Batch, Checked, Names, Refusal, State, line_bounds, numbers
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
        judged = _judge_all(batch, found.left, rules)
        accepted = [
            (line, facts) for line, _, facts in judged.values() if not isinstance(facts, Flaw)
        ]
        self._lane.learn(accepted)
        if isinstance(found, Sorted):
            return _gather(batch, rules, found, judged)
        if accepted:
            return _gather(batch, rules, found.singly(count), judged)
        return _alike(batch, rules, found, judged)


def check(batch: Batch, rules: Rules) -> Checked:
    """Judge every line of a batch. ``positions`` is a ``range`` where every line is a record."""
    count = batch.span.lines
    judged = _judge_all(batch, range(count), rules)
    return _gather(batch, rules, Sorted([""] * count, [""] * count, ()), judged)


def _may_be_too_long(batch: Batch, rules: Rules) -> bool:
    limit = rules.max_line_bytes
    return len(batch.data) > limit and max(map(len, batch.lines())) > limit


class _Judged(NamedTuple):
    """A line, where it is, and what the exact check found."""

    line: bytes
    bounds: tuple[int, int]
    found: Facts | Flaw


def _judge_all(batch: Batch, indexes: Sequence[int], rules: Rules) -> dict[int, _Judged]:
    data, judged = batch.data, {}
    for index, bounds in zip(indexes, line_bounds(data, indexes), strict=True):
        line = data[slice(*bounds)]
        judged[index] = _Judged(line, bounds, _judge(line, rules))
    return judged


def _gather(batch: Batch, rules: Rules, clean: Sorted, judged: Mapping[int, _Judged]) -> Checked:
    """Put together the lines that were found clean and those that the exact check judged."""
    kinds, names, _ = clean
    unsafe = set() if kinds.count("p") + len(judged) == len(kinds) else _not_profiles(kinds)
    aliases: dict[int, tuple[str, ...]] = {}
    warnings: list[tuple[int, str]] = []
    flawed: dict[int, _Judged] = {}
    for index, one in judged.items():
        if isinstance(one.found, Flaw):
            flawed[index] = one
            continue
        kind, (names[index], *others), repeatable, words = one.found
        kinds[index] = kind[0]
        if not repeatable:
            unsafe.add(index)
        if others:
            aliases[index] = tuple(others)
        warnings += [(index, text) for text in words]
    positions: Sequence[int] = range(len(kinds))
    if flawed:
        positions, names = list(compress(positions, kinds)), list(filter(None, names))
    numbered = {index: n for n, index in enumerate(positions)} if unsafe or aliases else {}
    refusals = _refusals(batch, rules, flawed)
    return Checked(
        positions=positions,
        types="".join(kinds),
        identities=Names(names),
        aliases={numbered[index]: others for index, others in aliases.items()},
        unsafe=frozenset(numbered[index] for index in unsafe),
        refusals=refusals,
        blank=len(flawed) - len(refusals),
        left_out={index: one.bounds for index, one in flawed.items()},
        warnings=tuple(warnings),
    )


def _alike(batch: Batch, rules: Rules, clean: Alike, flawed: Mapping[int, _Judged]) -> Checked:
    """Put together lines of one shape and others that are no records: no name is looked at."""
    positions: Sequence[int] = range(batch.span.lines)
    if flawed:
        positions = list(numbers(batch.span.lines))
        for index in sorted(flawed, reverse=True):
            del positions[index]
    records = len(positions)
    refusals = _refusals(batch, rules, flawed)
    return Checked(
        positions=positions,
        types=clean.kind * records,
        identities=clean.names,
        aliases={},
        unsafe=frozenset(() if clean.kind == "p" else range(records)),
        refusals=refusals,
        blank=len(flawed) - len(refusals),
        left_out={index: one.bounds for index, one in flawed.items()},
    )


def _not_profiles(kinds: Sequence[str]) -> set[int]:
    return {index for index, kind in enumerate(kinds) if kind and kind != "p"}


def _refusals(batch: Batch, rules: Rules, flawed: Mapping[int, _Judged]) -> tuple[Refusal, ...]:
    """The lines that are no records, without the blank ones."""
    overlong = {over.index: over for over in batch.overlong}
    refusals: list[Refusal] = []
    for index, (line, _, flaw) in flawed.items():
        assert isinstance(flaw, Flaw)
        if (over := overlong.get(index)) is not None:
            long = _too_long(over.size, rules)
            refusals.append(_refusal(index, long, (over.offset, over.size)))
        elif record_bytes(line):
            refusals.append(_refusal(index, flaw))
    return tuple(refusals)


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
