"""The vendor's table of headers, feature and encryption: what each combination means; pure.

Source: "Error Handling" in the vendor's "API Encryption" page, six rows. The two plaintext ones are
not in it; by the page's other texts plaintext is taken unless the account is in enforcement mode.

What a client can observe is whether it sent the headers, whether it sealed the body, and whether
that succeeded. The third column, the feature, follows from it or does not; and the table takes for
granted that keys and context are right, which a client cannot, so an explanation names those too.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TABLE", "Combination", "Explanation", "explain", "features"]


@dataclass(frozen=True, slots=True)
class Combination:
    """One row: with these three, requests succeed or fail."""

    headers: bool
    feature: bool
    sealed: bool
    succeeds: bool


TABLE = (
    Combination(headers=True, feature=True, sealed=True, succeeds=True),
    Combination(headers=True, feature=True, sealed=False, succeeds=False),
    Combination(headers=True, feature=False, sealed=True, succeeds=False),
    Combination(headers=True, feature=False, sealed=False, succeeds=False),
    Combination(headers=False, feature=True, sealed=True, succeeds=False),
    Combination(headers=False, feature=False, sealed=True, succeeds=False),
    Combination(headers=False, feature=True, sealed=False, succeeds=True),
    Combination(headers=False, feature=False, sealed=False, succeeds=True),
)
"""The vendor's six rows in their order, then the two plaintext ones."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an observed combination means, and what to do or ask for, the most likely first."""

    meaning: str
    remedies: tuple[str, ...] = ()


_ENABLE = (
    "ask your Customer Success Manager whether API encryption is enabled for exactly this account; "
    "it needs the feature and its billing entitlement"
)
_SERVER_KEY = (
    "fetch the service's public keyset from the dashboard again (keys rotate once a year): "
    "--server-key may be an old one, or another account's"
)
_INFO = (
    "compare the account id with the dashboard's: it is the HPKE context on both sides; ask the "
    "vendor whether your account was given another one (--hpke-info)"
)
_GATEWAY = (
    "have whoever runs the gateway or proxy in between pass bodies unchanged, and Content-Type and "
    "Accept: application/octet-stream+hpke with them"
)

_MEANINGS = {
    (True, True, True): Explanation(
        "headers sent, body sealed, success: encryption is enabled and the keys fit"
    ),
    (True, True, False): Explanation(
        "headers sent, body sealed, refused: by the vendor's table encryption is not enabled for "
        "this account, or the service cannot open what these keys seal",
        (_ENABLE, _SERVER_KEY, _INFO, _GATEWAY),
    ),
    (True, False, True): Explanation(
        "headers sent, body readable, success: the vendor's table does not allow that, so "
        "something on the way rewrites requests",
        (_GATEWAY,),
    ),
    (True, False, False): Explanation(
        "headers sent, body readable, refused: that fails whether or not encryption is enabled. "
        "ctbatch never sends the headers without sealing, so something on the way changed the body",
        (_GATEWAY,),
    ),
    (False, True, True): Explanation(
        "headers missing, body sealed, success: the vendor's table does not allow that, so "
        "something on the way rewrites requests",
        (_GATEWAY,),
    ),
    (False, True, False): Explanation(
        "headers missing, body sealed, refused: that fails whether or not encryption is enabled. "
        "ctbatch never seals without the headers, so something on the way dropped them",
        (_GATEWAY,),
    ),
    (False, False, True): Explanation(
        "headers missing, body readable, success: this account takes plaintext, the vendor's "
        "default, whether or not encryption is enabled"
    ),
    (False, False, False): Explanation(
        "headers missing, body readable, refused: this account takes encrypted requests only "
        "(enforcement mode)",
        (
            "run without --plaintext",
            "if plaintext is meant to work: ask your Customer Success Manager to end enforcement",
        ),
    ),
}


def explain(*, headers: bool, sealed: bool, succeeded: bool) -> Explanation:
    """What it means that a request with these headers and this body succeeded, or was refused."""
    return _MEANINGS[headers, sealed, succeeded]


def features(*, headers: bool, sealed: bool, succeeded: bool) -> frozenset[bool]:
    """With which states of the feature the table allows that; empty where with none."""
    return frozenset(
        row.feature
        for row in TABLE
        if (row.headers, row.sealed, row.succeeds) == (headers, sealed, succeeded)
    )
