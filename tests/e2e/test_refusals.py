"""When the service refuses: one record, one batch, or us as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctbatch.crypto import keyset
from tests.e2e.command import Desk, Ended, until
from tests.e2e.people import counter, event, identities, profile, profiles
from tests.e2e.service import Service

POISON = profile("poisoned", poison=1)


def _refused_as_a_whole(ended: Ended, service: Service, *words: str, requests: int = 8) -> None:
    """Exit 5 with an explanation, after a handful of requests, nobody blamed, resumable."""
    assert ended.code == 5, ended.err
    assert ended.report["state"] == "refused"
    for word in words:
        assert word in ended.err, ended.err
    assert len(service.requests()) <= requests
    assert ended.report["lines"]["unprocessed"] == ended.report["lines"]["unknown"] == 0
    assert ended.report["resume"] in ended.err


def _resumes(desk: Desk, ended: Ended, service: Service, count: int) -> None:
    """Once mended, the printed command ends the job."""
    resumed = desk.ctbatch(*ended.resume_command, "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.report["lines"]["processed"] == count
    assert sorted(set(service.identities())) == sorted(identities(count))


def _other_key(path: Path, *, public: bool) -> Path:
    made = keyset.generate()
    path.write_bytes(keyset.to_json(made.public() if public else made))
    path.chmod(0o600)
    return path


def test_a_wrong_passcode(desk: Desk, service: Service) -> None:
    """401: one request, exit 5, the passcode is named as the cause and never shown."""
    users = desk.write("users.ndjson", *profiles(300))
    ended = desk.upload(users, env={"CLEVERTAP_PASSCODE": "not-the-passcode"})
    _refused_as_a_whole(ended, service, "passcode", requests=1)
    assert "not-the-passcode" not in ended.err
    _resumes(desk, ended, service, 300)


def test_a_wrong_account(desk: Desk, service: Service) -> None:
    """The account id is the seal's info too: exit 5 after a handful of requests."""
    users = desk.write("users.ndjson", *profiles(100))
    ended = desk.upload(users, "--account-id", "OTHER-1")
    _refused_as_a_whole(ended, service, "account", requests=1)


def test_a_wrong_server_key(desk: Desk, service: Service) -> None:
    """Sealed for somebody else: the service cannot open it, exit 5, keys named as the cause."""
    users = desk.write("users.ndjson", *profiles(300))
    wrong = _other_key(desk.cwd / "wrong.json", public=True)
    ended = desk.upload(users, env={"CTBATCH_SERVER_KEY": str(wrong)})
    _refused_as_a_whole(ended, service, "key")
    assert service.records() == []
    _resumes(desk, ended, service, 300)


def test_a_wrong_client_key(desk: Desk, service: Service) -> None:
    """Replies that do not open: exit 5; what was sent may have arrived, and resume settles it."""
    users = desk.write("users.ndjson", *profiles(50))
    wrong = _other_key(desk.cwd / "wrong.json", public=False)
    ended = desk.upload(users, env={"CTBATCH_CLIENT_KEY": str(wrong)})
    _refused_as_a_whole(ended, service, "key")
    assert ended.report["lines"]["maybe_sent"] == 50
    _resumes(desk, ended, service, 50)


def test_a_redirect_is_not_followed(desk: Desk, service: Service) -> None:
    """A redirect: exit 5 after one request."""
    service.configure(faults=["redirect"])
    ended = desk.upload(desk.write("users.ndjson", *profiles(5)))
    _refused_as_a_whole(ended, service, "redirect", requests=1)


def test_encryption_switched_off_in_mid_run_blames_nobody(desk: Desk, service: Service) -> None:
    """From one moment on every batch is refused: exit 5, no line is unprocessed, resumable."""
    service.configure(latency_s=0.05)
    users = desk.write("users.ndjson", *profiles(600))
    args = ("--batch-size", 10, "--concurrency", 2, "--json", "--run-dir", "run")
    started = desk.start("run", users, *args)
    started.until("a few answers", lambda: len(service.requests()) >= 5)
    service.configure(feature=False)
    ended = started.ended()
    service.configure(latency_s=0)
    _refused_as_a_whole(ended, service, "encryption", requests=60)
    service.configure(feature=True)
    _resumes(desk, ended, service, 600)


def test_one_poisoned_record_is_found_and_blamed(desk: Desk, service: Service) -> None:
    """A batch refused because of one record: that one is unprocessed, all others processed."""
    service.configure(faults=["poison"])
    lines = profiles(400)
    lines[222] = POISON
    ended = desk.upload(desk.write("users.ndjson", *lines), "--batch-size", 100)
    assert ended.code == 3, ended.err
    assert desk.run.lines("rejected") == [POISON]
    assert desk.run.places("rejected")[0][:2] == (223, "unprocessed")
    assert ended.report["lines"]["processed"] == 399
    assert ended.report["batches"]["isolated"] == 1
    assert len(service.identities()) == len(set(service.identities())) == 399


def test_poison_in_the_first_batch_does_not_stop_the_run(desk: Desk, service: Service) -> None:
    """The canary holds the culprit: three records sent alone show that the service is well."""
    service.configure(faults=["poison"])
    lines = profiles(60)
    lines[0] = POISON
    ended = desk.upload(desk.write("users.ndjson", *lines), "--batch-size", 20)
    assert ended.code == 3, ended.err
    assert desk.run.lines("rejected") == [POISON]
    assert ended.report["lines"]["processed"] == 59


