"""Everything that can end a run or a call, as one tree.

::

    CtbatchError
    ├── UsageError            ours: mended on this machine (exit 2)
    │   ├── SettingsError         an option or variable is missing or out of range
    │   ├── InputError            an input cannot be read, or is not NDJSON
    │   ├── RunDirectoryError     the run directory exists, is in use, or cannot be made
    │   ├── ResumeRefused         the run cannot go on with these inputs, account or mode
    │   └── KeysetError           a key file cannot be used
    │       ├── KeyFileError          it cannot be read, or is open to others
    │       ├── KeyKindError          private for public, or a primary that is disabled
    │       ├── KeyMismatchError      a public and a private keyset that are no pair
    │       ├── KeyUnsupportedError   another algorithm
    │       ├── KeysetEncryptedError  encrypted by a KMS
    │       ├── KeysetMalformedError  not a keyset
    │       └── PassphraseError       a passphrase is missing or wrong
    ├── StoppedEarly          the run stopped by itself and can be resumed (exit 4)
    │   ├── ServiceUnavailable    nothing believed for too long, or unreachable from the start
    │   ├── InputBroke            a source failed in the middle
    │   ├── InputChanged          a source was changed while it was read again
    │   ├── LedgerFailed          the ledger could not be written
    │   ├── ReportFailed          report.json could not be written
    │   ├── CursorExpired         the service forgot a query: it has to be asked again
    │   ├── OutputBroke           what was downloaded could not be written
    │   ├── SealerFailed          sealing workers keep dying
    │   └── TooManyRefused        the share of refused lines is over --max-refused
    ├── ServiceRefused        theirs: the service refuses us as a whole (exit 5)
    │   ├── AnswerUnopened        it did what was asked, for all we know: its answers do not open
    │   └── CursorRefused         a download cannot go on from where it stands
    ├── SealFailedError       a message cannot be sealed
    ├── OpenError             a sealed message does not open
    │   ├── CiphertextCutError    it is too short to be one
    │   ├── ForeignKeyError       its prefix names a key that is not in the keyset
    │   ├── NotSealedError        it is readable text, or nothing at all
    │   └── SealBrokenError       wrong key, wrong info, or altered on the way
    ├── TransportError        the network's: one attempt failed
    │   ├── NotSent               the request cannot have been understood by the service
    │   └── ReplyLost             the request may have been acted on
    ├── BalanceError          the ledger does not balance (exit 70)
    └── Interrupted           a signal ended the run (exit 130 or 143)

Invariants:

1. The class carries the decision: ``exit_code`` is a class attribute, and one place reads it.
2. An error composes its message from typed fields and survives pickling.
3. No message holds a secret, a record, or any part of a reply.

An expected failure (a refused record, an invalid line) is a value, not an error; see
:mod:`ctbatch.models`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, ClassVar

__all__ = [
    "AnswerUnopened",
    "BalanceError",
    "CiphertextCutError",
    "CtbatchError",
    "CursorExpired",
    "CursorRefused",
    "ExitCode",
    "ForeignKeyError",
    "InputBroke",
    "InputChanged",
    "InputError",
    "Interrupted",
    "KeyFileError",
    "KeyKindError",
    "KeyMismatchError",
    "KeyUnsupportedError",
    "KeysetEncryptedError",
    "KeysetError",
    "KeysetMalformedError",
    "LedgerFailed",
    "NotSealedError",
    "NotSent",
    "OpenError",
    "OutputBroke",
    "PassphraseError",
    "ReplyLost",
    "ReportFailed",
    "ResumeRefused",
    "RunDirectoryError",
    "SealBrokenError",
    "SealFailedError",
    "SealerFailed",
    "ServiceRefused",
    "ServiceUnavailable",
    "SettingsError",
    "StoppedEarly",
    "TooManyRefused",
    "TransportError",
    "UsageError",
]


class ExitCode(IntEnum):
    """What the process tells its caller; the list is a contract."""

    OK = 0
    BUG = 1
    USAGE = 2
    SOME_REFUSED = 3
    STOPPED = 4
    REFUSED = 5
    UNBALANCED = 70
    SIGINT = 130
    SIGTERM = 143


@dataclass(eq=False)
class CtbatchError(Exception):
    """The root. ``str()`` is one message that a person can act on."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive pickling: errors cross process borders and have keyword fields."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))


@dataclass(eq=False)
class UsageError(CtbatchError):
    """Ours: something on this machine has to be mended first. Nothing was sent."""

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE


