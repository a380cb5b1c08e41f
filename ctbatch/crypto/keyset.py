"""Keysets: Tink's JSON and binary forms, and X25519 keys as PEM.

Only DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, which is what the vendor's "API
Encryption" page names. Parsing and writing are pure; :func:`load_public` and :func:`load_private`
read files.

Invariants:

1. A keyset that parses has at least one key, a primary that is enabled, and no key of another suite
   among those that are enabled.
2. Private bytes never reach a ``repr``, a message or an exception's cause.
3. A private keyset is refused where a public one belongs: it must not leave its owner.

Source of the formats: Tink's ``tink.proto`` and ``hpke.proto``.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from ctbatch.crypto.protobuf import Field, decode, encode
from ctbatch.errors import (
    KeyFileError,
    KeyKindError,
    KeysetEncryptedError,
    KeysetMalformedError,
    KeyUnsupportedError,
    PassphraseError,
)
from ctbatch.settings import Secret

__all__ = [
    "Key",
    "Keyset",
    "Prefix",
    "Status",
    "fingerprint",
    "generate",
    "load",
    "load_private",
    "load_public",
    "parse",
    "parse_public",
    "rotate",
    "to_binary",
    "to_json",
    "to_pem",
]

_PUBLIC_URL = "type.googleapis.com/google.crypto.tink.HpkePublicKey"
_PRIVATE_URL = "type.googleapis.com/google.crypto.tink.HpkePrivateKey"
_SUITE = (1, 1, 2)  # HpkeParams: DHKEM_X25519_HKDF_SHA256, HKDF_SHA256, AES_256_GCM
_PUBLIC_MATERIAL, _PRIVATE_MATERIAL = 3, 2  # KeyData.KeyMaterialType: ASYMMETRIC_…
_MATERIALS = {"ASYMMETRIC_PUBLIC": _PUBLIC_MATERIAL, "ASYMMETRIC_PRIVATE": _PRIVATE_MATERIAL}
_KEY_BYTES = 32
_MAX_FILE_BYTES = 1 << 20


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
        """The key that seals."""
        return next(k for k in self.keys if k.id == self.primary_id and k.status is Status.ENABLED)

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


# -- making ---------------------------------------------------------------------------------------


def generate(prefix: Prefix = Prefix.TINK) -> Keyset:
    """A private keyset with one new key."""
    key = _new_key(prefix, taken=())
    return Keyset((key,), key.id)


def rotate(keyset: Keyset) -> Keyset:
    """The keyset with a new primary of the same prefix; the old keys stay to open replies."""
    key = _new_key(keyset.primary.prefix, taken=[old.id for old in keyset.keys])
    return Keyset((*keyset.keys, key), key.id)


def _new_key(prefix: Prefix, taken: Sequence[int]) -> Key:
    private = X25519PrivateKey.generate()
    key_id = 0
    while not key_id or key_id in taken:
        key_id = secrets.randbits(32)
    public = private.public_key().public_bytes_raw()
    return Key(key_id, prefix, Status.ENABLED, public, private.private_bytes_raw())


def fingerprint(key: Key) -> str:
    """SHA-256 of the public part, hex: what two people compare."""
    from hashlib import sha256  # noqa: PLC0415  # only people need it

    return sha256(key.public).hexdigest()


# -- reading --------------------------------------------------------------------------------------


def load_public(path: Path, *, insecure_permissions: bool = False) -> Keyset:
    """Read the public keyset that requests are sealed with.

    Raises:
        KeysetError: it cannot be read, is not a public keyset of the suite, or anybody can write it.
    """
    keyset = load(path, insecure_permissions=insecure_permissions, secret=False)
    if keyset.is_private:
        remedy = "use the service's public keyset; keep this one to yourself"
        raise KeyKindError(str(path), "is a private keyset where a public one belongs", remedy)
    return keyset


def load_private(
    path: Path, *, passphrase: Secret | None = None, insecure_permissions: bool = False
) -> Keyset:
    """Read the private keyset that opens replies.

    Raises:
        KeysetError: it cannot be read, is not a private keyset of the suite, or is open to others.
    """
    keyset = load(path, passphrase=passphrase, insecure_permissions=insecure_permissions)
    if not keyset.is_private:
        remedy = "use the private keyset that `ctbatch keys generate` made"
        raise KeyKindError(str(path), "is a public keyset where a private one belongs", remedy)
    return keyset


def load(
    path: Path,
    *,
    passphrase: Secret | None = None,
    insecure_permissions: bool = False,
    secret: bool = True,
) -> Keyset:
    """Read a keyset of any form; ``secret``: others must not be able to read a private one."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        remedy = "make yours with `ctbatch keys generate`, fetch the service's from the dashboard"
        raise KeyFileError(str(path), f"cannot be read ({error.strerror})", remedy) from None
    if len(data) > _MAX_FILE_BYTES:
        raise KeysetMalformedError(str(path), "is too large for a keyset")
    keyset = parse(data, passphrase=passphrase, name=str(path))
    if not insecure_permissions and os.name == "posix":
        _check_permissions(path, mode, private=secret and keyset.is_private)
    return keyset


