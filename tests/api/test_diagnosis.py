"""Observations become findings that name the remedy; the most telling observation wins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ctbatch.api.answers import Answer, Form, Kind, read_answer
from ctbatch.api.diagnosis import (
    MAX_SKEW_S,
    Security,
    Way,
    of_broken,
    of_clock,
    of_credentials,
    of_encryption,
    of_round_trip,
    of_way,
)
from ctbatch.api.findings import Finding, Status, Step, exit_code_of, failure, skipped
from ctbatch.api.transport import Reply
from ctbatch.crypto.hpke import OpeningKeys, SealingKey
from ctbatch.crypto.keyset import generate
from ctbatch.errors import (
    CtbatchError,
    ExitCode,
    KeysetError,
    KeyUnsupportedError,
    NotSent,
    ReplyLost,
    ServiceRefused,
)

YES = Answer(200, Form.JSON, said="success")
SEALED = Answer(200, Form.SEALED, said="success")
SHUT = Answer(200, Form.UNOPENED, why="another key")
NO = Answer(400, Form.JSON, said="fail", code=400)
NO_401 = Answer(401, Form.JSON, said="fail", code=401, words="Passcode Invalid")
BUSY = Answer(429, Form.JSON, said="fail", code=429)
HTML_403 = Answer(403, Form.OTHER)


def remedies(finding: Finding) -> str:
    """All remedies as one text."""
    return " | ".join(finding.remedies)


# Findings


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([], 0),
        ([Status.OK, Status.SKIPPED], 0),
        ([Status.OK, Status.REMOTE], 5),
        ([Status.REMOTE, Status.LOCAL], 2),
    ],
)
def test_the_exit_code_says_where_to_begin(statuses: list[Status], code: int) -> None:
    """What is to be mended here comes first, for the service's no may be its consequence."""
    found = [Finding(Step.TCP, status, "") for status in statuses]
    assert exit_code_of(found) is ExitCode(code)


def test_an_errors_remedy_is_told_apart_from_what_is_wrong() -> None:
    """Programs get the remedy in a list, whatever kind of error it was."""
    found = failure(Step.KEYS, KeysetError("k.json", "is empty", "copy it again"), key="server key")
    assert (found.text, found.remedies) == ("k.json: is empty", ("copy it again",))
    assert found.facts == {"key": "server key"}
    found = failure(Step.TLS, ServiceRefused("no", ("a", "b")))
    assert (found.text, found.remedies) == ("no", ("a", "b"))
    found = failure(Step.KEYS, KeyUnsupportedError("k.json", "P-256", key_id=7))
    assert "key 7" in found.text
    assert failure(Step.TCP, NotSent("reset", "it broke")).status is Status.LOCAL


@pytest.mark.parametrize(
    ("error", "status", "remedy"),
    [
        (ReplyLost("timeout", "h did not answer in time"), Status.REMOTE, "--timeout"),
        (NotSent("connect_timeout", "no connection to h in time"), Status.LOCAL, "--timeout"),
        (ReplyLost("reset", "the connection to h broke"), Status.REMOTE, "firewall"),
        (NotSent("proxy", "p did not open a tunnel to h"), Status.LOCAL, "proxy"),
        (ServiceRefused("no", ("because",)), Status.LOCAL, "because"),
    ],
)
def test_a_request_that_broke_has_its_remedies(
    error: CtbatchError, status: Status, remedy: str
) -> None:
    """What broke on the way there is mended here; what got no answer may be the service's."""
    found = of_broken(Step.CREDENTIALS, error)
    assert found.status is status
    assert remedy in remedies(found)


# Answers


def reply(status: int, body: bytes, content_type: str = "application/json") -> Reply:
    """A reply as the transport gives it."""
    return Reply(status, {}, body, 0.1, content_type)


