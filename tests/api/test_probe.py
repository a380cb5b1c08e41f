"""A check against a service that runs: each step sees what is there, and nothing is changed."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from ctbatch.api.findings import Finding, Status, Step
from ctbatch.api.probe import EVENT_NAME, check, skew_of
from ctbatch.crypto.keyset import generate, to_json
from ctbatch.emulator.server import Emulator
from ctbatch.emulator.state import Config
from ctbatch.settings import Account, Endpoint, KeyFiles, Secret
from tests.api.raw_server import RawServer, Script, Talk, answer, relay

PASSCODE = Secret("hunter2-hunter2")
ACCOUNT = Account(id="TEST-1", passcode=PASSCODE)
JSON_401 = b'{"status":"fail","error":"Passcode Invalid","code":401}'


def account_of(emulator: Emulator) -> Account:
    """The account that the emulator serves."""
    return Account(id=emulator.account_id, passcode=emulator.passcode)


def keys_of(emulator: Emulator) -> KeyFiles:
    """The customer's keys."""
    return KeyFiles(server=emulator.server_key, client=emulator.client_key)


async def findings(emulator: Emulator, **changed: Any) -> list[Finding]:
    """What a check of the emulator's account finds."""
    given = {"account": account_of(emulator), "keys": keys_of(emulator)} | changed
    return await findings_at(emulator.base_url, **given)


async def findings_at(endpoint: Endpoint | str, **changed: Any) -> list[Finding]:
    """What a check of a service finds; without keys unless they are given."""
    told: list[Finding] = []
    if isinstance(endpoint, str):
        endpoint = Endpoint(base_url=endpoint)
    given: dict[str, Any] = {"account": ACCOUNT, "timeout_s": 5.0, "keys": None}
    await check(endpoint=endpoint, tell=told.append, **(given | changed))
    return told


def wrong(told: Sequence[Finding]) -> dict[Step, Status]:
    """The steps that are not well."""
    return {finding.step: finding.status for finding in told if finding.status is not Status.OK}


def step(told: Sequence[Finding], wanted: Step) -> Finding:
    """The one finding of a step."""
    (found,) = [finding for finding in told if finding.step is wanted]
    return found


async def test_a_service_in_order_is_found_in_order_and_left_as_it_was() -> None:
    """Every step is well; three requests were made, all of which only read, and one was sealed."""
    async with Emulator() as emulator:
        told = await findings(emulator)
        assert emulator.records() == []
        asked = [(call["method"], call["path"], call["sealed"]) for call in emulator.requests()]
    assert wrong(told) == {}
    assert list(dict.fromkeys(finding.step for finding in told)) == list(Step)[1:]
    assert asked == [
        ("GET", "/1/profile.json", False),
        ("GET", "/1/profile.json", True),
        ("POST", "/1/events.json", True),
    ]


async def test_a_query_that_is_taken_is_a_round_trip_too() -> None:
    """Where the event is known the answer is a cursor."""
    async with Emulator(Config(missing_profile_status=404)) as emulator:
        # The emulator knows an event once a user has it.
        record = {"type": "event", "identity": "u", "evtName": EVENT_NAME, "evtData": {}}
        emulator._service.store.uploads.append(_accepted(record))
        told = await findings(emulator)
        assert len(emulator.records()) == 1
    assert wrong(told) == {}
    assert step(told, Step.ROUND_TRIP).text.endswith("came back and opened")


def _accepted(record: dict[str, Any]) -> Any:
    import orjson  # noqa: PLC0415  # this helper's alone

    from ctbatch.emulator.state import Accepted  # noqa: PLC0415  # this helper's alone

    return Accepted(1, orjson.dumps({"d": [record]}))


@pytest.mark.parametrize("seal_errors", [False, True])
@pytest.mark.parametrize("status", [400, 401, 403, 415, 500])
async def test_an_account_without_encryption_is_told_to_ask_for_it(
    status: int, seal_errors: bool
) -> None:
    """Whatever the unpublished status is, and in whatever form it comes."""
    config = Config(feature=False, encryption_status=status, seal_errors=seal_errors)
    async with Emulator(config) as emulator:
        told = await findings(emulator)
    assert wrong(told) == {Step.ENCRYPTION: Status.REMOTE, Step.ROUND_TRIP: Status.REMOTE}
    assert "Customer Success Manager" in step(told, Step.ENCRYPTION).remedies[0]
    assert step(told, Step.ENCRYPTION).facts["feature"] == "off"


