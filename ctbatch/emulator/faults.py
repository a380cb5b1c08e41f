"""Which request meets which fault: ``--fault NAME=RULE``, the same under the same ``--seed``.

Invariants:

1. Sans I/O: decides, never acts; :mod:`ctbatch.emulator.app` and ``reply`` act.
2. Every rule is a function of (seed, name, number of the request): the answer for the n-th request
   does not depend on time, nor on other faults.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from ctbatch.errors import SettingsError

__all__ = ["FAULTS", "Fault", "Kind", "Plan", "Stage"]


class Stage(StrEnum):
    """When a fault strikes."""

    ARRIVAL = "before the body is read"
    INSTEAD = "after the body is read, instead of acting on it"
    RECORD = "on single records"
    STORED = "after what was sent is stored"
    COUNTS = "in the verdict"
    REPLY = "on the reply's way back"


FAULTS: dict[str, tuple[Stage, str]] = {
    "reset": (Stage.ARRIVAL, "the connection is reset before the body is read"),
    "429": (Stage.INSTEAD, "too many concurrent requests"),
    "503": (Stage.INSTEAD, "a gateway's HTML page"),
    "503-json": (Stage.INSTEAD, "unavailable, in the vendor's JSON form"),
    "500": (Stage.INSTEAD, "server error, nothing stored"),
    "502": (Stage.INSTEAD, "a gateway's HTML page"),
    "504": (Stage.INSTEAD, "a gateway's HTML page"),
    "408": (Stage.INSTEAD, "request time-out"),
    "400": (Stage.INSTEAD, "malformed request, whatever was sent"),
    "401": (Stage.INSTEAD, "credentials refused, whatever was sent"),
    "403": (Stage.INSTEAD, "not allowed"),
    "404": (Stage.INSTEAD, "no such resource"),
    "413": (Stage.INSTEAD, "too large, whatever was sent"),
    "redirect": (Stage.INSTEAD, "307 to another path"),
    "555": (Stage.RECORD, "a record fails with code 555 --transient-times times"),
    "poison": (Stage.RECORD, 'a batch with a profileData key "poison" is answered 400'),
    "poison-500": (Stage.RECORD, 'a batch with a profileData key "poison" is answered 500'),
    "500-stored": (Stage.STORED, "server error after storing"),
    "reset-stored": (Stage.STORED, "the connection is reset after storing"),
    "hang": (Stage.STORED, "stored, and never answered"),
    "counts": (Stage.COUNTS, "processed is one too many"),
    "number-missing": (Stage.COUNTS, 'error texts without "Skipped record number"'),
    "number-repeated": (Stage.COUNTS, "all error texts name the first refused record"),
    "number-range": (Stage.COUNTS, "error texts name records beyond the batch"),
    "reset-mid": (Stage.REPLY, "the connection breaks in the middle of the reply"),
    "truncated": (Stage.REPLY, "a whole HTTP reply whose body lacks its end"),
    "plaintext": (Stage.REPLY, "plain JSON though a sealed reply was asked for"),
    "garbage": (Stage.REPLY, "200 with random bytes"),
    "empty": (Stage.REPLY, "200 without a body"),
    "foreign-key": (Stage.REPLY, "sealed with somebody else's key"),
    "close": (Stage.REPLY, "the connection is closed after the reply"),
}
"""Every fault: when it strikes, and what it does."""


class Kind(StrEnum):
    """How a rule picks requests; requests are numbered from 1."""

    SHARE = "share"
    EVERY = "every"
    FIRST = "first"
    AFTER = "after"
    ONLY = "only"


@dataclass(frozen=True, slots=True)
class Fault:
    """One ``NAME=RULE``: a share from 0 to 1, ``every-N``, ``first-N``, ``after-N`` or ``only-N``;
    without a rule, always.
    """

    name: str
    kind: Kind
    value: float

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Raises :class:`SettingsError` with the list of names, or of forms."""
        name, _, rule = text.partition("=")
        if name not in FAULTS:
            raise SettingsError("--fault", f"there is no fault {name!r}", _names())
        word, dash, number = rule.partition("-")
        try:
            if dash and word in set(Kind) - {Kind.SHARE} and int(number) > 0:
                return cls(name, Kind(word), int(number))
            share = float(rule or "1")
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise SettingsError(
                "--fault",
                f"{rule!r} is not a rule",
                "use a share from 0 to 1, every-N, first-N, after-N or only-N",
            )
        return cls(name, Kind.SHARE, share)

    def strikes(self, number: int, chance: float) -> bool:
        """Whether request ``number`` (from 1) is met; ``chance`` is its draw from [0, 1)."""
        match self.kind:
            case Kind.SHARE:
                return chance < self.value
            case Kind.EVERY:
                return number % int(self.value) == 0
            case Kind.FIRST:
                return number <= self.value
            case Kind.AFTER:
                return number > self.value
            case Kind.ONLY:
                return number == self.value


class Plan:
    """The faults in force. Numbers requests from 1 since it was made."""

    __slots__ = ("_by_request", "_failed", "_poison", "_seed", "_times", "_transient", "requests")

    def __init__(self, texts: Iterable[str] = (), *, seed: int = 0, transient_times: int = 1):
        faults = [Fault.parse(text) for text in texts]
        self._by_request = [f for f in faults if FAULTS[f.name][0] is not Stage.RECORD]
        self._poison = [f for f in faults if f.name.startswith("poison")]
        self._transient = next((f for f in faults if f.name == "555"), None)
        self._seed = str(seed)
        self._times = transient_times
        self._failed: dict[bytes, tuple[int, int]] = {}
        self.requests = 0

    def draw(self) -> Set[str]:
        """The names of the faults that the next request meets."""
        self.requests += 1
        number = self.requests
        met = self._by_request + self._poison
        return {f.name for f in met if f.strikes(number, self._chance(f.name, str(number)))}

    @property
    def has_transients(self) -> bool:
        """Whether records have to be shown to :meth:`is_transient` at all."""
        return self._transient is not None

    def is_transient(self, record: bytes) -> bool:
        """Whether this record fails this time; records are numbered as they are first seen."""
        if self._transient is None:
            return False
        key = blake2b(record, digest_size=16).digest()
        number, failures = self._failed.setdefault(key, (len(self._failed) + 1, 0))
        chance = self._chance("555", key.hex())
        if failures >= self._times or not self._transient.strikes(number, chance):
            return False
        self._failed[key] = number, failures + 1
        return True

    def _chance(self, name: str, what: str) -> float:
        digest = blake2b(f"{self._seed}:{name}:{what}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64


def _names() -> str:
    return f"choose from {', '.join(FAULTS)}"