def _check_permissions(path: Path, mode: int, *, private: bool) -> None:
    if stat.S_ISREG(mode) and (mode & stat.S_IWOTH or (private and mode & stat.S_IROTH)):
        done = "written by anybody" if mode & stat.S_IWOTH else "read by anybody"
        remedy = f"chmod {'600' if private else '644'} it, or --insecure-key-permissions"
        raise KeyFileError(str(path), f"can be {done}", remedy)


def parse_public(data: bytes) -> Keyset:
    """Parse a public keyset; raises :class:`KeysetError`."""
    return parse(data, name="the public keyset")


def parse(data: bytes, *, passphrase: Secret | None = None, name: str = "the keyset") -> Keyset:
    """Parse a keyset of any form: Tink JSON, Tink binary, PEM.

    Raises:
        KeysetError: it is none of these, or not of the suite.
    """
    text = data.strip()
    if text.startswith(b"-----BEGIN "):
        return _parse_pem(text, passphrase, name)
    if text.startswith(b"{"):
        return _parse_json(text, name)
    return _parse_binary(data, name)


def _parse_json(text: bytes, name: str) -> Keyset:
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise KeysetMalformedError(name, "is not JSON although it begins like it") from None
    if "encryptedKeyset" in raw:
        raise KeysetEncryptedError(name)
    try:
        keys = [_json_key(item, name) for item in raw["key"]]
        return _checked(keys, int(raw["primaryKeyId"]), name)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise KeysetMalformedError(name, "is not a Tink keyset in JSON") from None


def _json_key(item: Mapping[str, Any], name: str) -> Key:
    key_id, prefix = int(item["keyId"]), Prefix[item["outputPrefixType"]]
    status, data = Status[item.get("status", "ENABLED")], item.get("keyData") or {}
    value = base64.b64decode(data.get("value", ""), validate=True)
    material = _MATERIALS.get(data.get("keyMaterialType", ""))
    return _key(key_id, prefix, status, str(data.get("typeUrl")), value, material, name)


def _parse_binary(data: bytes, name: str) -> Keyset:
    try:
        fields = decode(data)
        if fields and fields[0][0] == 2 and not any(number == 1 for number, _ in fields):
            raise KeysetEncryptedError(name)  # EncryptedKeyset{encrypted_keyset=2, keyset_info=3}
        keys = [_binary_key(value, name) for number, value in fields if number == 2]
        return _checked(keys, _last(fields, 1, 0), name)
    except (ValueError, TypeError):
        why = "is no keyset: neither Tink JSON, nor Tink binary, nor PEM"
        raise KeysetMalformedError(name, why) from None


def _binary_key(message: int | bytes, name: str) -> Key:
    fields = decode(_bytes(message))
    data = decode(_last(fields, 1, b""))
    url, value, material = _last(data, 1, b""), _last(data, 2, b""), _last(data, 3, 0)
    status, prefix = Status(_last(fields, 2, 0)), Prefix(_last(fields, 4, 0))
    return _key(_last(fields, 3, 0), prefix, status, url.decode(), value, material, name)


def _key(
    key_id: int,
    prefix: Prefix,
    status: Status,
    url: str,
    value: bytes,
    material: int | None,
    name: str,
) -> Key:
    """A key from its parts; raises ValueError for a malformed one."""
    if not 0 <= key_id < 1 << 32:
        raise ValueError("key id out of range")
    if status is Status.DESTROYED:
        return Key(key_id, prefix, status, b"")
    private = None
    if url == _PRIVATE_URL and material == _PRIVATE_MATERIAL:
        fields = decode(value)
        private, value = _last(fields, 3, b""), _last(fields, 2, b"")
    elif url != _PUBLIC_URL or material != _PUBLIC_MATERIAL:
        raise KeyUnsupportedError(name, url.rsplit(".", 1)[-1][:60], key_id=key_id)
    fields = decode(value)
    params = decode(_last(fields, 2, b""))
    suite = tuple(_last(params, number, 0) for number in (1, 2, 3))
    if suite != _SUITE or _last(fields, 1, 0) != 0:
        kind = "HPKE with kem={} kdf={} aead={}".format(*suite)
        raise KeyUnsupportedError(name, kind, key_id=key_id)
    return Key(key_id, prefix, status, *_fitting(_last(fields, 3, b""), private))