async def test_enforcement_is_well_and_pointed_out() -> None:
    """Refused plaintext is no fault."""
    async with Emulator(Config(enforce=True)) as emulator:
        told = await findings(emulator)
    assert wrong(told) == {}
    assert "enforcement mode" in step(told, Step.ENCRYPTION).text


async def test_a_wrong_passcode_is_tried_twice_and_never_shown() -> None:
    """Two 401s are enough; nothing sealed is sent after them."""
    async with Emulator() as emulator:
        account = replace(account_of(emulator), passcode=PASSCODE)
        told = await findings(emulator, account=account)
        assert len(emulator.requests()) == 2
    found = step(told, Step.CREDENTIALS)
    assert found.status is Status.REMOTE
    assert "it names the passcode" in found.remedies[0]
    assert step(told, Step.ROUND_TRIP).status is Status.SKIPPED
    assert PASSCODE.reveal() not in repr(told)


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_an_old_server_key_is_told_from_encryption_switched_off(
    tmp_path: Path, status: int
) -> None:
    """The sealed look-up has worked, so it is the key of the other direction."""
    other = await asyncio.to_thread(written, tmp_path / "server.json", generate().public())
    async with Emulator(Config(encryption_status=status)) as emulator:
        told = await findings(emulator, keys=replace(keys_of(emulator), server=other))
    assert wrong(told) == {Step.ROUND_TRIP: Status.REMOTE}
    assert "--server-key" in step(told, Step.ROUND_TRIP).remedies[0]


async def test_a_private_key_that_is_not_the_accounts_is_named(tmp_path: Path) -> None:
    """The service took the query, and its answer is for somebody else."""
    other = await asyncio.to_thread(written, tmp_path / "private.json", generate())
    async with Emulator() as emulator:
        told = await findings(emulator, keys=replace(keys_of(emulator), client=other))
    assert wrong(told) == {Step.ROUND_TRIP: Status.REMOTE}
    found = step(told, Step.ROUND_TRIP)
    assert "which is not in the keyset" in found.text
    assert "--client-key" in found.remedies[0]


async def test_a_wrong_context_breaks_both_directions_and_comes_first() -> None:
    """One cause is likelier than two."""
    async with Emulator() as emulator:
        told = await findings(emulator, keys=replace(keys_of(emulator), info="another"))
    assert wrong(told) == {Step.ROUND_TRIP: Status.REMOTE}
    assert "HPKE context" in step(told, Step.ROUND_TRIP).remedies[0]


async def test_without_keys_the_state_of_encryption_can_be_told() -> None:
    """A sealed reply is a sign, whether or not it can be opened."""
    async with Emulator() as emulator:
        told = await findings(emulator, keys=None)
    assert set(wrong(told)) == {Step.KEYS, Step.PERMISSIONS, Step.ROUND_TRIP}
    assert step(told, Step.ENCRYPTION).status is Status.OK
    assert "it takes both keys" in step(told, Step.ROUND_TRIP).text


async def test_busy_is_not_refused() -> None:
    """What cannot be told is not guessed."""
    async with Emulator(Config(max_concurrent_others=0)) as emulator:
        told = await findings(emulator)
    for name in (Step.CREDENTIALS, Step.ENCRYPTION, Step.ROUND_TRIP):
        assert "try again" in step(told, name).remedies[0]


# Keys


def written(path: Path, keyset: Any, mode: int = 0o600) -> Path:
    """A keyset as a file."""
    path.write_bytes(to_json(keyset))
    path.chmod(mode)
    return path


async def of_keys(server: Path, client: Path, **given: Any) -> list[Finding]:
    """The findings about key files; there is no endpoint."""
    told: list[Finding] = []
    files = KeyFiles(server=server, client=client, **given)
    await check(account=ACCOUNT, endpoint=None, keys=files, tell=told.append)
    assert "no endpoint" in step(told, Step.DNS).text
    return [finding for finding in told if finding.step in {Step.KEYS, Step.PERMISSIONS}]


posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")


async def test_good_keys_are_shown_by_id_and_fingerprint(tmp_path: Path) -> None:
    """What two people compare; nothing private is in it."""
    ours, theirs = generate(), generate()
    server = await asyncio.to_thread(written, tmp_path / "s", theirs.public())
    client = await asyncio.to_thread(written, tmp_path / "c", ours)
    told = await of_keys(server, client)
    assert [finding.status for finding in told] == [Status.OK] * 4
    assert told[0].facts["key_id"] == theirs.primary_id
    assert ours.primary.private is not None
    assert ours.primary.private.hex() not in repr(told)
    told = await of_keys(server, client, insecure_permissions=True)
    assert told[-1].status is Status.SKIPPED


@posix
async def test_wrong_permissions_do_not_hide_what_else_is_wrong(tmp_path: Path) -> None:
    """A key that others can read is looked into all the same, and used."""
    server = await asyncio.to_thread(written, tmp_path / "s", generate().public(), 0o666)
    client = await asyncio.to_thread(written, tmp_path / "c", generate(), 0o644)
    told = await of_keys(server, client)
    assert [finding.status for finding in told] == [Status.OK] * 2 + [Status.LOCAL] * 2
    assert "chmod go-w" in told[2].remedies[0]
    assert "chmod 600" in told[3].remedies[0]
    server.write_text("{}")
    told = await of_keys(server, client)
    assert [finding.status for finding in told][:2] == [Status.LOCAL, Status.OK]
    assert len(told) == 4


async def test_the_wrong_kind_and_missing_files_are_told_by_name(tmp_path: Path) -> None:
    """Private for public, nothing at all, a key of our own."""
    ours = generate()
    private = await asyncio.to_thread(written, tmp_path / "private", ours)
    public = await asyncio.to_thread(written, tmp_path / "public", ours.public())
    missing = tmp_path / "missing"
    server, client = await of_keys(private, missing)
    assert "is a private keyset where a public one belongs" in server.text
    assert "cannot be read" in client.text
    empty = tmp_path / "empty"
    empty.touch()
    assert "is empty" in (await of_keys(empty, private))[0].text
    own, *_ = await of_keys(public, private)
    assert own.status is Status.LOCAL
    assert "public half of --client-key" in own.text


async def test_a_weak_server_key_is_found_before_it_is_used(tmp_path: Path) -> None:
    """A point of low order is a keyset in form, and seals nothing."""
    weak = generate().public()
    weak = replace(weak, keys=(replace(weak.primary, public=bytes(32)),))
    server = await asyncio.to_thread(written, tmp_path / "s", weak)
    client = await asyncio.to_thread(written, tmp_path / "c", generate())
    first, *_ = await of_keys(server, client)
    assert "weak" in first.text
    assert str(server) in first.text


async def test_keys_without_an_account_are_inspected_and_not_used(tmp_path: Path) -> None:
    """Without the account id there is no context; the way is looked at all the same."""
    server = await asyncio.to_thread(written, tmp_path / "s", generate().public())
    client = await asyncio.to_thread(written, tmp_path / "c", generate())
    async with Emulator() as emulator:
        keys = KeyFiles(server=server, client=client)
        told = await findings(emulator, account=None, keys=keys)
        assert emulator.requests() == []
    assert step(told, Step.TCP).status is Status.OK
    assert "account id and passcode" in step(told, Step.CREDENTIALS).text


# The way


async def nowhere(host: str, port: int) -> list[str]:
    """A resolver that knows nobody."""
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def silent(host: str, port: int) -> list[str]:
    """A resolver that gives up."""
    raise TimeoutError


async def odd(host: str, port: int) -> list[str]:
    """A resolver that is handed what cannot be a name."""
    return [str(b"\xff", "idna")]


@pytest.mark.parametrize(
    ("resolver", "said"),
    [(nowhere, "not known"), (silent, "did not answer in time"), (odd, "can be no such name")],
)
async def test_a_name_that_is_not_known_ends_the_check(resolver: Any, said: str) -> None:
    """Nothing is sent anywhere; every later step is there, as not tried."""
    told = await findings_at("https://nowhere.invalid", addresses=resolver)
    assert said in step(told, Step.DNS).text
    assert {step(told, name).status for name in list(Step)[4:]} == {Status.SKIPPED}