def test_every_body_has_a_form() -> None:
    """Sealed, shut, JSON or anything else; with the private key at hand or not."""
    ours, foreign = generate(), generate()
    opening = OpeningKeys(ours, b"A")
    sealed = SealingKey(ours.public(), b"A").seal(b'{"status":"success"}')
    shut = SealingKey(foreign.public(), b"A").seal(b"{}")
    assert read_answer(reply(200, sealed), opening) == SEALED
    found = read_answer(reply(200, shut), opening)
    assert found.form is Form.UNOPENED
    assert "not in the keyset" in found.why
    assert read_answer(reply(200, b'{"status":"success"}'), opening) == YES
    assert read_answer(reply(200, b"<html>"), opening).form is Form.OTHER
    latin_1 = "<html><title>Gesch\xe4ftlich nur mit Anmeldung</title></html>".encode("latin-1")
    assert read_answer(reply(200, latin_1, "text/html"), opening).form is Form.OTHER
    assert read_answer(reply(200, b"[1]"), None).form is Form.OTHER
    assert read_answer(reply(200, b"{}"), None) == Answer(200, Form.JSON)
    unkeyed = read_answer(reply(200, sealed, "application/octet-stream+hpke"), None)
    assert unkeyed.form is Form.UNOPENED


def test_the_services_words_lose_the_credentials() -> None:
    """Should the service repeat account id or passcode, nobody reads them here."""
    body = b'{"status":"fail","code":401,"error":"TEST-1 with hunter2-hunter2 x@example.com"}'
    found = read_answer(reply(401, body), None, secrets=("TEST-1", "hunter2-hunter2"))
    assert found.told() == 'the service answered 401 and said "… with … …"'
    assert "hunter2" not in repr(found)
    odd = read_answer(reply(401, b'{"status":1,"code":"x","error":[]}'), None)
    assert odd == Answer(401, Form.JSON)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (YES, Kind.ACCEPTED),
        (replace(NO, status=404, code=404), Kind.ACCEPTED),
        (Answer(404, Form.OTHER), Kind.FOREIGN),
        (replace(NO_401, status=200), Kind.UNAUTHORISED),
        (replace(NO, status=200), Kind.ACCEPTED),
        (replace(NO, status=200, code=403), Kind.REFUSED),
        (replace(NO, status=200, code=503), Kind.BUSY),
        (Answer(503, Form.OTHER), Kind.BUSY),
        (Answer(500, Form.JSON), Kind.REFUSED),
        (SHUT, Kind.ACCEPTED),
    ],
)
def test_what_an_answer_is(answer: Answer, kind: Kind) -> None:
    """A 404 of the API's own is the answer to a look-up of nobody; a 200 may carry an error."""
    assert answer.kind is kind


# The way


def test_a_name_without_an_address_ends_the_way() -> None:
    """Nothing behind it is tried; the remedy names the option that the name came from."""
    name, connection, tls = of_way(Way(peer="x.invalid", why_no_address="unknown"))
    assert name.status is Status.LOCAL
    assert "--region" in remedies(name)
    assert {connection.status, tls.status} == {Status.SKIPPED}
    name, *_ = of_way(Way(peer="x.invalid", proxied=True, why_no_address="unknown"))
    assert "--proxy" in name.remedies[0]
    assert "the proxy x.invalid" in name.text


def test_no_connection_names_each_address_and_why() -> None:
    """Whoever runs the firewall needs addresses and ports."""
    failed = (("192.0.2.1:443", "no answer"), ("[2001:db8::1]:443", "Connection refused"))
    way = Way(peer="h", addresses=("192.0.2.1", "2001:db8::1"), failed=failed)
    _, connection, tls = of_way(way)
    assert connection.text == (
        "no connection to 192.0.2.1:443: no answer; [2001:db8::1]:443: Connection refused"
    )
    assert "firewall" in connection.remedies[0]
    assert tls.status is Status.SKIPPED


def test_one_address_that_takes_connections_is_enough() -> None:
    """The others are named, for they cost time."""
    way = Way(
        peer="h",
        addresses=("a", "b"),
        connected="b:80",
        failed=(("a:80", "no answer"),),
        plain=True,
    )
    _, connection, tls = of_way(way)
    assert connection.status is Status.OK
    assert "not so a:80: no answer" in connection.text
    assert "does not leave this machine" in tls.text


