"""What became of the records of one upload, for who calls the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctbatch.api.explain import explain_status
from ctbatch.api.wire import IDENTITY_KINDS, Entry, Meaning, Verdict, identity_of, map_entries
from ctbatch.api.words import clean_words
from ctbatch.models import State

__all__ = ["Outcome", "UploadResult", "result_of", "unknown"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record: processed, unprocessed (with the service's code and words), or
    unknown (``error`` says why no answer could be believed).
    """

    state: State
    code: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class UploadResult:
    """The outcomes of one request, in the order of its records.

    ``retry`` says that nothing was stored and the same request may be made again later.
    """

    outcomes: tuple[Outcome, ...]
    retry: bool = False

    @property
    def processed(self) -> int:
        """How many records were stored."""
        return sum(outcome.state is State.PROCESSED for outcome in self.outcomes)


def unknown(records: int, why: str) -> UploadResult:
    """That so many records may have been stored, or not."""
    return UploadResult((Outcome(State.UNKNOWN, error=why),) * records)


def result_of(verdict: Verdict, status: int, records: Sequence[Mapping[str, Any]]) -> UploadResult:
    """Turn what a reply means into an outcome per record; raises :class:`ServiceRefused` where it
    refuses us as a whole.
    """
    words = clean_words(verdict.words, *records)
    code = verdict.code or status
    match verdict.meaning:
        case Meaning.BELIEVED:
            return UploadResult(_outcomes(verdict.entries, records))
        case Meaning.FATAL:
            raise explain_status(code, words)
        case Meaning.THROTTLED:
            waiting = Outcome(State.UNSENT, code, words)
            return UploadResult((waiting,) * len(records), retry=True)
        case Meaning.REFUSED | Meaning.TOO_LARGE:
            refused = Outcome(State.UNPROCESSED, code, words or "the request was refused")
            return UploadResult((refused,) * len(records))
        case Meaning.UNOPENED:
            return unknown(len(records), "an answer came that does not open")
    return unknown(len(records), f"no answer that can be believed ({verdict.result} {words})")


def _outcomes(
    entries: Sequence[Entry], records: Sequence[Mapping[str, Any]]
) -> tuple[Outcome, ...]:
    names = [
        frozenset(name for kind in IDENTITY_KINDS if (name := identity_of(kind, record.get(kind))))
        for record in records
    ]
    mapped = map_entries(entries, names, [str(record.get("type"))[:1] for record in records])
    outcomes = [Outcome(State.PROCESSED)] * len(records)
    for index in mapped.candidates:
        outcomes[index] = Outcome(State.UNKNOWN, error="the service did not say which it refused")
    for index, entry in mapped.refused.items():
        words = clean_words(entry.words, records[index])
        outcomes[index] = Outcome(State.UNPROCESSED, entry.code, words)
    return tuple(outcomes)
