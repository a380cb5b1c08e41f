"""Keys that are replaced while a run goes on."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ctbatch.crypto import keyset, upkeep
from tests.e2e.command import Desk, Ended, Started
from tests.e2e.people import identities, profile, profiles
from tests.e2e.service import Service

RUN = ("--batch-size", 10, "--concurrency", 2, "--json", "--run-dir", "run")


@pytest.fixture(scope="module")
def _service() -> Iterator[Service]:
    """A service of our own: its keys do not stay what they were."""
    with Service() as service:
        yield service


def _replaced(path: Path, by: Path) -> None:
    """A file is another, in one step."""
    new = path.with_name(f"{path.name}.new")
    shutil.copyfile(by, new)
    new.chmod(0o600)
    new.replace(path)


def _copied(desk: Desk, name: str, of: Path) -> Path:
    path = desk.cwd / name
    _replaced(path, of)
    return path


def _started(desk: Desk, service: Service, *args: object, **variables: Path) -> Started:
    """A run of 60 batches that has had a few answers."""
    service.configure(latency_s=0.03)
    users = desk.write("users.ndjson", *profiles(600))
    env = {name: str(path) for name, path in variables.items()}
    started = desk.start("run", users, *RUN, *args, env=env)
    started.until("a few answers", lambda: len(service.requests()) >= 5)
    return started


def _all_arrived(ended: Ended, service: Service) -> None:
    assert ended.code == 0, ended.err
    assert ended.report["lines"]["processed"] == 600
    assert sorted(service.identities()) == sorted(identities(600))


def _key_of(path: Path) -> int:
    return keyset.parse(path.read_bytes()).primary_id


def _keys_of_batches(desk: Desk) -> set[int]:
    with closing(sqlite3.connect(desk.cwd / "run" / "ledger.sqlite")) as db:
        return {row[0] for row in db.execute("SELECT key_id FROM span")}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_replaced_server_key_is_taken_up_when_the_service_refuses(
    desk: Desk, service: Service, workers: int
) -> None:
    """Every request with the old key is refused: what waits is sealed anew, nothing is lost, nobody
    blamed, and the ledger has the key of each batch.
    """
    path = _copied(desk, "server.json", service.server_key)
    before = _key_of(path)
    started = _started(desk, service, "--workers", workers, CTBATCH_SERVER_KEY=path)
    service.rotate()  # both keys open
    _replaced(path, service.server_key)
    after = _key_of(path)
    service.rotate()  # the one of the run does not, any more
    ended = started.ended()
    _all_arrived(ended, service)
    assert f"the server key was replaced: sealing with key {after} now" in ended.err
    assert ended.err.count("the server key was replaced") == 1
    assert ended.report["keys"]["sealed_with"] == sorted([before, after])
    assert _keys_of_batches(desk) == {before, after}
    statuses = ended.report["attempts"]["by_result"]
    assert 0 < statuses["400"] <= 4, "two on the wire, and what was on its way there"


def test_a_poisoned_record_is_still_the_only_one_blamed(desk: Desk, service: Service) -> None:
    """The keys change while a batch is searched for its culprit: it alone is refused."""
    path = _copied(desk, "server.json", service.server_key)
    service.configure(faults=["poison"], latency_s=0.03)
    lines = profiles(400)
    lines[45] = profile("poisoned", poison=1)
    users = desk.write("users.ndjson", *lines)
    started = desk.start("run", users, *RUN, env={"CTBATCH_SERVER_KEY": str(path)})
    refused = lambda: any(call["status"] == 400 for call in service.requests())  # noqa: E731
    started.until("the first refusal", refused)
    service.rotate()
    _replaced(path, service.server_key)
    service.rotate()
    ended = started.ended()
    assert ended.code == 3, ended.err
    assert desk.run.lines("rejected") == [lines[45]]
    assert ended.report["lines"]["processed"] == 399
    assert len(service.identities()) == len(set(service.identities())) == 399


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_hangup_takes_a_replaced_key_up_before_anything_is_refused(
    desk: Desk, service: Service
) -> None:
    """``kill -HUP``: the next batches are sealed with the new key, and none was refused."""
    path = _copied(desk, "server.json", service.server_key)
    started = _started(desk, service, CTBATCH_SERVER_KEY=path)
    started.send(signal.SIGHUP)
    started.until("a look", lambda: "the key files were read again: they are as" in started.err)
    service.rotate()
    _replaced(path, service.server_key)
    started.send(signal.SIGHUP)
    started.until("the new key", lambda: "the server key was replaced" in started.err)
    ended = started.ended()
    _all_arrived(ended, service)
    assert len(ended.report["keys"]["sealed_with"]) == 2
    assert set(ended.report["attempts"]["by_result"]) == {"200"}


def test_a_replaced_client_key_opens_what_the_old_one_does_not(
    desk: Desk, service: Service
) -> None:
    """Replies are sealed to the new key from one moment on: they are opened with it, and nothing is
    sent twice for it.
    """
    path = _copied(desk, "client.json", service.client_key)
    before = _key_of(path)
    started = _started(desk, service, CTBATCH_CLIENT_KEY=path)
    upkeep.rotate_file(service.client_key)
    _replaced(path, service.client_key)
    service.take_client_key()
    ended = started.ended()
    _all_arrived(ended, service)
    after = _key_of(path)
    assert f"opening with key {before}, key {after} now, too" in ended.err
    assert ended.report["keys"]["opened_with"] == sorted([before, after])
    assert set(ended.report["attempts"]["by_result"]) == {"200"}


def test_replies_to_the_previous_client_key_open(desk: Desk, service: Service) -> None:
    """Our keyset is rotated and the service still seals to the old key: all is well."""
    path = _copied(desk, "client.json", service.client_key)
    upkeep.rotate_file(path)
    users = desk.write("users.ndjson", *profiles(5))
    ended = desk.upload(users, env={"CTBATCH_CLIENT_KEY": str(path)})
    assert ended.code == 0, ended.err
    assert ended.report["keys"]["opened_with"] == [_key_of(service.client_key)]


def test_a_replacement_that_is_no_key_is_told_and_changes_nothing(
    desk: Desk, service: Service
) -> None:
    """Half a file: a warning, once, and the run goes on or stops as it would have without it."""
    path = _copied(desk, "server.json", service.server_key)
    started = _started(desk, service, CTBATCH_SERVER_KEY=path)
    path.write_text('{"primaryKeyId": 1')
    service.rotate()
    service.rotate()
    ended = started.ended()
    assert ended.code == 5, ended.err
    assert ended.err.count("Going on with the keys from before") == 1
    assert ended.report["lines"]["unprocessed"] == ended.report["lines"]["unknown"] == 0
    _replaced(path, service.server_key)
    resumed = desk.ctbatch(*ended.resume_command, "--json", env={"CTBATCH_SERVER_KEY": str(path)})
    assert resumed.code == 0, resumed.err
    assert json.loads(resumed.out)["lines"]["processed"] == 600
