"""``ctbatch keys``: a person makes, looks at, rotates, converts and checks keys."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ctbatch.cli.main import main
from ctbatch.crypto.hpke import OpeningKeys, SealingKey
from ctbatch.crypto.keyset import (
    Form,
    Keyset,
    Prefix,
    Status,
    form_of,
    generate,
    load_private,
    load_public,
    rotate,
    to_form,
    to_json,
)
from ctbatch.crypto.upkeep import Pair, rotate_file
from ctbatch.settings import Secret

INFO = b"TEST-123-456Z"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CTBATCH_SERVER_KEY", "CTBATCH_CLIENT_KEY"):
        monkeypatch.delenv(name, raising=False)


def _run(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    code = main(["keys", *map(str, args)])
    out, err = capsys.readouterr()
    return code, out, err


def _made(directory: Path) -> tuple[Path, Path]:
    assert main(["keys", "generate", "--out", str(directory)]) == 0
    return directory / "client-private.json", directory / "client-public.json"


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def test_generate_makes_a_pair_and_says_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two 0600 files with telling names that belong together; the output leads on."""
    code, out, err = _run(capsys, "generate", "--out", tmp_path / "my keys")
    private, public = (tmp_path / "my keys" / f"client-{x}.json" for x in ("private", "public"))
    assert (code, err) == (0, "")
    if sys.platform != "win32":
        assert private.stat().st_mode & 0o777 == 0o600
        assert private.parent.stat().st_mode & 0o777 == 0o700
    sealed = SealingKey(load_public(public), INFO).seal(b"x")
    assert OpeningKeys(load_private(private), INFO).open(sealed).plaintext == b"x"
    assert form_of(private.read_bytes()) is Form.TINK_JSON
    assert f"Hand the public keyset, '{public}', to CleverTap" in out
    assert "Fetch CleverTap's public keyset" in out
    assert max(map(len, out.replace(str(tmp_path), "").splitlines())) <= 80


@pytest.mark.parametrize("prefix", Prefix)
def test_generate_makes_every_prefix(tmp_path: Path, prefix: Prefix) -> None:
    """TINK unless asked otherwise."""
    assert main(["keys", "generate", "--out", str(tmp_path), "--prefix", prefix.name]) == 0
    assert load_private(tmp_path / "client-private.json").primary.prefix is prefix


@pytest.mark.parametrize("there", ["client-private.json", "client-public.json"])
def test_generate_overwrites_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    """Whichever of the two is there: exit 2, it is as it was, and no half pair is left."""
    (tmp_path / there).write_bytes(b"mine")
    code, out, err = _run(capsys, "generate", "--out", tmp_path)
    assert (code, out) == (2, "")
    assert "exists already" in err
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_bytes() == b"mine"


def test_generate_says_when_it_cannot_make_the_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file is in the way."""
    (tmp_path / "file").write_bytes(b"")
    code, _, err = _run(capsys, "generate", "--out", tmp_path / "file" / "keys")
    assert code == 2
    assert "cannot be made" in err


def test_show_tells_everything_but_the_private_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids, primary, status, prefix, fingerprint; of the private key nothing, in any spelling."""
    keyset = rotate(rotate(generate()))
    first, second, third = keyset.keys
    keyset = Keyset(
        (
            replace(first, status=Status.DISABLED),
            replace(second, status=Status.DESTROYED, public=b"", private=None),
            third,
        ),
        third.id,
    )
    file = _file(tmp_path / "mine.json", to_json(keyset))
    code, out, _ = _run(capsys, "show", file)
    assert code == 0
    for word in (f"key {third.id}, primary", "disabled", "destroyed", "enabled", "TINK"):
        assert word in out
    _, text, _ = _run(capsys, "show", file, "--json")
    facts = json.loads(text)
    assert [key["primary"] for key in facts["keys"]] == [False, False, True]
    assert re.fullmatch("[0-9a-f]{64}", facts["keys"][2]["fingerprint_sha256"])
    assert facts["keys"][2]["fingerprint_sha256"] in out
    values = [key["keyData"]["value"] for key in json.loads(file.read_bytes())["key"]]
    for key, value in zip((first, third), (values[0], values[2]), strict=True):
        assert key.private is not None
        for secret in (key.private.hex(), repr(key.private)[2:-1], value):
            assert secret not in out + text


def test_show_shows_a_keyset_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its primary is disabled: that is what one looks for."""
    key = replace(generate().public().primary, status=Status.DISABLED)
    code, out, _ = _run(capsys, "show", _file(tmp_path / "k", to_json(Keyset((key,), key.id))))
    assert code == 0
    assert "primary" in out
    assert "disabled" in out


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_an_open_private_file_is_refused_unless_one_insists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2 with the command that mends it."""
    private, _ = _made(tmp_path)
    private.chmod(0o644)
    code, _, err = _run(capsys, "show", private)
    assert code == 2
    assert f"chmod 600 {private}" in err
    assert _run(capsys, "show", private, "--insecure-key-permissions")[0] == 0


