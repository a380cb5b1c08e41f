"""A check looks into key files, says what they are, and finds all there is to mend at once."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctbatch.api.findings import Finding, Status, Step
from ctbatch.api.probe import check
from ctbatch.crypto.keyset import generate, to_json
from ctbatch.emulator.server import Emulator
from ctbatch.settings import KeyFiles
from tests.api.checking import ACCOUNT, findings, step, written


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
async def test_a_key_from_a_pipe_is_read_once(tmp_path: Path) -> None:
    """``<(vault read …)`` has no permissions worth the name, and nothing left for a second look."""
    server = await asyncio.to_thread(written, tmp_path / "s", generate().public())
    for content, status in ((to_json(generate()), Status.OK), (b"", Status.LOCAL)):
        reader, writer = os.pipe()
        os.write(writer, content)
        os.close(writer)
        told = await of_keys(server, Path(f"/dev/fd/{reader}"))
        os.close(reader)
        assert told[1].status is status
        assert ("has none to speak of" in told[-1].text) == (status is Status.OK)


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
