"""From what was observed to what it means and what to do: a check's findings; pure.

The way to the service and the clock, credentials, the state of encryption, the round trip. The
three requests that the last ones rest on, and why they change nothing: :mod:`ctbatch.api.probe`.

How the state of encryption is told from three answers (``yes``: the API's own 2xx, or its 404):

=============  ==============  ==============  ===================================================
plain look-up  sealed look-up  sealed query    what follows
=============  ==============  ==============  ===================================================
any            yes, sealed     any             the feature is enabled: nobody else could seal to us
any            yes, in clear   any             it is not, or something drops ``Accept`` on the way
yes            no              no              it is not, by the vendor's table
any            yes, sealed     no              our side of it: server key or context is wrong
any            sealed, shut    any             theirs: our public key there, or the context
no             yes, sealed     any             enforcement mode
=============  ==============  ==============  ===================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ctbatch.api.answers import Answer, Form, Kind
from ctbatch.api.combinations import explain, features
from ctbatch.api.explain import explain_status
from ctbatch.api.findings import Fact, Finding, Status, Step, failure, skipped
from ctbatch.errors import CtbatchError, ReplyLost, TransportError

__all__ = [
    "MAX_SKEW_S",
    "Security",
    "Way",
    "of_broken",
    "of_clock",
    "of_credentials",
    "of_encryption",
    "of_round_trip",
    "of_way",
]

MAX_SKEW_S = 120.0
"""The service uses event times up to 2 minutes in its future: vendor's "Events Object" page."""

_EXPIRES_SOON_S = 7 * 86_400.0

_QUERY_CODES = frozenset({2, 4002, 4004})
"""Query failures that clients have logged, with a 200: whoever gives one has read the query."""


@dataclass(frozen=True, slots=True)
class Security:
    """A TLS connection that was verified; ``expires_in_s`` is its certificate's."""

    version: str
    issuer: str
    expires_in_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The way to ``peer``: the service's host, or the proxy in front of it (``proxied``).

    ``failed`` pairs addresses with why they cannot be reached; ``error`` is why there is no TLS.
    """

    peer: str
    proxied: bool = False
    addresses: tuple[str, ...] = ()
    why_no_address: str = ""
    connected: str = ""
    failed: tuple[tuple[str, str], ...] = ()
    plain: bool = False
    security: Security | None = None
    error: CtbatchError | None = None


def of_way(way: Way) -> tuple[Finding, ...]:
    """Findings for name, connection and TLS. With a proxy TLS is the first request's to find."""
    name = _of_name(way)
    if not way.addresses:
        why = f"{way.peer} has no address"
        return name, skipped(Step.TCP, why), skipped(Step.TLS, why)
    connection = _of_connection(way)
    if not way.connected:
        return name, connection, skipped(Step.TLS, f"{way.peer} cannot be reached")
    return (name, connection) if way.proxied else (name, connection, _of_tls(way))


def _of_name(way: Way) -> Finding:
    facts: dict[str, Fact] = {
        "peer": way.peer,
        "proxy": way.proxied,
        "addresses": ", ".join(way.addresses),
    }
    if way.addresses:
        text = f"{_whom(way)} is {' and '.join(way.addresses)}"
        return Finding(Step.DNS, Status.OK, text, facts=facts)
    remedies = (
        "look for a typing error in --proxy"
        if way.proxied
        else "look for a typing error in --region or --base-url",
        "have this machine's name service (DNS) look up public names",
        "where only a proxy may do that, name it with --proxy: proxy variables are not read",
    )
    text = f"{_whom(way)} has no address ({way.why_no_address})"
    return Finding(Step.DNS, Status.LOCAL, text, remedies, facts)


def _of_connection(way: Way) -> Finding:
    failed = "; ".join(f"{address}: {why}" for address, why in way.failed)
    facts: dict[str, Fact] = {"address": way.connected, "unreachable": failed}
    if way.connected:
        text = f"{way.connected} takes connections"
        if failed:
            text += f" (not so {failed})"
        return Finding(Step.TCP, Status.OK, text, facts=facts)
    remedies = (
        "allow outgoing connections from this machine to that host and port in the firewall",
        "where they have to go through a proxy, name it with --proxy: proxy variables are not read",
        "look for a wrong host or port in --proxy or --base-url",
    )
    return Finding(Step.TCP, Status.LOCAL, f"no connection to {failed}", remedies, facts)


