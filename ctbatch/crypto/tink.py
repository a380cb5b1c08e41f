"""Tink's forms of a keyset, JSON and binary; pure.

Invariants:

1. A keyset that parses has at least one key, every key is of the suite (a destroyed one is empty),
   and all are public or all are private.
2. No message holds any part of a key, and no parser's exception, which might, is its cause.

Source: Tink's ``tink.proto`` and ``hpke.proto``, and protobuf's JSON mapping: names in either
spelling, enums by name or number, numbers also as strings, base64 in either alphabet.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, TypeVar

import orjson
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ctbatch.crypto.keys import KEY_BYTES, Key, Keyset, Prefix, Status
from ctbatch.crypto.protobuf import Field, decode, encode
from ctbatch.errors import KeysetEncryptedError, KeysetMalformedError, KeyUnsupportedError

__all__ = ["parse_binary", "parse_json", "to_binary", "to_json"]

_Enum = TypeVar("_Enum", bound=IntEnum)


class _Material(IntEnum):
    """Tink's ``KeyData.KeyMaterialType``."""

    SYMMETRIC = 1
    ASYMMETRIC_PRIVATE = 2
    ASYMMETRIC_PUBLIC = 3
    REMOTE = 4


_URLS = {
    "type.googleapis.com/google.crypto.tink.HpkePublicKey": _Material.ASYMMETRIC_PUBLIC,
    "type.googleapis.com/google.crypto.tink.HpkePrivateKey": _Material.ASYMMETRIC_PRIVATE,
}
_URL_OF = {material: url for url, material in _URLS.items()}

_SUITE = (1, 1, 2)
"""``HpkeParams``: DHKEM_X25519_HKDF_SHA256, HKDF_SHA256, AES_256_GCM."""

_MAX_ID = (1 << 32) - 1


def parse_json(text: bytes, name: str) -> Keyset:
    """A keyset from Tink's JSON form; ``name`` says in messages which one it is.

    Raises:
        KeysetError: it is none, is encrypted, or is not of the suite.
    """
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise KeysetMalformedError(name, "is not JSON although it begins like it") from None
    if _get(raw, "encryptedKeyset") is not None:
        raise KeysetEncryptedError(name)
    try:
        keys = [_json_key(item, name) for item in _get(raw, "key", ())]
        return _checked(keys, _number(_get(raw, "primaryKeyId", 0)), name)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise KeysetMalformedError(name, "is not a Tink keyset in JSON") from None


def parse_binary(data: bytes, name: str) -> Keyset:
    """A keyset from Tink's binary form.

    Raises:
        KeysetError: it is none, is encrypted, or is not of the suite.
    """
    try:
        fields = decode(data)
        if _is_encrypted(fields):
            raise KeysetEncryptedError(name)
        keys = [_binary_key(value, name) for number, value in fields if number == 2]
        return _checked(keys, _last(fields, 1, 0), name)
    except (ValueError, TypeError):
        why = "is no keyset: neither Tink JSON, nor Tink binary, nor PEM"
        raise KeysetMalformedError(name, why) from None


