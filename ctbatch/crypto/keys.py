"""A key and a keyset, as values, and making new ones.

Only X25519 keys of the suite DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, which is what
the vendor's "API Encryption" page names.

Invariants:

1. Private bytes never reach a ``repr`` or a message.
2. Nothing here reads or writes a file, or knows a format.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from enum import IntEnum
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from ctbatch.errors import KeyKindError

__all__ = ["KEY_BYTES", "Key", "Keyset", "Prefix", "Status", "fingerprint", "generate", "rotate"]

KEY_BYTES = 32
"""Npk and Nsk of DHKEM(X25519, HKDF-SHA256): RFC 9180, 7.1."""


class Prefix(IntEnum):
    """Tink's ``OutputPrefixType``."""

    TINK = 1
    LEGACY = 2
    RAW = 3
    CRUNCHY = 4


class Status(IntEnum):
    """Tink's ``KeyStatusType``."""

    ENABLED = 1
    DISABLED = 2
    DESTROYED = 3


@dataclass(frozen=True, slots=True)
class Key:
    """One X25519 key; ``private`` is ``None`` in a public keyset, ``public`` empty if destroyed."""

    id: int
    prefix: Prefix
    status: Status
    public: bytes
    private: bytes | None = field(default=None, repr=False)

    @property
    def is_weak(self) -> bool:
        """Whether the public part is a point of low order: nothing can be sealed to it."""
        try:
            X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(self.public))
        except ValueError:
            return True
        return False

    @property
    def output_prefix(self) -> bytes:
        """What stands before a ciphertext of this key (Tink's wire format)."""
        if self.prefix is Prefix.RAW:
            return b""
        start = b"\x01" if self.prefix is Prefix.TINK else b"\x00"
        return start + self.id.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class Keyset:
    """Keys, one of them primary: it seals; all enabled ones open."""

    keys: tuple[Key, ...]
    primary_id: int

    @property
    def primary(self) -> Key:
        """The key that seals; raises :class:`KeyKindError` if it is missing or not enabled."""
        primaries = [key for key in self.keys if key.id == self.primary_id]
        usable = [key for key in primaries if key.status is Status.ENABLED]
        if len(usable) == 1:
            return usable[0]
        if usable:
            # Tink refuses such a keyset, too: nobody could say which one seals.
            why = f"two enabled keys share the id of the primary, {self.primary_id}"
        elif primaries:
            why = f"its primary key {self.primary_id} is {primaries[0].status.name.lower()}"
        else:
            why = f"has no key with its primary id {self.primary_id}"
        raise KeyKindError("the keyset", why, "have its owner make one enabled key primary")

    @property
    def enabled(self) -> tuple[Key, ...]:
        """The keys that may be used."""
        return tuple(key for key in self.keys if key.status is Status.ENABLED)

    @property
    def is_private(self) -> bool:
        """Whether it holds private keys."""
        return any(key.private is not None for key in self.keys)

    def public(self) -> Keyset:
        """The keyset to hand out."""
        return Keyset(tuple(replace(key, private=None) for key in self.keys), self.primary_id)


def generate(prefix: Prefix = Prefix.TINK) -> Keyset:
    """A private keyset with one new key."""
    key = _new_key(prefix, taken=())
    return Keyset((key,), key.id)


def rotate(keyset: Keyset) -> Keyset:
    """The keyset with a new primary of the same prefix; the old keys stay to open replies."""
    key = _new_key(keyset.primary.prefix, taken={old.id for old in keyset.keys})
    return Keyset((*keyset.keys, key), key.id)


def fingerprint(key: Key) -> str:
    """SHA-256 of the public part, hex: what two people compare."""
    return sha256(key.public).hexdigest()


def _new_key(prefix: Prefix, taken: Collection[int]) -> Key:
    private = X25519PrivateKey.generate()
    key_id = 0
    while not key_id or key_id in taken:
        key_id = secrets.randbits(32)
    public = private.public_key().public_bytes_raw()
    return Key(key_id, prefix, Status.ENABLED, public, private.private_bytes_raw())
