"""Why the service refuses us as a whole: the vendor's table turned into causes and remedies; pure.

Source: the table of headers × feature × encrypted in the vendor's "API Encryption" page, and the
texts of 401 replies that were recorded.
"""

from __future__ import annotations

from ctbatch.errors import AnswerUnopened, ServiceRefused

__all__ = ["explain_refusal", "explain_status", "explain_unopened"]

_FEATURE_OFF = (
    "encryption is not enabled for this account (vendor's table: headers sent, feature off, "
    "body encrypted: fail); ask your Customer Success Manager to enable API encryption"
)
_SERVER_KEY = (
    "--server-key is not the service's current public key, so it cannot open requests (keys rotate "
    "once a year); fetch the public keyset from the dashboard again"
)
_INFO = (
    "the account id is not the one the keys belong to: it is the HPKE context on both sides "
    "(--account-id, or --hpke-info if your account was given another context)"
)
_CLIENT_KEY = (
    "--client-key does not belong to the public key that the service has of you; upload your "
    "public keyset in the dashboard, or use the private keyset that belongs to it"
)
_ENFORCED = (
    "the account accepts encrypted requests only (enforcement mode); run without --plaintext"
)
_FEATURE_ON_PLAIN = (
    "the vendor's table allows a plain body only without the encryption headers, which is what "
    "--plaintext sends; a gateway in between may have changed them"
)
_MALFORMED = (
    "many records have the same mistake, one that makes the service refuse a whole request: look "
    "at the first lines that are unsent"
)

_BY_TABLE = (_FEATURE_OFF, _SERVER_KEY, _INFO)

_STATUS_CAUSES = {
    401: (
        "the account id or the passcode is wrong (the passcode, not the account token)",
        "the account lives in another region: see the dashboard's address and set --region",
        "the passcode was revoked or belongs to another project",
    ),
    403: (
        "the account or passcode is not allowed to upload",
        _FEATURE_OFF,
        "a firewall or gateway between here and the service refuses the request",
    ),
    404: ("--base-url has a wrong host or path",),
    405: ("--base-url is not the API (it does not take POST on this path)",),
    407: ("the proxy wants credentials",),
    415: (
        _FEATURE_OFF,
        "--base-url is not the API, or a gateway in between refuses the content type",
    ),
}


def explain_status(status: int, words: str) -> ServiceRefused:
    """A status that refuses us whatever we send; ``words`` are cleaned."""
    said = f' and said "{words}"' if words else ""
    what = f"the service answered {status}{said}; the run stopped at once"
    return ServiceRefused(what, _STATUS_CAUSES.get(status, ("the address is not the API",)))


def explain_refusal(words: str, *, sealed: bool, others_pass: bool = False) -> ServiceRefused:
    """Batches are refused one after the other and nothing is accepted; ``others_pass``: other
    requests were, so that it is the records rather than the account.
    """
    said = f' (it said "{words}")' if words else ""
    what = f"the service refuses one request after the other{said}; no record is blamed for it"
    account: tuple[str, ...] = (_ENFORCED, _FEATURE_ON_PLAIN)
    if sealed:
        # No text is published; one that speaks of decryption comes from who would decrypt.
        keys_first = "decrypt" in words.lower()
        account = (_SERVER_KEY, _INFO, _FEATURE_OFF) if keys_first else _BY_TABLE
    causes = (_MALFORMED, *account) if others_pass else (*account, _MALFORMED)
    return ServiceRefused(what, causes)


def explain_unopened(answers: int, *, sealed: bool) -> AnswerUnopened:
    """So many answers in a row cannot be opened, so nothing they say is believed."""
    which, them = ("the answer", "it") if answers == 1 else (f"{answers} answers in a row", "them")
    if not sealed:
        causes: tuple[str, ...] = ("the answers are not the API's JSON: check --base-url",)
        return AnswerUnopened(f"{which} could not be read", causes)
    what = f"{which} did not open, so nothing said in {them} is believed"
    plain = "the answers come in plaintext, from a gateway or an account without encryption"
    return AnswerUnopened(what, (_CLIENT_KEY, _INFO, plain, _FEATURE_OFF))