def to_json(keyset: Keyset) -> bytes:
    """The keyset in Tink's JSON form."""
    raw = {
        "primaryKeyId": keyset.primary_id,
        "key": [
            {
                "keyData": {
                    "typeUrl": _URL_OF[_material(key)],
                    "value": base64.b64encode(_value(key)).decode(),
                    "keyMaterialType": _material(key).name,
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
        encode([(1, _key_data(key)), (2, key.status), (3, key.id), (4, key.prefix)])
        for key in keyset.keys
    ]
    return encode([(1, keyset.primary_id), *((2, key) for key in keys)])


def _get(message: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """A field by its JSON name, or by its name in the .proto file."""
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
    value = message.get(name, message.get(snake))
    return default if value is None else value


def _json_key(item: Mapping[str, Any], name: str) -> Key:
    data = _get(item, "keyData", {})
    return _key(
        _number(_get(item, "keyId", 0)),
        _enum(Prefix, _get(item, "outputPrefixType", 0)),
        _enum(Status, _get(item, "status", 0)),
        url=str(_get(data, "typeUrl", "")),
        value=_from_base64(_get(data, "value", "")),
        name=name,
    )


def _number(value: object) -> int:
    if isinstance(value, str) or type(value) is int:
        return int(value)
    raise TypeError("not a number")


def _enum(kind: type[_Enum], value: str | int) -> _Enum:
    return kind[value] if isinstance(value, str) else kind(value)


def _from_base64(text: str) -> bytes:
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)


def _is_encrypted(fields: Sequence[Field]) -> bool:
    """Whether the message is an ``EncryptedKeyset{encrypted_keyset=2, keyset_info=3}``.

    Some of Tink's writers leave out the info; what is left looks like a keyset (of id 0: one that
    was a PEM key) whose one key is noise.
    """
    if any(number == 3 for number, _ in fields):
        return True
    if len(fields) != 1 or fields[0][0] != 2:
        return False
    try:
        return not _last(decode(_bytes(fields[0][1])), 1, b"")
    except (ValueError, TypeError):
        return True


def _binary_key(message: int | bytes, name: str) -> Key:
    fields = decode(_bytes(message))
    data = decode(_last(fields, 1, b""))
    return _key(
        _last(fields, 3, 0),
        Prefix(_last(fields, 4, 0)),
        Status(_last(fields, 2, 0)),
        url=_last(data, 1, b"").decode(),
        value=_last(data, 2, b""),
        name=name,
    )


def _key(key_id: int, prefix: Prefix, status: Status, *, url: str, value: bytes, name: str) -> Key:
    """A key from its parts; raises ValueError, TypeError or KeysetError for a malformed one."""
    if not 0 <= key_id <= _MAX_ID:
        raise ValueError("key id out of range")
    if status is Status.DESTROYED:
        return Key(key_id, prefix, status, b"")
    if url not in _URLS:
        kind = url.rsplit(".", 1)[-1][:60]
        raise KeyUnsupportedError(name, kind if kind.isalnum() else "no HPKE key", key_id=key_id)
    private = None
    if _URLS[url] is _Material.ASYMMETRIC_PRIVATE:
        fields = decode(value)
        private, value = _last(fields, 3, b""), _last(fields, 2, b"")
    fields = decode(value)
    params = decode(_last(fields, 2, b""))
    suite = tuple(_last(params, number, 0) for number in (1, 2, 3))
    if suite != _SUITE or _last(fields, 1, 0) != 0:
        kind = "HPKE with kem={} kdf={} aead={}".format(*suite)
        raise KeyUnsupportedError(name, kind, key_id=key_id)
    public = _last(fields, 3, b"")
    fault = _fault(public, private)
    if fault:
        remedy = "copy or export the whole keyset again"
        raise KeysetMalformedError(name, f"of key {key_id} {fault}", remedy)
    return Key(key_id, prefix, status, public, private)


def _fault(public: bytes, private: bytes | None) -> str:
    """What is wrong with the parts of a key; nothing of them is said but their length."""
    for which, part in (("public", public), ("private", private)):
        if part is not None and len(part) != KEY_BYTES:
            return f"the {which} part is {len(part)} bytes long, not {KEY_BYTES}"
    if private is None:
        return ""
    derived = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    return "" if derived == public else "the private and the public part do not belong together"


def _checked(keys: Sequence[Key], primary_id: int, name: str) -> Keyset:
    if not keys:
        raise KeysetMalformedError(name, "holds no key")
    if not 0 <= primary_id <= _MAX_ID:
        raise ValueError("primary id out of range")
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


def _material(key: Key) -> _Material:
    return _Material.ASYMMETRIC_PUBLIC if key.private is None else _Material.ASYMMETRIC_PRIVATE


def _key_data(key: Key) -> bytes:
    material = _material(key)
    return encode([(1, _URL_OF[material].encode()), (2, _value(key)), (3, material)])


def _value(key: Key) -> bytes:
    if key.status is Status.DESTROYED:
        return b""
    params = encode([(number, value) for number, value in enumerate(_SUITE, 1)])
    public = encode([(2, params), (3, key.public)])
    return public if key.private is None else encode([(2, public), (3, key.private)])
