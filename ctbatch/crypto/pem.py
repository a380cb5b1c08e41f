"""X25519 keys as PEM: PKCS8, with or without a passphrase, and SPKI; pure.

A PEM key has neither id nor prefix: it becomes a keyset of one RAW key with id 0.

Invariant: no message holds any part of a key or passphrase, and no library's exception, which
might, is its cause.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from ctbatch.crypto.keys import Key, Keyset, Prefix, Status
from ctbatch.errors import (
    KeyKindError,
    KeysetMalformedError,
    KeyUnsupportedError,
    PassphraseError,
)
from ctbatch.settings import Secret

__all__ = ["is_locked", "is_private_pem", "parse_pem", "to_pem"]

_BEGIN = b"-----BEGIN "


def is_private_pem(text: bytes) -> bool:
    """Whether it is a PEM private key, by its first line: no passphrase is needed to know."""
    return text.startswith(_BEGIN) and b"PRIVATE KEY" in text.split(b"\n", 1)[0]


def is_locked(text: bytes) -> bool:
    """Whether a PEM private key is protected by a passphrase."""
    # PKCS8 says it in its first line, the older forms in a header.
    return text.startswith(_BEGIN + b"ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in text


def parse_pem(text: bytes, passphrase: Secret | None, name: str) -> Keyset:
    """A keyset of the one key in a PEM text.

    Raises:
        PassphraseError: it needs a passphrase, or another one.
        KeysetError: it is not an X25519 key.
    """
    if text.count(_BEGIN) > 1:
        why = "holds several PEM blocks"
        raise KeysetMalformedError(name, why, "keep the one key in a file of its own")
    try:
        if is_private_pem(text):
            return _private(text, passphrase, name)
        return _public(text, name)
    except UnsupportedAlgorithm:
        raise KeyUnsupportedError(name, "an algorithm that is not X25519") from None
    except (ValueError, TypeError):
        raise KeysetMalformedError(name, "is not a PEM key") from None


def to_pem(keyset: Keyset, passphrase: Secret | None = None) -> bytes:
    """The one key of a keyset as PEM: PKCS8, with a passphrase if given, or SPKI if it is public.

    Raises:
        KeyKindError: the keyset has several keys, or no usable primary.
        PassphraseError: the passphrase is longer than OpenSSL takes.
    """
    if len(keyset.keys) > 1:
        why = f"has {len(keyset.keys)} keys, and PEM holds one"
        raise KeyKindError("the keyset", why, "use a Tink form, or none of the others would open")
    key = keyset.primary
    if key.private is None:
        return X25519PublicKey.from_public_bytes(key.public).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase.reveal().encode())
    private = X25519PrivateKey.from_private_bytes(key.private)
    try:
        return private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
    except ValueError:
        why = "is too long to protect PEM with: it has over 1,023 bytes"
        raise PassphraseError("the passphrase", why, "choose a shorter one") from None


def _public(text: bytes, name: str) -> Keyset:
    public = serialization.load_pem_public_key(text)
    if not isinstance(public, X25519PublicKey):
        raise KeyUnsupportedError(name, type(public).__name__)
    return _one_key(public.public_bytes_raw(), None)


def _private(text: bytes, passphrase: Secret | None, name: str) -> Keyset:
    locked = is_locked(text)
    if locked and passphrase is None:
        raise PassphraseError(name, "is protected by a passphrase")
    word = passphrase.reveal().encode() if locked and passphrase is not None else None
    try:
        private = serialization.load_pem_private_key(text, word)
    except ValueError:
        if locked:
            raise PassphraseError(name, "does not open with that passphrase") from None
        raise
    if not isinstance(private, X25519PrivateKey):
        raise KeyUnsupportedError(name, type(private).__name__)
    return _one_key(private.public_key().public_bytes_raw(), private.private_bytes_raw())


def _one_key(public: bytes, private: bytes | None) -> Keyset:
    return Keyset((Key(0, Prefix.RAW, Status.ENABLED, public, private),), 0)
