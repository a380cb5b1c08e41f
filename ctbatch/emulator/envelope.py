"""Who may ask, in the clear or sealed: the vendor's table as code.

======================  ================  ==============  =======
both headers are there  feature enabled   body encrypted  result
======================  ================  ==============  =======
yes                     yes               yes             success
yes                     yes               no              fail
yes                     no                yes             fail
yes                     no                no              fail
no                      yes               yes             fail
no                      no                yes             fail
no                      either            no              success (not in the table; the default)
======================  ================  ==============  =======

With one of the two headers encryption does not apply, so a sealed body is unreadable; a GET has no
body and asks for a sealed reply by ``Accept`` alone. In enforcement mode plaintext is refused.

Invariants:

1. Sans I/O.
2. Words and status of encryption failures are not published; the ones here are invented, and carry
   nothing of what was sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ctbatch.api.wire import HPKE_MEDIA_TYPE, JSON_MEDIA_TYPE

__all__ = ["Refused", "check_credentials", "is_sealed", "malformed"]


@dataclass(eq=False)
class Refused(Exception):
    """The call is answered with an error: ``{"status":"fail","error":…,"code":…}``."""

    status: int
    text: str
    code: int | None = None
    retry_later: bool = False

    @property
    def body(self) -> dict[str, object]:
        """The vendor's shape of an error; ``code`` is the HTTP status unless said otherwise."""
        return {"status": "fail", "error": self.text, "code": self.code or self.status}


_PLAIN: Final = frozenset({JSON_MEDIA_TYPE, ""})


def malformed() -> Refused:
    """The 400 for whatever cannot be read, in the words a client of the vendor's has logged."""
    return Refused(400, "Malformed request")


def check_credentials(given: tuple[str | None, str | None], account_id: str, passcode: str) -> None:
    """Raise the 401 for a wrong account id or passcode, in recorded words."""
    account, secret = given
    if not account or (len(account) < 12 and account != account_id):
        raise Refused(401, "12 digit account ID mandatory")
    if account != account_id:
        raise Refused(401, "Account ID is not valid")
    if secret != passcode:
        raise Refused(401, "Passcode Invalid")


def is_sealed(
    *,
    content_type: str,
    accept: str,
    has_body: bool,
    feature: bool,
    enforce: bool,
    failing: int = 400,
) -> bool:
    """Whether body and reply are sealed. Raises for what the vendor's table fails by its headers
    alone; ``failing`` is the status for it.
    """
    kind = content_type.partition(";")[0].strip().lower()
    asked = accept.strip().lower() == HPKE_MEDIA_TYPE
    sealed = asked and (kind == HPKE_MEDIA_TYPE or not has_body)
    if sealed and not feature:
        raise Refused(failing, "API encryption is not enabled for this account")
    if not sealed and enforce:
        raise Refused(failing, "Plaintext requests are not accepted for this account")
    if has_body and not sealed and kind == HPKE_MEDIA_TYPE:
        raise Refused(failing, "Encryption headers are incomplete")
    if has_body and not sealed and kind not in _PLAIN:
        raise Refused(415, "Unsupported content type")
    return sealed