def _fitting(public: bytes, private: bytes | None) -> tuple[bytes, bytes | None]:
    """Both parts of a key, if they have the right size and belong together."""
    if len(public) != _KEY_BYTES or (private is not None and len(private) != _KEY_BYTES):
        raise ValueError("a key is not 32 bytes long")
    if private is not None:
        derived = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
        if derived != public:
            raise ValueError("the parts of a key do not belong together")
    return public, private


def _checked(keys: Sequence[Key], primary_id: int, name: str) -> Keyset:
    if not keys:
        raise KeysetMalformedError(name, "holds no key")
    primaries = [key for key in keys if key.id == primary_id]
    if not primaries:
        raise KeysetMalformedError(name, f"has no key with its primary id {primary_id}")
    if all(key.status is not Status.ENABLED for key in primaries):
        why = f"its primary key {primary_id} is {primaries[0].status.name.lower()}"
        raise KeyKindError(name, why, "enable it, or make another key primary")
    if len({key.private is None for key in keys if key.status is not Status.DESTROYED}) > 1:
        raise KeysetMalformedError(name, "mixes private and public keys")
    return Keyset(tuple(keys), primary_id)


def _last(fields: Sequence[Field], number: int, default: Any) -> Any:
    """The last value of a field, as protobuf wants it; raises TypeError for one of another type."""
    value = next((value for n, value in reversed(fields) if n == number), default)
    if type(value) is not type(default):
        raise TypeError("a field has another type")
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TypeError("a field has another type")
    return value


def _parse_pem(text: bytes, passphrase: Secret | None, name: str) -> Keyset:
    word = None if passphrase is None else passphrase.reveal().encode()
    try:
        if b"PRIVATE KEY" not in text.split(b"\n", 1)[0]:
            public = serialization.load_pem_public_key(text)
            if not isinstance(public, X25519PublicKey):
                raise KeyUnsupportedError(name, type(public).__name__)
            return _raw_keyset(public.public_bytes_raw(), None)
        if b"ENCRYPTED" in text and word is None:
            raise PassphraseError(name, "is protected by a passphrase")
        private = serialization.load_pem_private_key(text, word if b"ENCRYPTED" in text else None)
    except UnsupportedAlgorithm:
        raise KeyUnsupportedError(name, "an algorithm that is not X25519") from None
    except (ValueError, TypeError, binascii.Error):
        if b"ENCRYPTED" in text:
            raise PassphraseError(name, "does not open with that passphrase") from None
        raise KeysetMalformedError(name, "is not a PEM key") from None
    if not isinstance(private, X25519PrivateKey):
        raise KeyUnsupportedError(name, type(private).__name__)
    return _raw_keyset(private.public_key().public_bytes_raw(), private.private_bytes_raw())


def _raw_keyset(public: bytes, private: bytes | None) -> Keyset:
    """A PEM key has no id and no prefix."""
    return Keyset((Key(0, Prefix.RAW, Status.ENABLED, public, private),), 0)


# -- writing --------------------------------------------------------------------------------------


def to_json(keyset: Keyset) -> bytes:
    """The keyset in Tink's JSON form."""
    raw = {
        "primaryKeyId": keyset.primary_id,
        "key": [
            {
                "keyData": {
                    "typeUrl": _url(key),
                    "value": base64.b64encode(_value(key)).decode(),
                    "keyMaterialType": _material(key),
                },
                "status": key.status.name,
                "keyId": key.id,
                "outputPrefixType": key.prefix.name,
            }
            for key in keyset.keys
        ],
    }
    return orjson.dumps(raw, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def to_binary(keyset: Keyset) -> bytes:
    """The keyset in Tink's binary form."""
    keys = [
        encode([
            (1, encode([(1, _url(k).encode()), (2, _value(k)), (3, _MATERIALS[_material(k)])])),
            (2, k.status),
            (3, k.id),
            (4, k.prefix),
        ])
        for k in keyset.keys
    ]  # fmt: skip
    return encode([(1, keyset.primary_id), *((2, key) for key in keys)])


def to_pem(keyset: Keyset, passphrase: Secret | None = None) -> bytes:
    """The primary key as PEM: PKCS8, with a passphrase if given, or SPKI for a public keyset."""
    key = keyset.primary
    if key.private is None:
        return X25519PublicKey.from_public_bytes(key.public).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase.reveal().encode())
    return X25519PrivateKey.from_private_bytes(key.private).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def _url(key: Key) -> str:
    return _PUBLIC_URL if key.private is None else _PRIVATE_URL


def _material(key: Key) -> str:
    return "ASYMMETRIC_PUBLIC" if key.private is None else "ASYMMETRIC_PRIVATE"


def _value(key: Key) -> bytes:
    if key.status is Status.DESTROYED:
        return b""
    params = encode([(1, _SUITE[0]), (2, _SUITE[1]), (3, _SUITE[2])])
    public = encode([(2, params), (3, key.public)])
    return public if key.private is None else encode([(2, public), (3, key.private)])
