"""Sealing and opening: HPKE (RFC 9180) base mode in Tink's ciphertext form; pure.

``prefix ‖ enc (32 bytes) ‖ ct``: the prefix names the key (empty for RAW), ``enc`` is a new
ephemeral key per message, ``ct`` the AES-256-GCM ciphertext with its 16-byte tag; ``info`` is bound
in, the AAD is empty.

Invariants:

1. The only importer of pyhpke; none of its exceptions leaves.
2. Opening tries the key that the prefix names, then RAW keys, then all enabled ones, so that
   replies survive a rotation of either side. The prefix is a hint and is not authenticated.

Base mode does not authenticate the sender: whoever has the public key can seal. That a reply comes
from the service is TLS's promise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey, KEMKeyInterface
from pyhpke.exceptions import PyHPKEError

from ctbatch.crypto.keyset import Key, Keyset, Prefix
from ctbatch.errors import CiphertextCutError, ForeignKeyError, SealBrokenError

__all__ = ["ENC_BYTES", "Opened", "OpeningKeys", "SealingKey"]

ENC_BYTES = 32
"""Nenc of DHKEM(X25519, HKDF-SHA256): RFC 9180, 7.1."""

_TAG_BYTES = 16
_PREFIX_BYTES = 5

_SUITE = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)


class SealingKey:
    """The primary key of a public keyset, ready to seal; any thread may use it."""

    def __init__(self, keyset: Keyset, info: bytes) -> None:
        key = keyset.primary
        self._info = info
        self._prefix = key.output_prefix
        public = X25519PublicKey.from_public_bytes(key.public)
        self._public = KEMKey.from_pyca_cryptography_key(public)
        self.key_id = None if key.prefix is Prefix.RAW else key.id
        """The id that stands in the prefix; ``None`` for RAW."""

    def seal(self, plaintext: bytes) -> bytes:
        """Seal a message; 48 bytes longer than the plaintext, 53 with a prefix."""
        enc, context = _SUITE.create_sender_context(self._public, self._info)
        return b"".join((self._prefix, enc, context.seal(plaintext)))


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened message and the id of the key that opened it (``None`` for RAW)."""

    plaintext: bytes = field(repr=False)
    key_id: int | None


class OpeningKeys:
    """The enabled keys of a private keyset, ready to open; any thread may use them."""

    def __init__(self, keyset: Keyset, info: bytes) -> None:
        self._info = info
        self._keys = [(key, _private(key)) for key in keyset.enabled]
        self._prefixes = {key.output_prefix for key, _ in self._keys if key.output_prefix}
        # All candidates try bare and prefixed forms only as far as the message is long enough.
        self._least = ENC_BYTES + _TAG_BYTES

    def open(self, ciphertext: bytes) -> Opened:
        """Open a message.

        Raises:
            CiphertextCutError: it is too short to be one.
            ForeignKeyError: no key opens it, and its prefix names a key that is not here.
            SealBrokenError: no key opens it: another key or info, or altered on the way.
        """
        if len(ciphertext) < self._least:
            raise CiphertextCutError(f"{len(ciphertext)} bytes are too short for a sealed message")
        for key, private, sealed in self._candidates(ciphertext):
            if len(sealed) < self._least:
                continue
            try:
                context = _SUITE.create_recipient_context(sealed[:ENC_BYTES], private, self._info)
                plaintext = context.open(sealed[ENC_BYTES:])
            except PyHPKEError:
                continue
            return Opened(plaintext, None if key.prefix is Prefix.RAW else key.id)
        prefix = ciphertext[:_PREFIX_BYTES]
        if prefix[0] in {0, 1} and prefix not in self._prefixes and self._prefixes:
            named = int.from_bytes(prefix[1:], "big")
            raise ForeignKeyError(f"it is sealed to key {named}, which is not in the keyset")
        why = "another key, another account id (HPKE info), or altered on the way"
        raise SealBrokenError(why)

    def _candidates(self, ciphertext: bytes) -> Iterator[tuple[Key, KEMKeyInterface, bytes]]:
        """Keys in the order of likelihood, each with the message as that key would have it."""
        prefix, rest = ciphertext[:_PREFIX_BYTES], ciphertext[_PREFIX_BYTES:]
        named = [(key, p) for key, p in self._keys if key.output_prefix == prefix]
        raw = [(key, p) for key, p in self._keys if not key.output_prefix]
        yield from ((key, private, rest) for key, private in named)
        yield from ((key, private, ciphertext) for key, private in raw)
        tried = {id(key) for key, _ in named}
        if prefix[0] in {0, 1}:  # prefixed by a key whose id or prefix type we have otherwise
            yield from ((key, p, rest) for key, p in self._keys if id(key) not in tried)


def _private(key: Key) -> KEMKeyInterface:
    assert key.private is not None
    return KEMKey.from_pyca_cryptography_key(X25519PrivateKey.from_private_bytes(key.private))