def test_a_verified_certificate_is_shown_with_its_rest_of_life() -> None:
    """One that expires within days is pointed out before it stops a run."""
    way = Way(peer="h", addresses=("a",), connected="a:443")
    *_, tls = of_way(replace(way, security=Security("TLSv1.3", "A CA", 90 * 86_400.0)))
    assert tls.text == "TLSv1.3, the certificate is valid, issued by A CA, for 90 more days"
    *_, tls = of_way(replace(way, security=Security("TLSv1.3", "", 2 * 86_400.0)))
    assert tls.status is Status.OK
    assert "renew it soon" in tls.text
    *_, tls = of_way(replace(way, security=Security("TLSv1.3", "", None)))
    assert tls.text == "TLSv1.3, the certificate is valid"


def test_a_failed_handshake_has_a_remedy_even_where_openssl_has_none() -> None:
    """A distrusted certificate brings its own."""
    way = Way(peer="h", addresses=("a",), connected="a:443")
    *_, tls = of_way(replace(way, error=NotSent("tls", "TLS with h failed")))
    assert tls.status is Status.LOCAL
    assert "TLS 1.2" in remedies(tls)
    *_, tls = of_way(replace(way, error=ServiceRefused("not valid", ("pass --ca-file",))))
    assert tls.remedies == ("pass --ca-file",)


def test_behind_a_proxy_tls_is_left_to_the_first_request() -> None:
    """The tunnel is the proxy's to open."""
    found = of_way(Way(peer="p", proxied=True, addresses=("a",), connected="a:3128"))
    assert [finding.step for finding in found] == [Step.DNS, Step.TCP]


# The clock


@pytest.mark.parametrize(
    ("skew_s", "status", "said"),
    [
        (None, Status.SKIPPED, "no reply told the time"),
        (0.4, Status.OK, "right to the second"),
        (-30.0, Status.OK, "30 s ahead of"),
        (MAX_SKEW_S, Status.OK, "120 s behind"),
        (MAX_SKEW_S + 1, Status.LOCAL, "clock is 121 s behind"),
        (-7200.0, Status.LOCAL, "clock is 7,200 s ahead of"),
    ],
)
def test_a_clock_is_wrong_where_events_would_be(
    skew_s: float | None, status: Status, said: str
) -> None:
    """The bound is the vendor's for event times in its future."""
    found = of_clock(skew_s)
    assert (found.status, said in found.text) == (status, True)
    assert ("NTP" in remedies(found)) == (status is Status.LOCAL)


# Credentials


@pytest.mark.parametrize("answers", [[YES, NO, NO], [NO_401, SEALED, SEALED], [NO, SHUT]])
def test_one_yes_proves_the_credentials(answers: list[Answer]) -> None:
    """Whatever refused the other requests, it was not who we are."""
    assert of_credentials(answers, "h").status is Status.OK


def test_a_400_is_no_objection_to_the_credentials() -> None:
    """Wrong ones are answered 401."""
    found = of_credentials([NO, NO], "h")
    assert found.status is Status.OK
    assert "did not object" in found.text


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("Passcode Invalid", "passcode"),
        ("Account ID is not valid", "does not know the account id"),
        ("12 digit account ID mandatory", "incomplete"),
        ("Invalid Credentials", "the account id or the passcode is wrong"),
    ],
)
def test_a_401_names_region_and_passcode_and_begins_with_what_it_points_to(
    words: str, first: str
) -> None:
    """The wrong region is answered 401, too, so it is always among the causes."""
    found = of_credentials([replace(NO_401, words=words), HTML_403], "h")
    assert found.status is Status.REMOTE
    assert words in found.text
    assert first in found.remedies[0]
    assert "--region" in remedies(found)


def test_what_is_no_refusal_of_credentials_is_not_called_one() -> None:
    """A busy service, a gateway's page, a server error: each has its own remedies."""
    assert "try again" in remedies(of_credentials([BUSY, BUSY], "h"))
    assert "try again" in remedies(of_credentials([Answer(500, Form.JSON)], "h"))
    assert "firewall" in remedies(of_credentials([HTML_403, BUSY], "h"))
    assert "--base-url" in remedies(of_credentials([Answer(404, Form.OTHER)], "h"))


# The state of encryption


