"""Key files are refused when others can reach them, written whole, and never overwritten."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from ctbatch.crypto import keyfiles
from ctbatch.crypto.keyset import Form, generate, load, load_private, load_public, to_form, to_json
from ctbatch.errors import KeyFileError, KeyKindError, KeysetMalformedError
from ctbatch.settings import Secret

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")

KEYSET = generate()


def _file(tmp_path: Path, data: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "key.json"
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_private_key_may_be_read_by_owner_and_group(tmp_path: Path, mode: int) -> None:
    """Modes in common use are fine."""
    assert load_private(_file(tmp_path, to_json(KEYSET), mode)) == KEYSET


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o660, 0o620, 0o602, 0o666])
def test_a_private_key_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """Read by everybody or written by anybody else; the error names the file and the way out."""
    path = _file(tmp_path, to_json(KEYSET), mode)
    with pytest.raises(KeyFileError, match=r"key\.json.*chmod.*--insecure-key-permissions"):
        load_private(path)
    assert load_private(path, insecure_permissions=True) == KEYSET


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o666, 0o777])
def test_one_remedy_is_enough_for_a_private_key(tmp_path: Path, mode: int) -> None:
    """Who follows it is not told of another afterwards."""
    path = _file(tmp_path, to_json(KEYSET), mode)
    with pytest.raises(KeyFileError, match=r"chmod 600 .*key\.json"):
        load_private(path)
    path.chmod(0o600)
    assert load_private(path) == KEYSET


def test_a_public_key_may_be_read_but_not_written_by_others(tmp_path: Path) -> None:
    """Whoever can change it can have our data sealed to himself."""
    data = to_json(KEYSET.public())
    assert load_public(_file(tmp_path, data, 0o644)) == KEYSET.public()
    for mode in (0o664, 0o646):
        path = _file(tmp_path, data, mode)
        with pytest.raises(KeyFileError, match="changed by other users"):
            load_public(path)
        assert load_public(path, insecure_permissions=True) == KEYSET.public()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner could write it."""
    for data in (to_json(KEYSET), to_json(KEYSET.public())):
        path = _file(tmp_path, data)
        os.chown(path, 12345, -1)
        with pytest.raises(KeyFileError, match="another user"):
            load(path)
        assert load(path, insecure_permissions=True).primary_id == KEYSET.primary_id


def test_a_pipe_has_no_permissions_to_check(tmp_path: Path) -> None:
    """``--client-key <(vault read …)`` works."""
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o666)
    path.chmod(0o666)
    writer = threading.Thread(target=lambda: path.write_bytes(to_json(KEYSET)))
    writer.start()
    assert load_private(path) == KEYSET
    writer.join()


@pytest.mark.parametrize("form", Form)
def test_every_form_is_told_by_its_content(tmp_path: Path, form: Form) -> None:
    """The file's name says nothing."""
    path = _file(tmp_path, to_form(KEYSET, form))
    assert load_private(path).primary.private == KEYSET.primary.private


def test_a_locked_key_opens_with_its_passphrase(tmp_path: Path) -> None:
    """PKCS8 with a passphrase, as a file."""
    word = Secret("correct horse")
    path = _file(tmp_path, to_form(KEYSET, Form.PEM, passphrase=word))
    assert load_private(path, passphrase=word).primary.private == KEYSET.primary.private


def test_the_wrong_kind_names_the_file(tmp_path: Path) -> None:
    """A public keyset opens nothing, a private one must not be used to seal."""
    with pytest.raises(KeyKindError, match=r"key\.json: is a public keyset"):
        load_private(_file(tmp_path, to_json(KEYSET.public())))
    with pytest.raises(KeyKindError, match=r"key\.json: is a private keyset"):
        load_public(_file(tmp_path, to_json(KEYSET)))
    with pytest.raises(KeysetMalformedError, match=r"key\.json"):
        load(_file(tmp_path, b"hello"))


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    """Missing, a directory, empty, far too large."""
    for path, why in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "directory"),
        (_file(tmp_path, b""), "empty"),
    ):
        with pytest.raises(KeyFileError, match=why):
            load(path)
    with pytest.raises(KeyFileError, match="too large"):
        load(_file(tmp_path, bytes((1 << 20) + 1)))


def test_a_new_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    """0600 whatever the umask; a second time is refused, also through a dangling link."""
    path = tmp_path / "new"
    before = os.umask(0)
    try:
        keyfiles.create(path, b"one")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    for taken in (path, link):
        with pytest.raises(KeyFileError, match="exists already"):
            keyfiles.create(taken, b"two")
    assert path.read_bytes() == b"one"
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """The directory is missing, or there is no room; nothing half is left."""
    import resource  # noqa: PLC0415  # not on Windows

    with pytest.raises(KeyFileError, match="cannot be written"):
        keyfiles.create(tmp_path / "no" / "new", b"x")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(KeyFileError, match="cannot be written"):
            keyfiles.create(tmp_path / "new", bytes(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives a file away")
def test_a_replaced_file_keeps_mode_owner_and_link(tmp_path: Path) -> None:
    """Root may rotate the key of a service user, which goes on reading it."""
    path, link = _file(tmp_path, b"one", 0o640), tmp_path / "link"
    os.chown(path, 12345, 12346)
    link.symlink_to(path)
    keyfiles.replace_file(link, b"two")
    found = path.stat()
    assert path.read_bytes() == b"two"
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 12346, 0o640)
    assert link.is_symlink()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["key.json", "link"]


def test_a_replacement_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """Another one under way, or something in the way."""
    path = _file(tmp_path, b"one")
    (tmp_path / "key.json.new").write_bytes(b"half")
    with pytest.raises(KeyFileError, match=r"key\.json\.new: exists already"):
        keyfiles.replace_file(path, b"two")
    assert path.read_bytes() == b"one"
    occupied = tmp_path / "directory"
    (occupied / "x").mkdir(parents=True)
    with pytest.raises(KeyFileError, match="cannot be replaced"):
        keyfiles.replace_file(occupied, b"two")
    assert not (tmp_path / "directory.new").exists()
