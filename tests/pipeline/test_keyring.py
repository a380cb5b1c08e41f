"""Key files that are replaced: what is taken up, what is left as it was, and what is told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ctbatch.crypto.hpke import OpeningKeys, SealingKey
from ctbatch.crypto.keyset import Keyset, Status, generate, rotate, to_json
from ctbatch.errors import KeysetError, OpenError
from ctbatch.notices import Live, Notice
from ctbatch.pipeline.keyring import Keyring, KeyWatch, _Stamp, load_keys
from ctbatch.settings import Account, Endpoint, KeyFiles, Secret, Settings

INFO = b"XXX-XXX-XXXX"


class Told:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def watch(self, live: Live) -> None:
        """Nothing to see."""

    def tell(self, notice: Notice) -> None:
        """Remember it."""
        self.events.append(notice.event)


def _write(path: Path, keyset: Keyset) -> None:
    new = path.with_name("new")
    new.write_bytes(to_json(keyset))
    new.chmod(0o600)
    new.replace(path)


@pytest.fixture
def files(tmp_path: Path) -> KeyFiles:
    """A server key and a client key."""
    found = KeyFiles(server=tmp_path / "server.json", client=tmp_path / "client.json")
    _write(found.server, generate().public())
    _write(found.client, generate())
    return found


@pytest.fixture
def told() -> Told:
    """Who is told."""
    return Told()


async def _watch(files: KeyFiles, told: Told, used: list[Keyring] | None = None) -> KeyWatch:
    keyring = await asyncio.to_thread(Keyring.load, files, INFO)
    use: Callable[[Keyring], None] = ([] if used is None else used).append
    return KeyWatch(keyring, told, use)


def _opening(watch: KeyWatch) -> OpeningKeys:
    assert watch.opening is not None
    return watch.opening


def _sealed_to(keyset: Keyset) -> bytes:
    return SealingKey(keyset.public(), INFO).seal(b"hello")


def test_an_empty_info_that_was_given_is_used(files: KeyFiles) -> None:
    """It is not taken for none, which would be the account's id; and it seals and opens."""
    server = generate()
    _write(files.server, server.public())
    account = Account(id="XXX-XXX-XXXX", passcode=Secret("p"))
    given = Settings(
        inputs=["-"],
        account=account,
        endpoint=Endpoint.of_region(None),
        keys=replace(files, info=""),
    )
    keyring = load_keys(given)
    assert keyring is not None
    assert keyring.info == b""
    sealed = SealingKey(server.public(), keyring.info).seal(b"hello")
    assert OpeningKeys(server, b"").open(sealed).plaintext == b"hello"
    with pytest.raises(OpenError):
        OpeningKeys(server, account.id.encode()).open(sealed)


async def test_without_a_change_on_disk_nothing_changes(files: KeyFiles, told: Told) -> None:
    """A look finds the same files: same generation, same keys, nobody is told; a person who asked
    for it is.
    """
    watch = await _watch(files, told)
    opening = watch.opening
    await watch.look()
    assert (watch.generation, watch.opening, told.events) == (0, opening, [])
    await watch.look(insist=True)
    assert (watch.generation, watch.opening, told.events) == (0, opening, ["keys.unchanged"])


async def test_a_touched_file_with_the_same_keys_is_no_change(files: KeyFiles, told: Told) -> None:
    """Written anew with what it had: nothing is sealed a second time for it."""
    watch = await _watch(files, told)
    files.server.write_bytes(files.server.read_bytes() + b"\n")
    await watch.look()
    assert (watch.generation, told.events) == (0, [])