async def test_the_address_that_answers_is_found_among_those_that_do_not() -> None:
    """A dead address is named; the check goes on with the living one."""

    async def two(host: str, port: int) -> list[str]:
        return ["::1", "127.0.0.1"]

    async with Emulator() as emulator:
        told = await findings(emulator, addresses=two)
    assert step(told, Step.TCP).status is Status.OK
    assert "not so [::1]:" in step(told, Step.TCP).text


async def test_nobody_listening_is_told_with_the_systems_words() -> None:
    """Port and address are what the firewall's people ask for."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        told = await findings_at(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert "Connection refused" in step(told, Step.TCP).text
    assert step(told, Step.CREDENTIALS).status is Status.SKIPPED


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    """A private CA, and its certificate as a file."""
    made, file = trustme.CA(), tmp_path_factory.mktemp("ca") / "ca.pem"
    made.cert_pem.write_to_path(str(file))
    return made, file


def server_context(ca: trustme.CA, not_after: datetime.datetime | None = None) -> ssl.SSLContext:
    """What a TLS server needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", not_after=not_after).configure_cert(context)
    return context


unauthorised = answer(
    b"HTTP/1.1 401 Unauthorized\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(JSON_401), JSON_401)
)


async def test_a_trusted_certificate_is_shown(ca: tuple[trustme.CA, Path]) -> None:
    """Version, issuer, and how long it is good for."""
    async with RawServer(unauthorised, tls=server_context(ca[0])) as server:
        endpoint = Endpoint(base_url=f"https://127.0.0.1:{server.port}", ca_file=ca[1])
        told = await findings_at(endpoint)
    found = step(told, Step.TLS)
    assert found.status is Status.OK
    assert found.text.startswith("TLSv1.3, the certificate is valid, issued by trustme")
    assert isinstance(found.facts["expires_in_s"], int)
    assert step(told, Step.CREDENTIALS).status is Status.REMOTE


async def test_a_distrusted_certificate_ends_the_check_before_a_secret_is_sent(
    ca: tuple[trustme.CA, Path],
) -> None:
    """Credentials are for nobody who cannot show who they are."""
    async with RawServer(unauthorised, tls=server_context(ca[0])) as server:
        told = await findings_at(f"https://127.0.0.1:{server.port}")
        assert server.requests == []
    found = step(told, Step.TLS)
    assert found.status is Status.LOCAL
    assert "--ca-file" in found.remedies[0]


