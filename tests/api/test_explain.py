"""Why the service refuses us is said with causes and remedies, and without blaming a record."""

from __future__ import annotations

import pytest

from ctbatch.api.explain import explain_refusal, explain_status, explain_unopened
from ctbatch.errors import ExitCode, ServiceRefused


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "--region"),
        (401, "passcode"),
        (403, "not allowed"),
        (403, "encryption is not enabled"),
        (404, "--base-url"),
        (405, "--base-url"),
        (407, "proxy"),
        (415, "encryption is not enabled"),
        (302, "not the API"),
    ],
)
def test_a_status_names_its_remedies(status: int, remedy: str) -> None:
    """Every status that stops a run says what to look at."""
    error = explain_status(status, "")
    assert str(status) in error.what
    assert remedy in str(error)
    assert error.exit_code is ExitCode.REFUSED


def test_what_the_service_said_is_quoted() -> None:
    """Its (cleaned) words stand in the message; where it said nothing, no empty quotes do."""
    assert 'said "Passcode Invalid"' in str(explain_status(401, "Passcode Invalid"))
    assert 'said "Malformed"' in str(explain_refusal("Malformed", sealed=True))
    assert '"' not in explain_status(401, "").what + explain_refusal("", sealed=True).what


def test_a_refused_sealed_run_is_explained_by_the_vendors_table() -> None:
    """The feature, the server's key, the account id as HPKE context; and no record is blamed."""
    error = explain_refusal("no", sealed=True)
    for part in ("not enabled", "--server-key", "--account-id", "no record is blamed"):
        assert part in str(error)


def test_words_about_decryption_put_the_server_key_first() -> None:
    """Who tries to decrypt has the feature; which key it would need is the question."""
    assert "--server-key" in explain_refusal("Could not Decrypt it", sealed=True).causes[0]
    assert len(set(explain_refusal("decrypt", sealed=True).causes)) == 4


def test_a_refused_plain_run_is_told_of_enforcement() -> None:
    """An account may take sealed requests only."""
    error = explain_refusal("no", sealed=False)
    assert "enforcement" in error.causes[0]
    assert "--server-key" not in str(error)


@pytest.mark.parametrize(("sealed", "remedy"), [(True, "--client-key"), (False, "--base-url")])
def test_unreadable_answers_name_the_key_or_the_address(sealed: bool, remedy: str) -> None:
    """Sealed: ours is the key that has to fit. Plain: it is not the API."""
    error = explain_unopened(3, sealed=sealed)
    assert isinstance(error, ServiceRefused)
    assert remedy in error.causes[0]
