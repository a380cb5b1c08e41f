"""Google's Tink, the oracle: it makes, reads, seals and opens on its own."""

from __future__ import annotations

from typing import Any

import tink
from tink import hybrid, secret_key_access

from ctbatch.crypto.keyset import Keyset, to_json

__all__ = ["binary_of", "handle_of", "json_of", "new_handle", "open_", "seal"]

hybrid.register()

_TOKEN = secret_key_access.TOKEN


def new_handle(template: str = "DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM") -> Any:
    """A new private keyset of Tink's own making."""
    return tink.new_keyset_handle(getattr(hybrid.hybrid_key_templates, template))


def handle_of(keyset: Keyset) -> Any:
    """Our keyset as Tink reads it."""
    return tink.json_proto_keyset_format.parse(to_json(keyset).decode(), _TOKEN)


def json_of(handle: Any) -> bytes:
    """Tink's keyset in Tink's JSON."""
    text: str = tink.json_proto_keyset_format.serialize(handle, _TOKEN)
    return text.encode()


def binary_of(handle: Any) -> bytes:
    """Tink's keyset in Tink's binary form."""
    data: bytes = tink.proto_keyset_format.serialize(handle, _TOKEN)
    return data


def seal(public: Any, plaintext: bytes, info: bytes) -> bytes:
    """Seal as Tink does."""
    sealed: bytes = public.primitive(hybrid.HybridEncrypt).encrypt(plaintext, info)
    return sealed


def open_(private: Any, ciphertext: bytes, info: bytes) -> bytes:
    """Open as Tink does."""
    opened: bytes = private.primitive(hybrid.HybridDecrypt).decrypt(ciphertext, info)
    return opened