async def test_what_speaks_no_tls_and_a_ca_file_that_is_none_are_told_apart(
    tmp_path: Path,
) -> None:
    """One is the wrong port, the other the wrong file."""

    async def slam(talk: Talk) -> None:
        talk.reset()

    async def plain(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    for script in (plain, slam):
        async with RawServer(script) as server:
            told = await findings_at(f"https://127.0.0.1:{server.port}")
        assert "TLS with 127.0.0.1" in step(told, Step.TLS).text
        assert "wrong host or port" in step(told, Step.TLS).remedies[0]
    (tmp_path / "ca.pem").write_text("no certificate")
    async with RawServer(plain) as server:
        endpoint = Endpoint(
            base_url=f"https://127.0.0.1:{server.port}", ca_file=tmp_path / "ca.pem"
        )
        told = await findings_at(endpoint)
    assert "holds no PEM certificate" in step(told, Step.TLS).text


def proxied(port: int, proxy_port: int, ca_file: Path) -> Endpoint:
    """A service that is reached through a proxy; its name means nothing here."""
    return Endpoint(
        base_url=f"https://service.invalid:{port}",
        ca_file=ca_file,
        proxy=f"http://127.0.0.1:{proxy_port}",
    )


def tunnel(port: int) -> Script:
    """A proxy's script: one tunnel to a port, whatever was asked for."""

    async def script(talk: Talk) -> None:
        if not await talk.request():
            return  # somebody only looked whether the port is open
        await talk.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await relay(talk, port)

    return script


async def test_behind_a_proxy_the_first_request_shows_tls(ca: tuple[trustme.CA, Path]) -> None:
    """The proxy's name and port are looked at, the service's are the proxy's to find."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca[0].issue_cert("service.invalid").configure_cert(context)
    async with (
        RawServer(unauthorised, tls=context) as server,
        RawServer(tunnel(server.port)) as proxy,
    ):
        endpoint = proxied(server.port, proxy.port, ca[1])
        told = await findings_at(endpoint)
        assert "through the proxy" in step(told, Step.TLS).text
        assert step(told, Step.CREDENTIALS).status is Status.REMOTE
        told = await findings_at(endpoint, account=None)
        assert "through a proxy it takes a request" in step(told, Step.TLS).text


async def test_a_proxy_that_opens_no_tunnel_is_told_as_such(ca: tuple[trustme.CA, Path]) -> None:
    """It is the way that is broken, not the service."""
    refuse = answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    async with RawServer(refuse) as proxy:
        told = await findings_at(proxied(443, proxy.port, ca[1]))
    found = step(told, Step.TLS)
    assert found.status is Status.LOCAL
    assert "did not open a tunnel" in found.text
    assert step(told, Step.CREDENTIALS).status is Status.SKIPPED


async def test_a_service_that_falls_silent_behind_a_proxy_is_the_services(
    ca: tuple[trustme.CA, Path],
) -> None:
    """The request went out whole: the way is there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca[0].issue_cert("service.invalid").configure_cert(context)

    async def hang_up(talk: Talk) -> None:
        await talk.request()

    async with RawServer(hang_up, tls=context) as server, RawServer(tunnel(server.port)) as proxy:
        told = await findings_at(proxied(server.port, proxy.port, ca[1]))
    assert step(told, Step.TLS).status is Status.SKIPPED
    assert step(told, Step.CREDENTIALS).status is Status.REMOTE


# Requests that break, and the clock


async def test_a_request_without_an_answer_is_for_the_service_to_mend() -> None:
    """It went out whole; what it would have said about account and keys is not guessed."""
    async with Emulator(Config(outage="reset")) as emulator:
        told = await findings(emulator)
    assert step(told, Step.CLOCK).status is Status.SKIPPED
    assert step(told, Step.CREDENTIALS).status is Status.REMOTE
    assert step(told, Step.ROUND_TRIP).status is Status.SKIPPED


async def test_a_redirect_is_a_wrong_address() -> None:
    """A login page in the service's place."""
    async with Emulator(Config(faults=("redirect=after-1",))) as emulator:
        told = await findings(emulator)
    assert step(told, Step.CLOCK).status is Status.OK
    found = step(told, Step.CREDENTIALS)
    assert found.status is Status.LOCAL
    assert "region or the base URL is wrong" in found.remedies[0]


async def test_a_stale_connection_is_no_finding() -> None:
    """A server may close what it kept alive; a request that only reads is made once more."""
    keep = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

    async def closes_on_the_second(talk: Talk) -> None:
        await talk.request()
        await talk.send(keep)
        await talk.request()
        talk.reset()

    async with RawServer(closes_on_the_second) as server:
        told = await findings_at(server.url)
        assert len(server.requests) == 3
    assert step(told, Step.CREDENTIALS).status is Status.OK


@pytest.mark.parametrize(("ahead_s", "status"), [(0, Status.OK), (-600, Status.LOCAL)])
async def test_the_services_date_shows_a_wrong_clock(ahead_s: float, status: Status) -> None:
    """Every answer brings the time along."""
    async with Emulator() as emulator:
        told = await findings(emulator, clock=lambda: time.time() + ahead_s)
    found = step(told, Step.CLOCK)
    assert found.status is status
    assert found.facts["skew_s"] == pytest.approx(-ahead_s, abs=2)


@pytest.mark.parametrize(
    ("date", "skew_s"),
    [
        ("Thu, 01 Jan 1970 00:01:40 GMT", 0.5),
        ("Thu, 01 Jan 1970 00:02:40 -0000", 60.5),
        (None, None),
        ("yesterday", None),
        ("Thu, 01 Jan 99999999999 00:00:00 GMT", None),
    ],
)
def test_a_date_that_cannot_be_read_is_none(date: str | None, skew_s: float | None) -> None:
    """A header is the other side's to write."""
    assert skew_of(date, 100.0) == skew_s