def _of_tls(way: Way) -> Finding:
    if way.error is not None:
        found = failure(Step.TLS, way.error)
        return found if found.remedies else replace(found, remedies=_NO_TLS)
    if way.plain:
        text = "none: the connection does not leave this machine"
        return Finding(Step.TLS, Status.OK, text, facts={"version": None})
    assert way.security is not None, "TLS is there, or an error, or it was not asked for"
    shown = way.security
    text = f"{shown.version}, the certificate is valid"
    if shown.issuer:
        text += f", issued by {shown.issuer}"
    if shown.expires_in_s is not None:
        text += f", for {shown.expires_in_s / 86_400:.0f} more days"
        if shown.expires_in_s < _EXPIRES_SOON_S:
            text += ": whoever runs the host has to renew it soon"
    facts: dict[str, Fact] = {
        "version": shown.version,
        "issuer": shown.issuer,
        "expires_in_s": None if shown.expires_in_s is None else round(shown.expires_in_s),
    }
    return Finding(Step.TLS, Status.OK, text, facts=facts)


_NO_TLS = (
    "look for a wrong host or port in --base-url: it has to be one that speaks TLS 1.2 or newer",
    "have whoever runs the firewall or gateway in between let TLS pass",
)


def of_broken(step: Step, error: CtbatchError) -> Finding:
    """The finding for a request that ended in an error. Once it went out whole, it is for the
    service to answer it.
    """
    status = Status.REMOTE if isinstance(error, ReplyLost) else Status.LOCAL
    found = failure(step, error, status)
    if found.remedies or not isinstance(error, TransportError):
        return found
    late = error.result in {"timeout", "connect_timeout"}
    return replace(found, remedies=_LATE if late else _CUT)


_LATE = (
    "try again in a minute, and with a longer --timeout",
    "have whoever runs the firewall or proxy in between let requests to that host pass: some "
    "swallow what they do not like",
    "if it stays so, ask the vendor's support whether the service is slow",
)

_CUT = (
    "try again in a minute: a service that is being restarted cuts connections",
    "have whoever runs the firewall, VPN or proxy in between let connections to that host stand",
    "if it stays so, ask the vendor's support",
)


def of_clock(skew_s: float | None) -> Finding:
    """The finding for the service's clock minus ours; ``None``: no reply had a ``Date``."""
    if skew_s is None:
        return skipped(Step.CLOCK, "no reply told the time")
    facts = {"skew_s": round(skew_s, 1)}
    apart = f"{abs(skew_s):,.0f} s {'behind' if skew_s > 0 else 'ahead of'} the service's"
    if abs(skew_s) <= MAX_SKEW_S:
        text = "right to the second" if abs(skew_s) < 2 else f"{apart}, which does no harm"
        return Finding(Step.CLOCK, Status.OK, text, facts=facts)
    remedies = (
        "set this machine's clock (NTP): certificates are checked against it, and events stamped "
        "by it would be out of their time",
    )
    text = f"this machine's clock is {apart}"
    return Finding(Step.CLOCK, Status.LOCAL, text, remedies, facts)


def of_credentials(answers: Sequence[Answer], host: str) -> Finding:
    """The finding for account id, passcode and region, from the answers to at least one request.

    One yes is enough: what refused the other requests was something else.
    """
    facts = {"host": host, "statuses": ", ".join(str(answer.status) for answer in answers)}
    if any(answer.kind is Kind.ACCEPTED for answer in answers):
        text = f"account id and passcode are accepted at {host}"
        return Finding(Step.CREDENTIALS, Status.OK, text, facts=facts)
    worst = min(answers, key=lambda answer: _TELLING.index(answer.kind))
    if worst.kind is Kind.REFUSED and worst.status in {400, 415}:
        # The vendor's errors for wrong credentials are 401s: "API Errors" page.
        text = f"{host} did not object to account id and passcode (it says 401 to wrong ones)"
        return Finding(Step.CREDENTIALS, Status.OK, text, facts=facts)
    if worst.kind is Kind.BUSY or worst.status >= 500:
        return Finding(Step.CREDENTIALS, Status.REMOTE, worst.told(), _TRY_AGAIN, facts)
    causes = explain_status(worst.status, "").causes
    if worst.kind is Kind.UNAUTHORISED:
        # The status may be a 200 with the code 401 in the body.
        causes = (*_hint(worst.words), *explain_status(401, "").causes)
    return Finding(Step.CREDENTIALS, Status.REMOTE, worst.told(), causes, facts)