@pytest.mark.parametrize(
    ("plain", "reply_", "query", "feature", "plaintext"),
    [
        (YES, SEALED, SEALED, "on", "accepted"),
        (YES, SEALED, NO, "on", "accepted"),
        (YES, SHUT, None, "on", "accepted"),
        (NO, SEALED, SEALED, "on", "refused"),
        (NO_401, SEALED, SEALED, "on", "refused"),
        (BUSY, SEALED, SEALED, "on", "not told"),
        (YES, YES, NO, "off", "accepted"),
        (YES, NO, NO, "off", "accepted"),
        (YES, NO_401, NO_401, "off", "accepted"),
        (YES, replace(SEALED, status=400, said="fail"), NO, "off", "accepted"),
        (NO, NO, NO, "unknown", "refused"),
        (YES, BUSY, NO, "unknown", "accepted"),
    ],
)
def test_the_state_follows_from_three_answers(
    plain: Answer, reply_: Answer, query: Answer | None, feature: str, plaintext: str
) -> None:
    """The table in the module, row by row; only a state known to be on is well."""
    found = of_encryption(plain, reply_, query)
    assert (found.facts["feature"], found.facts["plaintext"]) == (feature, plaintext)
    assert found.status is (Status.OK if feature == "on" else Status.REMOTE)
    assert bool(found.remedies) == (feature != "on")
    assert ("enforcement mode" in found.text) == (feature == "on" and plaintext == "refused")
    if feature == "off":
        assert "Customer Success Manager" in found.remedies[0]
        assert "encryption is not enabled for this account" in found.text


def test_the_observed_combination_is_named_in_the_tables_words() -> None:
    """Headers, body, result: what one quotes to the vendor."""
    text = of_encryption(YES, SEALED, SEALED).text
    assert text.startswith("headers sent, body sealed, success: encryption is enabled")
    assert of_encryption(YES, NO, NO).text.startswith("headers sent, body sealed, fail: ")
    assert of_encryption(YES, SEALED, NO).text.startswith("headers sent, no body to seal, success")
    assert of_encryption(YES, NO, None).text.startswith("headers sent, no body to seal, fail: ")


def test_refused_credentials_say_nothing_about_encryption() -> None:
    """One thing at a time."""
    assert of_encryption(NO_401, NO_401, None).status is Status.SKIPPED


# The round trip


@pytest.mark.parametrize(
    "answer",
    [
        SEALED,
        replace(SEALED, said="fail", code=400, repeated=True),
        replace(SEALED, said="fail", code=400, words="Invalid event"),
        replace(SEALED, said="fail", code=4002),
    ],
)
def test_an_answer_to_what_was_sealed_is_a_round_trip(answer: Answer) -> None:
    """A query may fail as a query: only who opened it can say so."""
    assert of_round_trip(answer, SEALED).status is Status.OK


@pytest.mark.parametrize(
    ("query", "reply_", "said", "first"),
    [
        (replace(SEALED, said="fail", code=400), SEALED, "cannot be told", "public keyset from"),
        (NO, SEALED, "cannot open what we seal", "--server-key may be an old one"),
        (replace(SEALED, status=400), SEALED, "cannot open what we seal", "--server-key"),
        (NO, SHUT, "cannot open what we seal", "HPKE context"),
        (NO_401, SEALED, "cannot open what we seal", "--server-key"),
        (SHUT, SHUT, "does not open: another key", "--client-key does not belong"),
        (YES, SEALED, "in the clear", "Customer Success Manager"),
        (BUSY, SEALED, "answered 429", "try again"),
        (replace(NO, status=404), SEALED, "answered 404", "--base-url"),
        (Answer(405, Form.OTHER), SEALED, "answered 405", "--base-url"),
    ],
)
def test_a_round_trip_that_fails_says_whose_key_it_is(
    query: Answer, reply_: Answer, said: str, first: str
) -> None:
    """The look-up has told what state encryption is in; what is left is one side's key, or the
    context where both directions are broken.
    """
    found = of_round_trip(query, reply_)
    assert found.status is Status.REMOTE
    assert said in found.text
    assert first in found.remedies[0]


def test_without_encryption_the_round_trip_has_no_remedy_of_its_own() -> None:
    """The finding about encryption has them."""
    found = of_round_trip(NO, NO)
    assert (found.status, found.remedies) == (Status.REMOTE, ())


def test_a_skipped_step_says_what_stood_in_its_way() -> None:
    """It is neither well nor wrong."""
    assert skipped(Step.TLS, "no").text == "not tried: no"