def test_rotate_adds_a_key_and_writes_the_public_keyset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old and new messages open; the public file names the new primary; the next step is said."""
    private, public = _made(tmp_path)
    old = SealingKey(load_public(public), INFO)
    code, out, _ = _run(capsys, "rotate", private)
    assert code == 0
    assert f"Hand the new public keyset, {public}, to CleverTap" in out
    new = SealingKey(load_public(public), INFO)
    assert new.key_id != old.key_id
    opening = OpeningKeys(load_private(private), INFO)
    for key in (old, new):
        assert opening.open(key.seal(b"x")).key_id == key.key_id
    assert sorted(path.name for path in tmp_path.iterdir()) == [private.name, public.name]


def test_rotate_names_the_public_file_after_the_private_one(tmp_path: Path) -> None:
    """Also where its name does not say private; the form stays."""
    file = _file(tmp_path / "mine.bin", to_form(generate(), Form.TINK_BINARY))
    assert main(["keys", "rotate", str(file)]) == 0
    assert form_of(file.read_bytes()) is Form.TINK_BINARY
    assert load_public(tmp_path / "mine-public.bin").primary_id == load_private(file).primary_id


def test_rotate_touches_nothing_when_the_public_file_is_not_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody else's public keyset in that place is not lost, and nothing is half done."""
    private, public = _made(tmp_path)
    other = to_json(generate().public())
    before = private.read_bytes()
    _file(public, other)
    code, _, err = _run(capsys, "rotate", private)
    assert code == 2
    assert "not of this keyset" in err
    assert (private.read_bytes(), public.read_bytes()) == (before, other)


@pytest.mark.parametrize("what", ["public", "pem", "locked pem"])
def test_rotate_wants_a_private_keyset_in_a_tink_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """The error says how to get there."""
    keyset = generate()
    lock = Secret("correct horse") if what == "locked pem" else None
    pem = to_form(keyset, Form.PEM, passphrase=lock)
    data = to_json(keyset.public()) if what == "public" else pem
    code, _, err = _run(capsys, "rotate", _file(tmp_path / "key", data))
    assert code == 2
    assert ("public keyset where" if what == "public" else "keys convert") in err
    assert "passphrase" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="links take a privilege")
def test_rotate_through_a_link_keeps_the_pair_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The public file that is renewed is the one beside the private file; the link stays one."""
    private, public = _made(tmp_path / "keys")
    link = tmp_path / "client-private.json"
    link.symlink_to(private)
    code, out, _ = _run(capsys, "rotate", link)
    assert code == 0
    assert str(public) in out
    assert load_public(public).primary_id == load_private(private).primary_id
    assert sorted(path.name for path in tmp_path.iterdir()) == [link.name, "keys"]
    assert link.is_symlink()


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in the file system")
def test_rotate_wants_a_file_that_it_can_replace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe that delivers a keyset is no place to write one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(to_json(generate())))
    writer.start()
    code, _, err = _run(capsys, "rotate", pipe)
    writer.join()
    assert code == 2
    assert "is a pipe" in err


@pytest.mark.parametrize("to", Form)
@pytest.mark.parametrize("start", Form)
def test_convert_writes_every_form(tmp_path: Path, start: Form, to: Form) -> None:
    """What comes out is the same key, as private as what went in; 0600."""
    keyset = generate()
    file, out = _file(tmp_path / "in", to_form(keyset, start)), tmp_path / "out"
    assert main(["keys", "convert", str(file), "--to", to, "--out", str(out)]) == 0
    assert form_of(out.read_bytes()) is to
    assert load_private(out).primary.private == keyset.primary.private
    public = tmp_path / "public"
    args = ["--to", to, "--public-only", "--out", str(public)]
    assert main(["keys", "convert", str(file), *args]) == 0
    assert load_public(public).primary.public == keyset.primary.public


def test_convert_locks_and_unlocks_pem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Passphrases come from files; a wrong or missing one is exit 2."""
    private, _ = _made(tmp_path)
    word, wrong = _file(tmp_path / "word", b"correct horse\n"), _file(tmp_path / "no", b"x")
    pem, back = tmp_path / "key.pem", tmp_path / "back.json"
    code, _, err = _run(
        capsys, "convert", private, "--to", "pem", "--out", pem, "--out-passphrase-file", word
    )
    assert code == 0
    assert "without a prefix" in err
    assert b"ENCRYPTED" in pem.read_bytes()
    unlock = ("convert", pem, "--to", "tink-json", "--out", back)
    assert "protected by a passphrase" in _run(capsys, *unlock)[2]
    assert "does not open" in _run(capsys, *unlock, "--passphrase-file", wrong)[2]
    assert not back.exists()
    assert _run(capsys, *unlock, "--passphrase-file", word)[0] == 0
    assert load_private(back).primary.private == load_private(private).primary.private