_TELLING = (Kind.ACCEPTED, Kind.UNAUTHORISED, Kind.REFUSED, Kind.FOREIGN, Kind.BUSY)

_TRY_AGAIN = (
    "try again in a minute: the service, or something else that uses the account's few calls at a "
    "time, is busy",
    "if it stays so, ask the vendor's support",
)


def _hint(words: str) -> tuple[str, ...]:
    """What recorded words of 401 replies point to."""
    said = words.lower()
    if "passcode" in said:
        return ("it names the passcode: copy it again from the dashboard's settings page",)
    if "digit" in said:
        return ("it takes the account id for incomplete: copy it with its hyphens",)
    if "account" in said:
        return ("it does not know the account id: look for a typing error, then at the region",)
    return ()


def of_encryption(plain: Answer, reply: Answer, query: Answer | None) -> Finding:
    """The finding for the state of encryption, from the answers to a plain look-up, one that asks
    for a sealed reply, and a sealed query (``None``: not made).
    """
    facts = _combination(plain, reply, query)
    plaintext = f"plaintext is {facts['plaintext']}"
    if _seals(reply) or (query is not None and _seals(query)):
        if plain.kind is not Kind.ACCEPTED and plain.kind is not Kind.BUSY:
            plaintext += " (enforcement mode)"
        text = f"{_observed(reply, query)}: encryption is enabled for this account; {plaintext}"
        return Finding(Step.ENCRYPTION, Status.OK, text, facts=facts)
    if plain.kind is Kind.UNAUTHORISED is reply.kind:
        return skipped(Step.ENCRYPTION, "the credentials are refused")
    if Kind.BUSY in {plain.kind, reply.kind}:
        busy = reply if reply.kind is Kind.BUSY else plain
        text = f"cannot be told: {busy.told()}"
        return Finding(Step.ENCRYPTION, Status.REMOTE, text, _TRY_AGAIN, facts)
    off = explain(headers=True, sealed=True, succeeded=False)
    if reply.kind is Kind.ACCEPTED:  # in the clear
        means = "encryption is not enabled for this account (asked for a sealed reply, it gave a"
        means += " plain one)"
    elif plain.kind is Kind.ACCEPTED:
        means = f"encryption is not enabled for this account (to a sealed look-up {reply.told()})"
    else:
        means = f"every form is refused, so the state cannot be told ({reply.told()})"
    text = f"{_observed(reply, query)}: {means}; {plaintext}"
    remedies = (off.remedies[0], _OUR_PUBLIC_KEY, off.remedies[-1])
    return Finding(Step.ENCRYPTION, Status.REMOTE, text, remedies, facts)


_OUR_PUBLIC_KEY = (
    "if it is enabled: upload your public keyset in the dashboard, the service cannot seal to you "
    "without it"
)


def _seals(answer: Answer) -> bool:
    return answer.is_sealed and answer.kind is Kind.ACCEPTED


def _observed(reply: Answer, query: Answer | None) -> str:
    """The combination that decided, in the words of the vendor's table: headers, body, result."""
    if query is None or (_seals(reply) and not _seals(query)):
        return f"headers sent, no body to seal, {'success' if _seals(reply) else 'fail'}"
    return f"headers sent, body sealed, {'success' if _seals(query) else 'fail'}"


