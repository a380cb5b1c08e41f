"""What is known of each record of one batch, and what has to be sent next; pure.

A batch begins as one *piece*: all its records in one request. Each reply settles records, or
leaves pieces: the same again, halves of it, or the few records that are worth another request.

Invariants:

1. Every record is pending, that is in exactly one piece, until exactly one final state is known; a
   record that was processed becomes pending again only when an earlier record of the same identity
   has to be sent again.
2. Pieces go out one after the other, in line order per identity: what is put back or put off takes
   the later records of its identities along.
3. A record is blamed for the refusal of its batch only if another request was accepted, without
   it, after the batch was first refused, and only if it was refused three times by itself. (One
   that is all that is left of a run is an exception: :meth:`Breaker.presume`.)
4. What may have been stored is repeated only if every record in it is replay-safe, or if the
   person asked for it.

What does not live here: waiting, sending, and what a reply means (:mod:`ctbatch.api.wire`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import orjson

from ctbatch.api.wire import TRANSIENT_CODE, Entry, map_entries
from ctbatch.api.words import clean_words
from ctbatch.models import Batch, Checked, Counts, Refusal, State
from ctbatch.pipeline.ledger.accounts import Recorded
from ctbatch.pipeline.ties import Ties
from ctbatch.settings import OnAmbiguous

__all__ = ["Piece", "Settlement"]

MAX_TRANSIENT = 5
"""Rounds for a record with code 555: bounded because nothing says that it ever succeeds."""

MAX_AMBIGUOUS = 8
"""Ambiguous answers for one piece, while others are believed, before it is halved."""

MAX_AMBIGUOUS_HALF = 3
"""The same for a piece that was already cut for that reason. Where nothing at all is believed, as
many cut it too: if what the service chokes on is all that is left, only a part can be believed.
"""
MIN_ALONE = 3
"""Refusals of a record by itself before it is blamed: a 400 may be a passing one (the vendor's tool
repeats it). Where one in twenty was, two cost three innocent records of 30,000.
"""
NEVER = 1 << 62  # later than any count of accepted requests


@dataclass(frozen=True, slots=True)
class Piece:
    """Records of a batch that go out in one request; ``tries`` lengthens the pause before it.

    ``ambiguous`` counts its ambiguous answers, as far as another request was accepted since the one
    before, ``stuck`` the others since; ``accepted_at`` is the count of accepted requests at the
    last of them, ``refused_at`` (``cut_at``) that when what it is a part of was refused (cut)
    first. ``alone`` counts how often it was refused as a single record.
    """

    records: tuple[int, ...]
    tries: int = 0
    ambiguous: int = 0
    most_ambiguous: int = MAX_AMBIGUOUS
    stuck: int = 0
    accepted_at: int | None = None
    cut_at: int = NEVER
    refused_at: int | None = None
    alone: int = 0


class Settlement:
    """The settlement of one batch, fresh or as a ledger recorded it."""

    def __init__(
        self,
        batch: Batch,
        checked: Checked,
        on_ambiguous: OnAmbiguous,
        recorded: Recorded | None = None,
    ) -> None:
        self._batch = batch
        self._checked = checked
        self._on_ambiguous = on_ambiguous
        self._ties = Ties(checked)
        self._lines: list[bytes] | None = None
        self._records = checked.records
        self._all_lines: frozenset[int] | None = None
        self._base = Counts(blank=checked.blank)
        self._new: list[tuple[Refusal, bytes | None]] = []
        self._refused: dict[int, State] = {}
        self._transient: dict[int, int] = {}
        self._halving = False
        self._probes: set[int] = set()
        self.hopeless = False
        """The canary's probes were all refused: the service refuses us, not a record."""
        if recorded is None or recorded.pending is None:
            first = self._records
            self._take_invalid(checked.refusals)
        else:
            self._base = recorded.counts
            first = tuple(r for r in self._records if checked.positions[r] in recorded.pending)
            # Valid when it was recorded, not any more: other options for the checker.
            self._take_invalid([r for r in checked.refusals if r.index in recorded.pending])
        self._pending_at_start = len(first)
        self._work = deque([Piece(first)] if first else [])
        if recorded is not None:
            self._take_up(recorded)

    def _take_invalid(self, refusals: Sequence[Refusal]) -> None:
        """Invalid lines are settled from the start."""
        data, left_out = self._batch.data, self._checked.left_out
        for refusal in refusals:
            line = data[slice(*left_out[refusal.index])]
            self._new.append((refusal, line if refusal.place is None else None))
        self._base += Counts(invalid=len(refusals))

    def _take_up(self, recorded: Recorded) -> None:
        """Apply the ambiguity policy to what was on the wire when an earlier process ended."""
        on_wire, positions = recorded.maybe, self._checked.positions
        maybe = [r for r in self._pending() if on_wire is None or positions[r] in on_wire]
        if maybe:
            known = set(maybe)
            rest = tuple(r for r in self._pending() if r not in known)
            self._work = deque(Piece(part) for part in (tuple(maybe), rest) if part)
            self.ambiguous("the run ended before the answer came", accepted=0)
            if self._work:  # put together again what may go together, in line order
                self._work = deque([Piece(tuple(self._pending()))])

    # -- what is known --------------------------------------------------------------------------

    @property
    def piece(self) -> Piece | None:
        """What has to be sent next; ``None``: every record is settled."""
        return self._work[0] if self._work else None

    @property
    def isolating(self) -> bool:
        """Whether the batch was refused as a whole and is searched for the culprits."""
        return self._halving

    @property
    def is_safe(self) -> bool:
        """Whether every record of the next piece may be applied twice."""
        if self._on_ambiguous is OnAmbiguous.HOLD:
            return False
        unsafe = self._checked.unsafe
        return not unsafe or not any(r in unsafe for r in self._work[0].records)

    @property
    def counts(self) -> Counts:
        """The settled lines of the span, by state."""
        unknown = sum(state is State.UNKNOWN for state in self._refused.values())
        refused = len(self._refused)
        return self._base + Counts(
            processed=self._pending_at_start - self._count_pending() - refused,
            unprocessed=refused - unknown,
            unknown=unknown,
        )

    @property
    def pending(self) -> frozenset[int]:
        """The line indexes of the records that are not settled."""
        return self._lines_of(self._pending())

    @property
    def on_wire(self) -> frozenset[int]:
        """The line indexes of the next piece's records."""
        return self._lines_of(self._work[0].records)

    def take_refusals(self) -> list[tuple[Refusal, bytes | None]]:
        """The lines refused since the last call, with their originals."""
        taken, self._new = self._new, []
        return taken

    # -- what happened to the next piece ----------------------------------------------------------

    def again(self) -> None:
        """It was throttled or not sent: the same again, after a longer pause."""
        piece = self._work.popleft()
        self._work.appendleft(replace(piece, tries=piece.tries + 1))

    def cut(self, records: int) -> None:
        """Send only its first records, the others later."""
        piece = self._work.popleft()
        head, rest = piece.records[:records], piece.records[records:]
        if rest:
            self._work.appendleft(replace(piece, records=rest))
        self._work.appendleft(replace(piece, records=head))

    def believed(self, entries: Sequence[Entry]) -> frozenset[int]:
        """A reply was believed: ``entries`` are what it refused.

        Returns the line indexes of what it certainly did not store and what goes out again.
        """
        piece = self._work.popleft()
        if not entries:
            return frozenset()
        mapped = map_entries(
            entries,
            [self._ties.names(r) for r in piece.records],
            [self._checked.types[r] for r in piece.records],
        )
        open_ = {piece.records[i] for i in mapped.candidates}
        refused = {piece.records[i]: entry for i, entry in mapped.refused.items()}
        transient: dict[int, Entry] = {}
        for record, entry in refused.items():
            if entry.code == TRANSIENT_CODE:
                transient[record] = entry
            else:
                self._refuse(record, State.UNPROCESSED, entry.code, self._said(record, entry))
        if transient or open_:
            self._resend(piece, transient, open_)
        return self._checked.lines_of(transient.keys() - self._refused.keys())

    def _resend(self, piece: Piece, transient: dict[int, Entry], open_: set[int]) -> None:
        """Send again what a believed reply left open, with the later records of its identities.

        ``transient`` are the records with code 555; among the ``open_`` ones are refused records,
        which are searched for in halves.
        """
        for record in sorted(transient):
            rounds = self._transient[record] = self._transient.get(record, 0) + 1
            if rounds >= MAX_TRANSIENT or record in self._checked.unsafe:
                words = self._said(record, transient.pop(record))
                self._refuse(record, State.UNPROCESSED, TRANSIENT_CODE, words)
        stored = self._checked.unsafe - open_  # not to be repeated, whatever the policy
        blocked = stored | self._unsafe(open_)
        within = [r for r in piece.records if r not in self._refused]
        again, held = self._ties.resendable(open_ | transient.keys(), within, blocked)
        for record in sorted(held):
            if record in open_:
                words = "refused or stored: the service did not say which record it refused"
                self._refuse(record, State.UNKNOWN, None, words)
            else:
                words = self._said(record, transient[record])
                self._refuse(record, State.UNPROCESSED, TRANSIENT_CODE, words)
        if not again:
            return
        tries = max((self._transient[r] for r in transient), default=0)
        left = Piece(tuple(sorted(again)), tries=tries)
        if open_.isdisjoint(again):
            self._work.appendleft(left)
        else:
            self._push_halves(left)

    def refused(self, code: int | None, words: str, *, accepted: int, canary: bool) -> bool:
        """The request was refused as a whole, with ``words`` that hold nothing of a record;
        ``accepted`` counts the requests accepted so far.

        Returns whether this speaks against the service: a batch refused twice, or a single record.
        """
        piece = self._work.popleft()
        single = len(piece.records) == 1
        piece = replace(piece, tries=piece.tries + 1, alone=piece.alone + single)
        if piece.refused_at is None:
            self._work.appendleft(replace(piece, refused_at=accepted))
            return False
        if single and piece.alone < MIN_ALONE and accepted > piece.refused_at:
            self._work.appendleft(piece)
            return False
        if canary and not self._halving:
            self._probe(piece)
        elif not single:
            self._push_halves(piece)
        elif accepted > piece.refused_at:
            self._refuse(piece.records[0], State.UNPROCESSED, code, words)
        else:
            self._put_off(piece)
        first, self._halving = not self._halving, True
        return first or single

    def blame(self, code: int | None, words: str) -> None:
        """The next piece is a single record, and it is refused for what it is."""
        [record] = self._work.popleft().records
        self._refuse(record, State.UNPROCESSED, code, words)

    def _put_off(self, piece: Piece) -> None:
        """A single record was refused, but without evidence: it goes last, before its followers."""
        record = piece.records[0]
        if record in self._probes:
            self._probes.discard(record)
            self.hopeless = not self._probes
        followers = self._ties.followers(record, sorted([record, *self._pending()]))
        taken = [other for other in self._work if not followers.isdisjoint(other.records)]
        kept = [
            replace(other, records=left)
            for other in self._work
            if (left := tuple(r for r in other.records if r not in followers))
        ]
        self._work = deque([*kept, piece])
        if followers:
            # Where one of them was never in a refused request, the piece has not been refused yet.
            known = all(other.refused_at is not None for other in taken)
            at, rest = piece.refused_at if known else None, tuple(sorted(followers))
            later = Piece(rest, cut_at=piece.cut_at, refused_at=at)
            self._work.append(later)

    def _probe(self, piece: Piece) -> None:
        """Send the first, a middle and a last record alone, then the rest.

        A middle or last record that shares an identity is passed over, so that order is kept.
        """
        chosen = [piece.records[0]]
        shared = self._ties.shared(piece.records)
        rest = piece.records[1:]
        middle = len(rest) // 2
        for candidates in (rest[middle:-1] or rest[:middle], rest[::-1]):
            free = (r for r in candidates if r not in shared and r not in chosen)
            chosen.extend([r for _, r in zip(range(1), free, strict=False)])
        self._probes = set(chosen)
        left = tuple(r for r in piece.records if r not in self._probes)
        if left:
            self._work.appendleft(replace(piece, records=left, tries=0))
        self._work.extendleft(replace(piece, records=(r,), tries=0) for r in reversed(chosen))

    def too_large(self, code: int | None, words: str) -> None:
        """It was too large: halve it; a record that is too large alone is unprocessed."""
        piece = self._work.popleft()
        if len(piece.records) == 1:
            text = words or "the record is too large for the service"
            self._refuse(piece.records[0], State.UNPROCESSED, code, text)
        else:
            self._push_halves(piece)

    def ambiguous(self, words: str, *, accepted: int) -> None:
        """It may have been stored; ``accepted`` counts the requests accepted so far."""
        piece = self._work.popleft()
        unsafe = self._unsafe(piece.records)
        for record in sorted(unsafe):
            self._refuse(record, State.UNKNOWN, None, words)
        left = tuple(r for r in piece.records if r not in unsafe)
        if not left:
            return
        progress = piece.accepted_at is None or accepted > piece.accepted_at
        count, stuck = piece.ambiguous + progress, 0 if progress else piece.stuck + 1
        piece = replace(piece, records=left, ambiguous=count, stuck=stuck, accepted_at=accepted)
        most = piece.most_ambiguous
        if max(count, stuck) < most:
            self._work.appendleft(replace(piece, tries=piece.tries + 1))
        elif len(left) > 1:
            most, at = MAX_AMBIGUOUS_HALF, min(piece.cut_at, accepted)
            cut = replace(piece, ambiguous=0, most_ambiguous=most, cut_at=at)
            self._push_halves(replace(cut, stuck=most - 1 if stuck else 0))
        elif count >= most or (stuck >= MAX_AMBIGUOUS and accepted > piece.cut_at):
            self._refuse(left[0], State.UNKNOWN, None, words)
        else:  # the others of its batch may be believed, or it is not the record's fault
            self._put_off(replace(piece, tries=piece.tries + 1))

    # -- the parts of it --------------------------------------------------------------------------

    def _lines_of(self, records: Sequence[int]) -> frozenset[int]:
        """Their line indexes; those of all records are asked for again and again."""
        if len(records) < len(self._records):
            return self._checked.lines_of(records)
        if self._all_lines is None:
            self._all_lines = self._checked.lines_of(records)
        return self._all_lines

    def _pending(self) -> Sequence[int]:
        """The records of all pieces, in line order."""
        if len(self._work) == 1:  # nearly always
            return self._work[0].records
        return sorted(r for piece in self._work for r in piece.records)

    def _count_pending(self) -> int:
        return sum(len(piece.records) for piece in self._work)

    def _unsafe(self, records: Iterable[int]) -> set[int]:
        """The records that the policy holds back when they may have been stored."""
        if self._on_ambiguous is OnAmbiguous.RESEND:
            return set()
        if self._on_ambiguous is OnAmbiguous.HOLD:
            return set(records)
        return set(self._checked.unsafe.intersection(records))

    def _push_halves(self, piece: Piece) -> None:
        middle = (len(piece.records) + 1) // 2
        halves = [half for half in (piece.records[middle:], piece.records[:middle]) if half]
        self._work.extendleft(replace(piece, records=half, tries=0) for half in halves)

    def _said(self, record: int, entry: Entry) -> str:
        """What the service said of a record, without anything of it."""
        return clean_words(entry.words, orjson.loads(self._line(self._checked.positions[record])))

    def _refuse(self, record: int, state: State, code: int | str | None, error: str) -> None:
        """Settle a record as unprocessed or unknown."""
        index = self._checked.positions[record]
        self._refused[record] = state
        self._new.append((Refusal(index, state, code, error), self._line(index)))

    def _line(self, index: int) -> bytes:
        if self._lines is None:
            self._lines = self._batch.lines()
        return self._lines[index]
