"""One reply of the service as a check sees it: its form, and how far it can be taken for a yes.

Invariants:

1. Any bytes have a form; nothing here raises on them.
2. Of a reply's body nothing is kept but its status word, its code and cleaned words.

What a reply to an upload means for its records is not decided here: see :mod:`ctbatch.api.wire`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import orjson

from ctbatch.api.transport import Reply
from ctbatch.api.wire import HPKE_MEDIA_TYPE
from ctbatch.api.words import clean_words, without_secrets
from ctbatch.crypto.hpke import OpeningKeys
from ctbatch.errors import CiphertextCutError, NotSealedError, OpenError

__all__ = ["Answer", "Form", "Kind", "read_answer"]


class Form(StrEnum):
    """What the body is."""

    SEALED = "sealed"  # and it opens
    UNOPENED = "unopened"  # sealed, and it does not open
    JSON = "json"  # an object in the clear, as the vendor's are
    OTHER = "other"


class Kind(StrEnum):
    """What the answer is, whatever was asked."""

    ACCEPTED = "accepted"
    UNAUTHORISED = "unauthorised"
    REFUSED = "refused"
    BUSY = "busy"  # says nothing about the request
    FOREIGN = "foreign"  # not from the API


_BUSY = frozenset({408, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply. ``said`` is the body's own ``status``; ``repeated`` says that its words hold a
    text that stood in nothing but the request's body. ``why`` is why it does not open.
    """

    status: int
    form: Form
    said: str = ""
    code: int | None = None
    words: str = field(default="", repr=False)
    repeated: bool = False
    why: str = ""

    @property
    def is_sealed(self) -> bool:
        """Whether the service sealed it."""
        return self.form in {Form.SEALED, Form.UNOPENED}

    @property
    def kind(self) -> Kind:
        """What it is. A look-up of nobody may be answered 200 or 404: both are the API's yes."""
        # An error with a 2xx carries what would be its status in `code`.
        status = self.code if self.said == "fail" and self.code is not None else self.status
        if 401 in {self.status, status}:
            return Kind.UNAUTHORISED
        if self.status in _BUSY or status in _BUSY:
            return Kind.BUSY
        if self.form is Form.OTHER:
            return Kind.FOREIGN
        if (200 <= self.status < 300 and status != 403) or self.status == 404:
            return Kind.ACCEPTED
        return Kind.REFUSED

    def told(self) -> str:
        """The answer in words for people."""
        said = f' and said "{self.words}"' if self.words else ""
        code = f" (code {self.code})" if self.code not in {None, self.status} else ""
        return f"the service answered {self.status}{code}{said}"


def read_answer(
    reply: Reply,
    opening: OpeningKeys | None,
    *,
    secrets: tuple[str, ...] = (),
    repeats: str = "",
) -> Answer:
    """Read a reply; ``opening`` is ``None`` where no sealed one was asked for, or no key is there.

    ``secrets`` are cut out of the service's words; ``repeats`` is what they may repeat.
    """
    text, form = reply.body, Form.OTHER
    if opening is not None:
        try:
            text, form = opening.open(reply.body).plaintext, Form.SEALED
        except (CiphertextCutError, NotSealedError):
            pass
        except OpenError as error:
            # A gateway's page in an odd encoding must not pass for a sign of encryption.
            if not reply.content_type.startswith("text/"):
                return Answer(reply.status, Form.UNOPENED, why=error.why)
    elif reply.content_type == HPKE_MEDIA_TYPE:
        return Answer(reply.status, Form.UNOPENED, why="there is no private key at hand")
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        return Answer(reply.status, form)
    said, code, words = body.get("status"), body.get("code"), body.get("error")
    words = words if isinstance(words, str) else ""
    return Answer(
        reply.status,
        Form.JSON if form is Form.OTHER else form,
        said=said if isinstance(said, str) else "",
        code=code if type(code) is int else None,
        words=clean_words(without_secrets(words, secrets), list(secrets)),
        repeated=bool(repeats) and repeats in words,
    )
