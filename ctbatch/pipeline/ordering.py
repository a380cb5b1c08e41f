"""Which batches may go on the wire without overtaking an earlier batch of the same user.

Batches are numbered 0, 1, 2, … in input order. Each is announced with its identities once they are
known, which need not be in that order, and released when nothing of it can be applied any more.

Invariants:

1. A batch becomes clear exactly when every earlier batch is announced and no earlier unfinished
   one holds one of its identities; each is said to be clear once, the lowest number first.
2. Batches that share an identity become clear in input order; so the earliest unfinished batch
   never waits, and nothing can be stuck for ever.
3. Only unfinished batches are remembered, and identities never reach a ``repr`` or an error.

Files often come sorted. The least and the greatest identity of a batch are its *stretch*; batches
whose stretches do not meet have no identity in common, and none of theirs is looked at singly.

Waiting is not done here (:mod:`ctbatch.pipeline.turns`), nor is deciding when a batch is finished.
"""

from __future__ import annotations

from collections import deque

from ctbatch.models import Names

__all__ = ["OrderGuard"]


class OrderGuard:
    """Says which batches are clear to go.

    The work per identity is left to set operations. Measured, batches of 1000, 34 unfinished:
    0.03 µs where identities come sorted or one fills all lines, 0.5 for one that does not repeat in
    a file in no order; at worst, where all are shared and each has a queue of its own, 1 µs.
    """

    def __init__(self) -> None:
        self._next = 0
        self._early: dict[int, Names | None] = {}
        """Announced before an earlier batch was; ``None``: released already."""
        self._stretches: dict[int, tuple[str, str]] = {}
        """Of every unfinished batch."""
        self._apart: dict[int, Names] = {}
        """The unfinished batches whose stretches met no other so far; all of them are clear."""
        # Not frozensets: to intersect the keys of a dict with one is to go through all of it.
        self._unfinished: dict[int, set[str]] = {}
        """The other unfinished ones."""
        self._held: set[str] = set()
        """Every identity that one of these has."""
        self._queues: dict[str, deque[int]] = {}
        """Who has an identity that several have, the holder first, then those who wait."""
        self._blocked: dict[int, int] = {}
        """For how many of its identities a batch waits; those that are clear are not in it."""

    def announce(self, seq: int, identities: Names) -> list[int]:
        """Reserve the identities of a batch until its release; returns who became clear.

        Raises:
            ValueError: the batch was announced or released before.
        """
        if seq < self._next or seq in self._early:
            raise ValueError(f"batch {seq} was announced before")
        self._early[seq] = identities
        return self._admit_announced()

    def release(self, seq: int) -> list[int]:
        """A batch is finished, whether it was clear or not; returns who became clear.

        One that was never announced has nothing to send: it holds up nobody from now on.

        Raises:
            ValueError: the batch was released before.
        """
        if seq >= self._next:
            if seq in self._early and self._early[seq] is None:
                raise ValueError(f"batch {seq} was released before")
            self._early[seq] = None
            return self._admit_announced()
        self._stretches.pop(seq, None)
        if self._apart.pop(seq, None) is not None:
            return []
        if (held := self._unfinished.pop(seq, None)) is None:
            raise ValueError(f"batch {seq} was released before")
        self._blocked.pop(seq, None)
        shared = self._queues.keys() & held
        self._held -= held - shared if shared else held
        return self._leave_queues(seq, shared)

    def _admit_announced(self) -> list[int]:
        """Take in, in order, every batch whose predecessors are all announced; returns who is
        clear.
        """
        clear = []
        while self._next in self._early:
            seq, self._next = self._next, self._next + 1
            names = self._early.pop(seq)
            if names is not None and self._take_in(seq, names):
                clear.append(seq)
        return clear

    def _take_in(self, seq: int, names: Names) -> bool:
        """Remember a batch; returns whether it is clear."""
        near = [] if names.stretch is None else self._stretch_out(seq, *names.stretch)
        if not near:
            self._apart[seq] = names
            return True
        for other in near:
            if (apart := self._apart.pop(other, None)) is not None:
                self._hold(other, set(apart))
        held = set(names)
        clear = self._held.isdisjoint(held)
        if not clear:
            self._join_queues(seq, self._held & held)
        self._hold(seq, held)
        return clear

    def _stretch_out(self, seq: int, low: str, high: str) -> list[int]:
        """Note the stretch of a batch; returns whose it meets."""
        met = [
            other
            for other, (least, greatest) in self._stretches.items()
            if least <= high and low <= greatest
        ]
        self._stretches[seq] = low, high
        return met

    def _hold(self, seq: int, names: set[str]) -> None:
        self._unfinished[seq] = names
        self._held |= names

    def _join_queues(self, seq: int, shared: set[str]) -> None:
        """Let a batch wait for the identities that unfinished batches have."""
        self._blocked[seq] = len(shared)
        queued = self._queues.keys() & shared
        for name in queued:
            self._queues[name].append(seq)
        shared -= queued
        # Who has each of the others is not kept, since it is seldom asked: one batch has it.
        for holder, held in self._unfinished.items():
            met = held & shared
            for name in met:
                self._queues[name] = deque((holder, seq))
            shared -= met
            if not shared:
                break

    def _leave_queues(self, seq: int, shared: set[str]) -> list[int]:
        """Take a batch out of the queues of its shared identities; returns who became clear."""
        clear = []
        for name in shared:
            queue = self._queues[name]
            was_first = queue[0] == seq
            queue.remove(seq)
            heir = queue[0]
            if len(queue) == 1:
                del self._queues[name]
            if was_first:
                self._blocked[heir] -= 1
                if not self._blocked[heir]:
                    del self._blocked[heir]
                    clear.append(heir)
        return sorted(clear)

    def __len__(self) -> int:
        """How many batches are announced and not finished."""
        early = sum(names is not None for names in self._early.values())
        return len(self._apart) + len(self._unfinished) + early

    def __repr__(self) -> str:
        return f"<OrderGuard: {len(self)} unfinished, {len(self._blocked)} of them waiting>"