def _combination(plain: Answer, reply: Answer, query: Answer | None) -> dict[str, Fact]:
    """What was observed, in the columns of the vendor's table."""
    succeeded = _seals(reply) if query is None else _seals(query)
    on = _seals(reply) or succeeded
    possible = features(headers=True, sealed=True, succeeded=on)
    # A refusal is one of encryption only where another form was accepted, and nobody was busy.
    telling = on or (
        Kind.BUSY not in {plain.kind, reply.kind} and Kind.ACCEPTED in {plain.kind, reply.kind}
    )
    feature = {True: "on", False: "off"}[True in possible] if telling else "unknown"
    # Of a plain look-up that nobody answered, nothing can be said.
    plaintext = {Kind.ACCEPTED: "accepted", Kind.BUSY: "not told"}.get(plain.kind, "refused")
    return {
        "headers_sent": True,
        "feature": feature,
        "request_sealed": query is not None,
        "result": "success" if succeeded else "fail",
        "plaintext": plaintext,
    }


def of_round_trip(query: Answer, reply: Answer) -> Finding:
    """The finding for the sealed query, in the light of a look-up whose ``reply`` was to be sealed.

    A sealed answer that opens proves our private key; that our request was opened is proved by
    success, by a query's own failure, or by words that repeat what stood in it.
    """
    facts: dict[str, Fact] = {"status": query.status, "code": query.code, "form": query.form.value}
    if query.form is Form.SEALED and query.kind is Kind.ACCEPTED and query.status < 300:
        return _of_opened(query, facts)
    if query.kind is Kind.BUSY:
        return Finding(Step.ROUND_TRIP, Status.REMOTE, query.told(), _TRY_AGAIN, facts)
    if query.kind is Kind.ACCEPTED and query.form is Form.UNOPENED:
        text = f"the service took the query, but its sealed answer does not open: {query.why}"
        return Finding(Step.ROUND_TRIP, Status.REMOTE, text, _SHUT, facts)
    if query.kind is Kind.ACCEPTED and query.status < 300:
        text = "the service answered a sealed query in the clear"
        remedies = explain(headers=True, sealed=True, succeeded=False).remedies
        return Finding(Step.ROUND_TRIP, Status.REMOTE, text, remedies, facts)
    if query.status in {404, 405}:
        causes = explain_status(query.status, "").causes
        return Finding(Step.ROUND_TRIP, Status.REMOTE, query.told(), causes, facts)
    return _of_refused(query, reply, facts)


_SHUT = (
    "--client-key does not belong to the public key that the service has of you: upload your "
    "public keyset in the dashboard, or name the private keyset that belongs to it",
    "the account id is not the HPKE context of this account: ask the vendor (--hpke-info)",
)


def _of_opened(query: Answer, facts: dict[str, Fact]) -> Finding:
    """The answer opens; whether the service opened the question shows in what it says."""
    about = query.repeated or "invalid event" in query.words.lower() or query.code in _QUERY_CODES
    if query.said == "success" or about:
        text = "a sealed query went there and its sealed answer came back and opened"
        if query.said != "success":
            text += f" ({query.told()}, which is an answer to what was sealed)"
        return Finding(Step.ROUND_TRIP, Status.OK, text, facts=facts)
    text = f"the sealed answer opens, but whether the query did cannot be told: {query.told()}"
    refused = explain(headers=True, sealed=True, succeeded=False)
    return Finding(Step.ROUND_TRIP, Status.REMOTE, text, refused.remedies[1:], facts)


def _of_refused(query: Answer, reply: Answer, facts: dict[str, Fact]) -> Finding:
    """Refused: with encryption known to be on, it is about the keys."""
    if not _seals(reply):
        text = f"{query.told()}: a consequence of the state of encryption, see above"
        return Finding(Step.ROUND_TRIP, Status.REMOTE, text, facts=facts)
    refused = explain(headers=True, sealed=True, succeeded=False)
    _, server_key, info, gateway = refused.remedies
    text = f"{query.told()}: encryption is enabled, but the service cannot open what we seal"
    # Both directions broken at once have one common cause: the context.
    keys = (info, server_key) if reply.form is Form.UNOPENED else (server_key, info)
    return Finding(Step.ROUND_TRIP, Status.REMOTE, text, (*keys, gateway), facts)


def _whom(way: Way) -> str:
    return f"the proxy {way.peer}" if way.proxied else way.peer