@dataclass(eq=False)
class SettingsError(UsageError):
    """An option or variable is missing, malformed or out of range."""

    option: str
    why: str
    remedy: str = ""

    def __str__(self) -> str:
        return _sentences(f"{self.option}: {self.why}", self.remedy)


@dataclass(eq=False)
class InputError(UsageError):
    """An input cannot be read, or is not NDJSON."""

    path: str
    why: str
    remedy: str = ""

    def __str__(self) -> str:
        return _sentences(f"{self.path}: {self.why}", self.remedy)


@dataclass(eq=False)
class RunDirectoryError(UsageError):
    """The run directory exists, is in use by another process, or cannot be made or read."""

    path: str
    why: str
    remedy: str = ""

    def __str__(self) -> str:
        return _sentences(f"run directory {self.path}: {self.why}", self.remedy)


@dataclass(eq=False)
class ResumeRefused(UsageError):
    """Going on would mix inputs, accounts or modes that must not be mixed."""

    subject: str
    why: str
    remedy: str = ""

    def __str__(self) -> str:
        return _sentences(f"{self.subject}: {self.why}", self.remedy)


@dataclass(eq=False)
class KeysetError(UsageError):
    """A key file cannot be used. ``path`` is the file, or a word for where the key came from."""

    path: str
    why: str
    remedy: str = ""

    def __str__(self) -> str:
        return _sentences(f"{self.path}: {self.why}", self.remedy)


@dataclass(eq=False)
class KeyFileError(KeysetError):
    """It cannot be read or written, or is open to others."""


@dataclass(eq=False)
class KeyKindError(KeysetError):
    """A private key where a public one belongs or the reverse, or a disabled primary."""


@dataclass(eq=False)
class KeyMismatchError(KeysetError):
    """A public and a private keyset do not belong together."""


@dataclass(eq=False)
class KeysetMalformedError(KeysetError):
    """It is not a keyset."""


@dataclass(eq=False)
class KeyUnsupportedError(KeysetError):
    """It is a key, but not of the suite that the service uses."""

    key_id: int = 0

    def __str__(self) -> str:
        which = f"key {self.key_id}" if self.key_id else "the key"
        return (
            f"{self.path}: {which} is of another kind ({self.why}); the service takes "
            "DHKEM_X25519_HKDF_SHA256, HKDF_SHA256, AES_256_GCM only"
        )


@dataclass(eq=False)
class KeysetEncryptedError(KeysetError):
    """It is encrypted by a key management service."""

    why: str = "is an encrypted Tink keyset (KMS), which cannot be opened here"

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.why}; "
            "export it in the clear with tinkey, to a file that only you can read"
        )


@dataclass(eq=False)
class PassphraseError(KeysetError):
    """A passphrase is missing or wrong."""

    remedy: str = "pass --passphrase-file"


@dataclass(eq=False)
class StoppedEarly(CtbatchError):
    """The run stopped by itself before the end; what is recorded stands, the rest can be
    resumed.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.STOPPED


@dataclass(eq=False)
class ServiceUnavailable(StoppedEarly):
    """No reply was believed for ``waited_s`` seconds. ``last`` is the last thing that happened."""

    waited_s: float
    last: str

    def __str__(self) -> str:
        return f"the service gave no usable answer for {self.waited_s:.0f} s (last: {self.last})"


@dataclass(eq=False)
class InputBroke(StoppedEarly):
    """A source failed after it had been opened: a truncated archive, an I/O error."""

    path: str
    last_good_line: int
    why: str

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.why}; the last good line is {self.last_good_line}. "
            "Everything up to it is accounted for."
        )


@dataclass(eq=False)
class InputChanged(StoppedEarly):
    """An input was changed since the run began, which showed after some of it had been sent."""

    what: str

    def __str__(self) -> str:
        return self.what


@dataclass(eq=False)
class LedgerFailed(StoppedEarly):
    """The ledger could not be written, so nothing more may be sent."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"the ledger {self.path} cannot be written: {self.why}. Nothing unrecorded was sent."


@dataclass(eq=False)
class ReportFailed(StoppedEarly):
    """``report.json`` could not be written; the ledger has all that stands in it."""

    path: str
    why: str

    def __str__(self) -> str:
        return (
            f"{self.path} cannot be written: {self.why}. Nothing is lost: the ledger has what it"
            " is made of, and `ctbatch report` shows it"
        )


@dataclass(eq=False)
class CursorExpired(StoppedEarly):
    """The service has forgotten a query: its cursor cannot be used any more."""

    path: str

    def __str__(self) -> str:
        return (
            f"the cursor for {self.path} has expired: the service forgets one after an hour "
            "without use, and after 4 hours in any case (profiles: 4 days). Start again: make the "
            "same query anew, into a new file"
        )