def test_a_body_that_is_too_large_is_halved(desk: Desk, service: Service) -> None:
    """413: halves until they pass; a single record that does not is unprocessed."""
    service.configure(max_body_bytes=2000)
    lines = [*profiles(100), profile("huge", **{f"k{n}": "v" * 400 for n in range(8)})]
    ended = desk.upload(desk.write("users.ndjson", *lines))
    assert ended.code == 3, ended.err
    assert [place[:2] for place in desk.run.places("rejected")] == [(101, "unprocessed")]
    assert ended.report["lines"]["processed"] == 100
    assert sorted(service.identities()) == sorted(identities(100))


def test_code_555_is_tried_again_in_order(desk: Desk, service: Service) -> None:
    """A passing error of one record: sent again with the later ones of the same person; what must
    not be repeated is left alone.
    """
    service.configure(faults=["555=0.3"])
    lines = [profile(name, Step=step) for step in range(3) for name in identities(20)]
    ended = desk.upload(desk.write("users.ndjson", *lines))
    assert ended.code == 0, ended.err
    last = {record["identity"]: record["profileData"]["Step"] for record in service.records()}
    assert last == dict.fromkeys(identities(20), 2)
    service.configure(faults=["555"])
    held = desk.ctbatch(
        "run", desk.write("e.ndjson", event("e1"), event("e2")), "--json", "--run-dir", "held"
    )
    assert held.code == 3
    assert held.report["reasons"][0]["code"] == 555
    assert held.report["lines"]["unprocessed"] == 2


@pytest.mark.parametrize(
    "fault",
    [
        "reset-stored",
        "truncated",
        pytest.param("500-stored", marks=pytest.mark.slow),
        pytest.param("reset-mid", marks=pytest.mark.slow),
        pytest.param("counts", marks=pytest.mark.slow),
    ],
)
def test_what_may_have_been_stored_follows_the_policy(
    desk: Desk, service: Service, fault: str
) -> None:
    """An answer that cannot be believed: what only sets values is sent again; a counter in the
    same batch is unknown, listed, and was stored once at most.
    """
    service.configure(faults=[f"{fault}=only-2"])
    lines = [*profiles(10, "first"), *profiles(9), counter("count")]
    ended = desk.upload(desk.write("users.ndjson", *lines), "--batch-size", 10, "--concurrency", 1)
    assert ended.code == 3, ended.err
    assert desk.run.lines("unknown") == [counter("count")]
    assert desk.run.places("unknown") == [(20, "unknown", None)]
    assert ended.report["lines"]["processed"] == 19
    assert service.identities().count("count") == 1
    assert set(identities(9)) <= set(service.identities())


@pytest.mark.slow
def test_on_ambiguous_resend_and_hold(desk: Desk, service: Service) -> None:
    """``resend`` repeats even a counter; ``hold`` repeats not even a plain profile."""
    users = desk.write("users.ndjson", profile("a"), profile("b"), counter("c"))
    for policy, unknown, code in (("resend", 0, 0), ("hold", 1, 3)):
        service.configure(faults=[])  # so that requests are numbered from 1 again
        service.configure(faults=["reset-stored=only-2"])
        ended = desk.ctbatch(
            *("run", users, "--batch-size", 1, "--concurrency", 1, "--on-ambiguous", policy),
            *("--json", "--run-dir", policy),
        )
        assert ended.code == code, ended.err
        assert ended.report["lines"]["unknown"] == unknown


def test_throttling_and_short_outages_are_ridden_out(desk: Desk, service: Service) -> None:
    """429, 503, resets before the body and closed connections: everything is stored once."""
    service.configure(
        faults=["429=0.1", "503-json=0.05", "reset=0.05", "close=0.2"], retry_after="0"
    )
    ended = desk.upload(
        desk.write("users.ndjson", *profiles(120)), "--batch-size", 5, "--concurrency", 4
    )
    assert ended.code == 0, ended.err
    assert ended.report["attempts"]["retries"] > 0
    assert sorted(service.identities()) == sorted(identities(120))


def test_an_outage_stops_the_run_resumably(desk: Desk, service: Service) -> None:
    """Nothing believed for --give-up-after: exit 4, the file is not burnt, resume ends the job."""
    service.configure(faults=["502=after-2"])
    users = desk.write("users.ndjson", *[counter(name) for name in identities(200)])
    ended = desk.upload(users, "--batch-size", 5, "--concurrency", 2, "--give-up-after", 1)
    assert ended.code == 4, ended.err
    assert ended.report["state"] == "stopped"
    counts = ended.report["lines"]
    assert counts["processed"] == 10
    # Two batches, the third failure that showed the outage, and one record per back-off.
    assert 0 < counts["unknown"] <= 30
    service.configure(faults=[])
    resumed = desk.ctbatch(*ended.resume_command, "--json")
    assert resumed.code == 3
    assert resumed.report["lines"]["unknown"] == counts["unknown"]
    assert resumed.report["lines"]["processed"] == 200 - counts["unknown"]


@pytest.mark.slow
def test_an_unreachable_host_is_tried_for_30_s(desk: Desk) -> None:
    """Nobody listens: exit 4 after 30 s, resumable, every line unsent."""
    users = desk.write("users.ndjson", *profiles(10))
    started = desk.start(
        "run", users, "--base-url", "http://127.0.0.1:9", "--json", "--run-dir", "run",
        env={"CLEVERTAP_BASE_URL": None},
    )  # fmt: skip
    until("the end", started.is_over, deadline_s=50)
    ended = started.ended()
    assert ended.code == 4
    assert 29 < ended.report["elapsed_s"] < 45
    assert ended.report["lines"]["unsent"] == 10
    assert ended.report["lines"]["maybe_sent"] == 0
    assert "127.0.0.1:9 refused the connection" in ended.err
