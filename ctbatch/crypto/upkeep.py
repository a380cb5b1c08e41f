"""Key files over their life: making a pair, rotating, converting.

Every function blocks. Invariants:

1. Nothing is overwritten; only a rotation replaces, and only files that hold our own keys.
2. A rotation that is cut off leaves the old keys usable: the private file gains the new key before
   the public file names it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ctbatch import paths
from ctbatch.crypto import keyfiles
from ctbatch.crypto.keyset import (
    Form,
    Keyset,
    Prefix,
    form_of,
    generate,
    load,
    load_private,
    rotate,
    to_form,
    to_json,
)
from ctbatch.errors import KeyFileError, KeyKindError, PassphraseError
from ctbatch.settings import Secret

__all__ = ["PRIVATE_NAME", "PUBLIC_NAME", "Pair", "convert_file", "generate_files", "rotate_file"]

PRIVATE_NAME = "client-private.json"
PUBLIC_NAME = "client-public.json"


@dataclass(frozen=True, slots=True)
class Pair:
    """A private keyset as it now is, and the files that hold it and its public part."""

    keyset: Keyset
    private: Path
    public: Path


def generate_files(directory: Path, prefix: Prefix = Prefix.TINK) -> Pair:
    """Make a key pair in a directory, which is made (0700) if it is not there.

    Raises:
        KeyFileError: a file of that name exists, or cannot be written.
    """
    made = Pair(generate(prefix), directory / PRIVATE_NAME, directory / PUBLIC_NAME)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(str(directory), f"cannot be made ({error.strerror})") from None
    keyfiles.create(made.private, to_json(made.keyset))
    try:
        keyfiles.create(made.public, to_json(made.keyset.public()))
    except KeyFileError:
        made.private.unlink()  # our own, a moment old: half a pair helps nobody
        raise
    return made


def rotate_file(path: Path, *, insecure_permissions: bool = False) -> Pair:
    """Add a new primary to a private keyset file, and write the public keyset beside it.

    The public keyset names all keys and the new one as primary: who has it seals with the new.

    Raises:
        KeysetError: the file is not a usable private keyset in a Tink form, or the public file
            holds other keys.
    """
    with keyfiles.alone_in(path.resolve().parent):  # another rotation would lose one of two keys
        return _rotate(path, insecure_permissions=insecure_permissions)


def _rotate(path: Path, *, insecure_permissions: bool) -> Pair:
    pem = KeyKindError(
        str(path),
        "is PEM, which holds one key only",
        "first `ctbatch keys convert FILE --to tink-json --out …`",
    )
    try:
        old = load_private(path, insecure_permissions=insecure_permissions)
    except PassphraseError:  # only PEM is ever locked, so unlocking it would not help
        raise pem from None
    if not paths.is_file(path):
        raise KeyFileError(str(path), "is a pipe, which cannot be replaced", "name a file")
    path = path.resolve()  # the public file belongs beside the file, not beside a link to it
    form = form_of(keyfiles.read(path)[0])
    if form is Form.PEM:
        raise pem
    made = Pair(rotate(old), path, _public_path(path))
    _check_ours(made, insecure_permissions=insecure_permissions)
    keyfiles.replace_file(made.private, to_form(made.keyset, form))
    keyfiles.replace_file(made.public, to_form(made.keyset.public(), form))
    return made


def convert_file(
    path: Path,
    form: Form,
    out: Path,
    *,
    public_only: bool = False,
    passphrase: Secret | None = None,
    out_passphrase: Secret | None = None,
    insecure_permissions: bool = False,
) -> Keyset:
    """Write a keyset file in another form to a new file; returns what was written.

    Raises:
        KeysetError: the file cannot be used, the form cannot hold it, or ``out`` exists.
    """
    keyset = load(path, passphrase=passphrase, insecure_permissions=insecure_permissions)
    if public_only:
        keyset = keyset.public()
    if out_passphrase is not None and not keyset.is_private:
        raise KeyKindError(str(path), "is public, so there is nothing to lock with a passphrase")
    try:
        data = to_form(keyset, form, passphrase=out_passphrase)
    except KeyKindError as error:
        raise replace(error, path=str(path)) from None
    keyfiles.create(out, data)
    return keyset


def _public_path(private: Path) -> Path:
    if "private" in private.name:
        return private.with_name(private.name.replace("private", "public"))
    return private.with_name(f"{private.stem}-public{private.suffix}")


def _check_ours(made: Pair, *, insecure_permissions: bool) -> None:
    """Raise :class:`KeyFileError` if the public file holds anything but our own public keys."""
    if not paths.exists(made.public):
        return
    there = load(made.public, insecure_permissions=insecure_permissions)
    ours = {key.public for key in made.keyset.keys}
    if there.is_private or any(key.public not in ours for key in there.keys):
        remedy = "it is never overwritten: move it away"
        raise KeyFileError(str(made.public), "holds keys that are not of this keyset", remedy)