@dataclass(eq=False)
class OutputBroke(StoppedEarly):
    """A result could not be written: a full disk, say."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path} cannot be written: {self.why}"


@dataclass(eq=False)
class SealerFailed(StoppedEarly):
    """A sealing worker died twice on the same batch."""

    why: str

    def __str__(self) -> str:
        return (
            f"a sealing worker died twice on one batch ({self.why}). "
            "Usually the machine is out of memory or of processes: try fewer --workers or a "
            "smaller --max-batch-bytes."
        )


@dataclass(eq=False)
class TooManyRefused(StoppedEarly):
    """More lines than ``--max-refused`` allows were refused or invalid."""

    refused: int
    lines: int
    limit_percent: float

    def __str__(self) -> str:
        return (
            f"{self.refused:,} of the first {self.lines:,} lines were refused or invalid, more "
            f"than --max-refused {self.limit_percent:g}% allows. "
            "A wrong column mapping is the usual cause: see the reasons in the report. To go on "
            "all the same, resume with a larger --max-refused."
        )


@dataclass(eq=False)
class ServiceRefused(CtbatchError):
    """Theirs: the service refuses every request (credentials, region, encryption state,
    certificate).
    """

    exit_code: ClassVar[ExitCode] = ExitCode.REFUSED

    what: str
    causes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.causes:
            return self.what
        listed = "".join(f"\n  {n}. {cause}" for n, cause in enumerate(self.causes, 1))
        return f"{self.what}\nLikely causes, the most likely first:{listed}"


@dataclass(eq=False)
class AnswerUnopened(ServiceRefused):
    """The service claims success, in answers that do not open: it may have done what was asked."""


@dataclass(eq=False)
class CursorRefused(ServiceRefused):
    """The service does not take a cursor: the query has to be made again."""


@dataclass(eq=False)
class SealFailedError(CtbatchError):
    """A message of ``size`` bytes cannot be sealed: AES-GCM takes 2 GiB at most."""

    size: int

    def __str__(self) -> str:
        return f"a message of {self.size:,} bytes cannot be sealed"


@dataclass(eq=False)
class OpenError(CtbatchError):
    """A sealed message does not open with any key at hand, or is not one."""

    why: str

    def __str__(self) -> str:
        return f"the message does not open: {self.why}"


@dataclass(eq=False)
class CiphertextCutError(OpenError):
    """It is too short to be a sealed message."""


@dataclass(eq=False)
class ForeignKeyError(OpenError):
    """No key opens it, and its prefix names one that is not in the keyset."""


@dataclass(eq=False)
class NotSealedError(OpenError):
    """It is readable text, or nothing at all."""


@dataclass(eq=False)
class SealBrokenError(OpenError):
    """No key opens it: another key, another account id (HPKE info), or altered on the way."""


@dataclass(eq=False)
class TransportError(CtbatchError):
    """The network's: one attempt failed. ``result`` is the key it is counted under in the
    report.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.STOPPED

    result: str
    why: str

    def __str__(self) -> str:
        return f"{self.result}: {self.why}"


@dataclass(eq=False)
class NotSent(TransportError):
    """The attempt broke before the last byte of the body was handed over: it cannot have been acted
    on.
    """


@dataclass(eq=False)
class ReplyLost(TransportError):
    """The request went out and no whole reply came back: it may have been acted on."""


@dataclass(eq=False)
class BalanceError(CtbatchError):
    """The states do not add up to the lines read: a bug that must never pass unseen."""

    exit_code: ClassVar[ExitCode] = ExitCode.UNBALANCED

    source: str
    total: int
    accounted: int

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.total:,} lines were read, {self.accounted:,} are accounted for. "
            "Please report this with the run directory's ledger.sqlite (it holds no personal data)."
        )


@dataclass(eq=False)
class Interrupted(CtbatchError):
    """A signal ended the run; it was drained and can be resumed. Its exit code is the shell's:
    128 + the signal's number.
    """

    signal_number: int

    @property
    def exit_code(self) -> ExitCode:  # type: ignore[override]  # SIGINT and SIGTERM differ
        """130 for SIGINT, 143 for SIGTERM."""
        return ExitCode(128 + self.signal_number)

    def __str__(self) -> str:
        return "interrupted"


def _sentences(*parts: str) -> str:
    """Join the parts that are there into one message."""
    said = [part.rstrip(". ") for part in parts if part]
    return ". ".join(said)
