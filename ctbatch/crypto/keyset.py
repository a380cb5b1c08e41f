"""Keysets of any form: Tink JSON, Tink binary, X25519 PEM, told apart by their content.

``parse`` and ``to_…`` are pure; ``load_…`` read files and may block.

Invariants:

1. What :func:`load_public`, :func:`load_private` and :func:`parse_public` return is of the kind
   that was asked for and has an enabled primary. :func:`load` and :func:`parse` only promise a
   keyset of the suite: whoever looks at one may want to see what is wrong with it.
2. A private keyset is refused where a public one belongs: it must not leave its owner.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from ctbatch import paths
from ctbatch.crypto import keyfiles
from ctbatch.crypto.keys import Key, Keyset, Prefix, Status, fingerprint, generate, rotate
from ctbatch.crypto.pem import is_locked, is_private_pem, parse_pem, to_pem
from ctbatch.crypto.tink import parse_binary, parse_json, to_binary, to_json
from ctbatch.errors import KeyFileError, KeyKindError, KeysetMalformedError
from ctbatch.settings import Secret

__all__ = [
    "Form",
    "Key",
    "Keyset",
    "Prefix",
    "Status",
    "fingerprint",
    "form_of",
    "generate",
    "load",
    "load_private",
    "load_public",
    "needs_passphrase",
    "parse",
    "parse_public",
    "rotate",
    "to_binary",
    "to_form",
    "to_json",
    "to_pem",
]

_BOM = b"\xef\xbb\xbf"


class Form(StrEnum):
    """The forms that a keyset is written in."""

    TINK_JSON = "tink-json"
    TINK_BINARY = "tink-binary"
    PEM = "pem"


def load_public(path: Path, *, insecure_permissions: bool = False) -> Keyset:
    """Read the public keyset that requests are sealed with.

    Raises:
        KeysetError: it cannot be read, is not a usable public keyset of the suite, or others can
            write it.
    """
    data, found = keyfiles.read(path)
    if not insecure_permissions:
        keyfiles.check_writers(path, found)
    return parse_public(data, name=str(path))


def load_private(
    path: Path, *, passphrase: Secret | None = None, insecure_permissions: bool = False
) -> Keyset:
    """Read the private keyset that opens replies.

    Raises:
        PassphraseError: it needs a passphrase, or another one.
        KeysetError: it cannot be read, is not a usable private keyset of the suite, or is open to
            others.
    """
    keyset = load(path, passphrase=passphrase, insecure_permissions=insecure_permissions)
    if not keyset.is_private:
        remedy = "name the private keyset that `ctbatch keys generate` made"
        raise KeyKindError(str(path), "is a public keyset where a private one belongs", remedy)
    return _usable(keyset, str(path))


def load(
    path: Path, *, passphrase: Secret | None = None, insecure_permissions: bool = False
) -> Keyset:
    """Read a keyset of either kind; its primary need not be usable.

    Raises:
        PassphraseError: it needs a passphrase, or another one.
        KeysetError: it cannot be read, is not a keyset of the suite, or is open to others.
    """
    data, found = keyfiles.read(path)
    if not insecure_permissions:
        keyfiles.check_writers(path, found, private=True)
    keyset = parse(data, passphrase=passphrase, name=str(path))
    if keyset.is_private and not insecure_permissions:
        keyfiles.check_readers(path, found)
    return keyset


def needs_passphrase(path: Path) -> bool:
    """Whether a key file is locked. A pipe is left alone: it can be read once only. May block."""
    if not paths.is_file(path):
        return False
    try:
        return is_locked(_text(keyfiles.read(path)[0]))
    except KeyFileError:  # whoever loads it says what is wrong
        return False


def parse_public(data: bytes, *, name: str = "the public keyset") -> Keyset:
    """Parse a usable public keyset; ``name`` says in messages which one it is.

    Raises:
        KeysetError: it is no public keyset of the suite, or its primary is not enabled or weak.
    """
    # A locked PEM key must not ask for its passphrase here: it is the wrong file.
    if is_private_pem(_text(data)) or (keyset := parse(data, name=name)).is_private:
        remedy = "name the service's public keyset; keep this one to yourself"
        raise KeyKindError(name, "is a private keyset where a public one belongs", remedy)
    key = _usable(keyset, name).primary
    if key.is_weak:
        why = f"its primary key {key.id} is weak or broken: nothing can be sealed to it"
        raise KeysetMalformedError(name, why, "have its owner send it again")
    return keyset


def parse(data: bytes, *, passphrase: Secret | None = None, name: str = "the keyset") -> Keyset:
    """Parse a keyset of any form and kind; its primary need not be usable.

    Raises:
        PassphraseError: it needs a passphrase, or another one.
        KeysetError: it is none, or not of the suite.
    """
    form = form_of(data)
    if form is Form.PEM:
        return parse_pem(_text(data), passphrase, name)
    if form is Form.TINK_JSON:
        return parse_json(_text(data), name)
    return parse_binary(data, name)


def form_of(data: bytes) -> Form:
    """The form that the data have, by how they begin; whether they are whole is not known yet."""
    text = _text(data)
    if text.startswith(b"-----BEGIN "):
        return Form.PEM
    return Form.TINK_JSON if text.startswith(b"{") else Form.TINK_BINARY


def to_form(keyset: Keyset, form: Form, *, passphrase: Secret | None = None) -> bytes:
    """Write a keyset in a form; a passphrase locks a private PEM key.

    Raises:
        KeyKindError: PEM cannot hold it, or no passphrase can lock it in that form.
    """
    if form is Form.PEM:
        return to_pem(keyset, passphrase)
    if passphrase is not None:
        raise KeyKindError("the keyset", "only PEM can be locked with a passphrase")
    return to_json(keyset) if form is Form.TINK_JSON else to_binary(keyset)


def _text(data: bytes) -> bytes:
    return data.removeprefix(_BOM).strip()


def _usable(keyset: Keyset, name: str) -> Keyset:
    try:
        _ = keyset.primary
    except KeyKindError as error:
        raise replace(error, path=name) from None
    return keyset