async def test_who_insists_has_a_file_read_that_looks_like_before(
    files: KeyFiles, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that tells little: a person can know better than a stamp."""
    monkeypatch.setattr(_Stamp, "of", lambda _path: _Stamp(0, 0, 0, 0, 0))
    used: list[Keyring] = []
    watch = await _watch(files, told, used)
    before = (await asyncio.to_thread(Keyring.load, files, INFO)).server.keyset
    other = replace(before.primary, public=generate().public().primary.public)
    new = Keyset((other,), before.primary_id)
    files.server.write_bytes(to_json(new))
    await watch.look()
    assert (watch.generation, told.events) == (0, [])
    await watch.look(insist=True)
    assert [keyring.server.keyset for keyring in used] == [new]
    assert (watch.generation, told.events) == (1, ["keys.renewed"])


async def test_a_new_server_key_is_used_once(files: KeyFiles, told: Told) -> None:
    """However many look at once; the client's keys stay what they are."""
    used: list[Keyring] = []
    watch = await _watch(files, told, used)
    opening, new = watch.opening, generate().public()
    _write(files.server, new)
    await asyncio.gather(*(watch.look() for _ in range(15)))
    assert [keyring.server.keyset for keyring in used] == [new]
    assert (watch.generation, watch.opening) == (1, opening)
    assert told.events == ["keys.renewed"]


async def test_earlier_client_keys_go_on_opening(files: KeyFiles, told: Told) -> None:
    """Answers to what is on the wire are sealed to the old key, also two replacements later."""
    old = await asyncio.to_thread(Keyring.load, files, INFO)
    watch = await _watch(files, told)
    second, third = generate(), generate()
    for keyset in (second, third):
        _write(files.client, keyset)
        await watch.look()
    for keyset in (old.client.keyset, second, third):
        assert _opening(watch).open(_sealed_to(keyset)).plaintext == b"hello"
    assert watch.generation == 0


async def test_a_key_that_was_disabled_on_purpose_opens_no_more(
    files: KeyFiles, told: Told
) -> None:
    """The new file still has it and says so: that is no rotation but a decision."""
    watch = await _watch(files, told)
    both = rotate((await asyncio.to_thread(Keyring.load, files, INFO)).client.keyset)
    old = both.keys[0]
    disabled = replace(both, keys=(replace(old, status=Status.DISABLED), both.keys[1]))
    _write(files.client, disabled)
    await watch.look()
    assert _opening(watch).open(_sealed_to(both)).key_id == both.primary_id
    with pytest.raises(OpenError):
        _opening(watch).open(_sealed_to(Keyset((old,), old.id)))


@pytest.mark.parametrize("what", ["cut", "private", "weak", "gone", "open"])
async def test_what_cannot_be_used_leaves_the_keys_alone(
    files: KeyFiles, told: Told, what: str
) -> None:
    """Told once; the other file is taken up all the same; the next replacement is looked at."""
    watch = await _watch(files, told)
    if what == "gone":
        files.server.unlink()
    elif what == "open":
        files.server.chmod(0o666)
        files.server.write_bytes(files.server.read_bytes() + b"\n")
    elif what == "private":
        _write(files.server, generate())
    elif what == "weak":
        key = generate().public().primary
        _write(files.server, Keyset((replace(key, public=bytes(32)),), key.id))
    else:
        files.server.write_bytes(b"{")
    client = generate()
    _write(files.client, client)
    await watch.look()
    await watch.look()
    unusable = [] if what == "gone" else ["keys.unusable"]
    assert (watch.generation, told.events) == (0, [*unusable, "keys.renewed"])
    assert _opening(watch).open(_sealed_to(client)).key_id == client.primary_id
    _write(files.server, generate().public())
    await watch.look()
    assert watch.generation == 1


async def test_a_file_that_was_open_to_others_is_taken_once_it_is_not(
    files: KeyFiles, told: Told
) -> None:
    """To mend its permissions changes nothing else of it."""
    watch = await _watch(files, told)
    _write(files.server, generate().public())
    files.server.chmod(0o666)
    await watch.look()
    assert watch.generation == 0
    files.server.chmod(0o600)
    await watch.look()
    assert (watch.generation, told.events) == (1, ["keys.unusable", "keys.renewed"])


async def test_a_pipe_is_read_once(files: KeyFiles, told: Told) -> None:
    """``<(vault read …)``: a second read would wait for ever; it is never tried."""
    reading, writing = os.pipe()
    os.write(writing, to_json(generate().public()))
    os.close(writing)
    piped = replace(files, server=Path(f"/dev/fd/{reading}"))
    watch = await _watch(piped, told)
    await watch.look(insist=True)
    os.close(reading)
    assert (watch.generation, told.events) == (0, ["keys.unchanged"])


async def test_a_weak_server_key_is_refused_at_the_start(files: KeyFiles) -> None:
    """Before anything is made or sent."""
    key = generate().public().primary
    _write(files.server, Keyset((replace(key, public=bytes(32)),), key.id))
    with pytest.raises(KeysetError, match="weak"):
        await asyncio.to_thread(Keyring.load, files, INFO)


async def test_without_keys_there_is_nothing_to_look_at(told: Told) -> None:
    """Plaintext and dry runs."""
    watch = KeyWatch(None, told, lambda keyring: None)
    await watch.look(insist=True)
    assert (watch.generation, watch.opening, told.events) == (0, None, [])