def test_convert_refuses_what_would_lose_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several keys in PEM, a lock on what is public or Tink's, an existing file: exit 2 each."""
    private, public = _made(tmp_path)
    word = _file(tmp_path / "word", b"correct horse")
    lock = ("--out-passphrase-file", word)
    out = ("--out", tmp_path / "out")
    for args, why in (
        ((public, "--to", "pem", *out, *lock), "nothing to lock"),
        ((private, "--to", "tink-json", *out, *lock), "only PEM"),
        ((private, "--to", "pem", "--out", public), "exists already"),
    ):
        code, _, err = _run(capsys, "convert", *args)
        assert code == 2
        assert why in err
    for words, why in ((b"one\ntwo\n", "has several lines"), (b"x" * 2000, "over 1,023 bytes")):
        lock = ("--out-passphrase-file", _file(tmp_path / "words", words))
        code, _, err = _run(capsys, "convert", private, "--to", "pem", *out, *lock)
        assert (code, why in err) == (2, True)
    assert main(["keys", "rotate", str(private)]) == 0
    code, _, err = _run(capsys, "convert", private, "--to", "pem", *out)
    assert code == 2
    assert f"{private}: has 2 keys" in err
    assert not (tmp_path / "out").exists()


def test_check_tells_a_pair_from_strangers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A canary is sealed and opened."""
    private, public = _made(tmp_path / "a")
    other, _ = _made(tmp_path / "b")
    capsys.readouterr()
    code, out, _ = _run(capsys, "check", "--public", public, "--private", private)
    assert code == 0
    assert out.startswith("OK")
    code, out, err = _run(capsys, "check", "--public", public, "--private", other)
    assert (code, out) == (2, "")
    assert "do not belong together" in err


def test_check_checks_the_keys_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From options or variables; one's own public key is no server key."""
    private, public = _made(tmp_path / "ours")
    _, server = _made(tmp_path / "theirs")
    raw = _file(tmp_path / "raw.pem", to_form(generate().public(), Form.PEM))
    capsys.readouterr()
    code, out, _ = _run(capsys, "check", "--server-key", raw)
    assert (code, out) == (0, "OK: the server key seals (a key without prefix).\n")
    monkeypatch.setenv("CTBATCH_SERVER_KEY", str(server))
    monkeypatch.setenv("CTBATCH_CLIENT_KEY", str(private))
    code, out, _ = _run(capsys, "check")
    assert code == 0
    assert out.count("OK") == 2
    code, _, err = _run(capsys, "check", "--server-key", public, "--client-key", private)
    assert code == 2
    assert "your own public key" in err


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ([], "are missing"),
        (["--public", "x"], "--private: is missing"),
        (["--private", "x"], "--public: is missing"),
    ],
)
def test_check_wants_something_to_check(
    capsys: pytest.CaptureFixture[str], args: list[str], why: str
) -> None:
    """Exit 2, and the option that is missing."""
    code, _, err = _run(capsys, "check", *args)
    assert code == 2
    assert why in err


_ON_A_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from ctbatch.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_passphrase_is_asked_for_on_a_terminal(tmp_path: Path) -> None:
    """It is not echoed, and the key opens."""
    import pty  # noqa: PLC0415  # not on Windows

    private, _ = _made(tmp_path)
    word, pem = _file(tmp_path / "word", b"correct horse"), tmp_path / "key.pem"
    lock = ["--out-passphrase-file", str(word)]
    assert main(["keys", "convert", str(private), "--to", "pem", "--out", str(pem), *lock]) == 0
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", _ON_A_TERMINAL, "keys", "show", str(pem)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        try:
            os.close(theirs)
            shown = b""
            # It comes when the echo is off; what is typed before is thrown away.
            while not shown.endswith(b"key.pem: "):
                shown += os.read(ours, 1000)
            os.write(ours, b"correct horse\n")
            assert process.stdout is not None
            out = process.stdout.read()
            assert process.wait() == 0
            shown += os.read(ours, 1000)
        finally:
            process.kill()
    os.close(ours)
    assert b"private keyset" in out
    assert b"horse" not in shown + out


def test_rotations_at_the_same_time_lose_no_key(tmp_path: Path) -> None:
    """Each that says it made a key has made one that stays: one waits for the other."""
    private, public = _made(tmp_path)
    pairs: list[Pair] = []
    threads = [
        threading.Thread(target=lambda: pairs.append(rotate_file(private))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = load_private(private).keys
    assert {pair.keyset.primary.id for pair in pairs} <= {key.id for key in held}
    assert (len(pairs), len(held), len(load_public(public).keys)) == (6, 7, 7)
