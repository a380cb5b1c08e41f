"""Which records of a batch are tied together: they share an identity, so their order counts; pure.

With a record that is sent again go all later ones of its identities, and of theirs in turn, so that
the last update of a user stays the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from ctbatch.models import Checked

__all__ = ["Ties"]


class Ties:
    """The identities of a checked batch's records, by their numbers."""

    def __init__(self, checked: Checked) -> None:
        self._checked = checked

    def names(self, record: int) -> frozenset[str]:
        """All identities of a record."""
        checked = self._checked
        return frozenset((checked.identities[record], *checked.aliases.get(record, ())))

    def shared(self, records: Iterable[int]) -> set[int]:
        """The records that share an identity with another of them."""
        holders: dict[str, list[int]] = {}
        for record in records:
            for name in self.names(record):
                holders.setdefault(name, []).append(record)
        return {r for several in holders.values() if len(several) > 1 for r in several}

    def followers(self, record: int, within: Iterable[int]) -> set[int]:
        """The later records, of those ``within`` (in line order), that have to follow a record."""
        again, _ = self.resendable({record}, within, frozenset())
        return again - {record}

    def resendable(
        self, wanted: Set[int], within: Iterable[int], blocked: Set[int]
    ) -> tuple[set[int], set[int]]:
        """Which records, of those ``within`` (in line order), go out again so that the ``wanted``
        ones do, and which of the wanted ones must not: a record that is blocked, or has a blocked
        one among its followers.
        """
        names = {r: self.names(r) for r in within}
        stuck: set[int] = set()
        tied: set[str] = set()
        for record in reversed(names):
            if record in blocked or not tied.isdisjoint(names[record]):
                stuck.add(record)
                tied |= names[record]
        again: set[int] = set()
        tied.clear()
        for record, mine in names.items():
            if (record in wanted and record not in stuck) or not tied.isdisjoint(mine):
                again.add(record)
                tied |= mine
        return again, set(wanted & stuck)
