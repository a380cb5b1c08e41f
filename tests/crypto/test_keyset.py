"""Keysets in every form parse to the same values, and what is wrong with one is said clearly."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from tink import aead, json_proto_keyset_format, new_keyset_handle, proto_keyset_format

from ctbatch.crypto.keyset import (
    Form,
    Key,
    Keyset,
    Prefix,
    Status,
    fingerprint,
    form_of,
    generate,
    parse,
    parse_public,
    rotate,
    to_form,
    to_json,
    to_pem,
)
from ctbatch.crypto.protobuf import encode
from ctbatch.errors import (
    KeyKindError,
    KeysetEncryptedError,
    KeysetError,
    KeysetMalformedError,
    KeyUnsupportedError,
    PassphraseError,
)
from ctbatch.settings import Secret
from tests.crypto import oracle

KEYSET = generate()
WORD = Secret("correct horse")


def _key(prefix: Prefix, status: Status) -> Key:
    key = replace(generate(prefix).primary, status=status)
    return replace(key, public=b"", private=None) if status is Status.DESTROYED else key


keys = st.builds(_key, st.sampled_from(Prefix), st.sampled_from(Status))


def _edited(edit: Callable[[Any], None], keyset: Keyset = KEYSET) -> bytes:
    raw = json.loads(to_json(keyset))
    edit(raw)
    return json.dumps(raw).encode()


@given(st.lists(keys, max_size=4))
@settings(max_examples=25, deadline=None)
def test_every_keyset_survives_every_tink_form(others: list[Key]) -> None:
    """Several keys, every prefix and status; the private and the public keyset."""
    keyset = Keyset((*others, KEYSET.primary), KEYSET.primary_id)
    for form in (Form.TINK_JSON, Form.TINK_BINARY):
        for given_ in (keyset, keyset.public()):
            written = to_form(given_, form)
            assert form_of(written) is form
            assert parse(written) == given_


def test_pem_holds_one_key_with_and_without_passphrase() -> None:
    """The key survives; id and prefix, which PEM cannot hold, do not."""
    for form in (to_pem(KEYSET), to_pem(KEYSET, WORD)):
        (key,) = parse(form, passphrase=WORD).keys
        assert (key.public, key.private) == (KEYSET.primary.public, KEYSET.primary.private)
        assert (key.id, key.prefix) == (0, Prefix.RAW)
    (key,) = parse(to_pem(KEYSET.public())).keys
    assert (key.public, key.private) == (KEYSET.primary.public, None)


def test_a_locked_pem_key_says_what_it_needs() -> None:
    """Missing and wrong passphrases are told apart, and no message shows one."""
    locked = to_pem(KEYSET, WORD)
    with pytest.raises(PassphraseError, match="protected by a passphrase"):
        parse(locked)
    with pytest.raises(PassphraseError, match="does not open with that") as caught:
        parse(locked, passphrase=Secret("battery staple"))
    assert "battery" not in repr(caught.value)


@pytest.mark.parametrize("cut", [1, 3, 10])
def test_a_damaged_pem_key_is_malformed(cut: int) -> None:
    """Not a matter of passphrases."""
    lines = to_pem(KEYSET).splitlines()
    with pytest.raises(KeysetMalformedError, match="PEM"):
        parse(b"\n".join([lines[0], lines[1][:-cut], lines[2]]))


def test_one_pem_file_is_one_key() -> None:
    """Which of several was meant cannot be known."""
    with pytest.raises(KeysetMalformedError, match="several"):
        parse(to_pem(KEYSET) + to_pem(KEYSET))
    with pytest.raises(KeyKindError, match="2 keys"):
        to_pem(rotate(KEYSET))


@pytest.mark.parametrize(
    "other",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        X448PrivateKey.generate(),
    ],
    ids=["rsa", "p256", "x448"],
)
def test_another_kind_of_pem_key_is_named(
    other: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | X448PrivateKey,
) -> None:
    """The error says what it is and what is needed, for the private and the public form."""
    private = other.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = other.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for text in (private, public):
        with pytest.raises(KeyUnsupportedError, match="X25519"):
            parse(text)


def test_an_unknown_kind_of_pem_key_is_unsupported() -> None:
    """The object identifier after X25519's, which nobody knows."""
    lines = to_pem(KEYSET.public()).splitlines()
    der = base64.b64decode(lines[1]).replace(b"\x2b\x65\x6e", b"\x2b\x65\x60")
    with pytest.raises(KeyUnsupportedError, match="not X25519"):
        parse(b"\n".join([lines[0], base64.b64encode(der), lines[2]]))


@pytest.mark.parametrize(
    "template",
    [
        "DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_128_GCM",
        "DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_CHACHA20_POLY1305",
        "ECIES_P256_HKDF_HMAC_SHA256_AES128_GCM",
    ],
)
def test_another_suite_is_named(template: str) -> None:
    """Tink's other hybrid keys are refused with the key's id and the suite that is needed."""
    handle = oracle.new_handle(template)
    for data in (oracle.json_of(handle), oracle.binary_of(handle)):
        with pytest.raises(KeyUnsupportedError, match=r"key \d+ .*AES_256_GCM only"):
            parse(data)


def test_an_encrypted_keyset_is_explained() -> None:
    """Both forms of a KMS-encrypted keyset are recognised, and the error says what to do."""
    aead.register()
    template = aead.aead_key_templates.AES256_GCM
    wrapping = new_keyset_handle(template).primitive(aead.Aead)
    handle = oracle.new_handle()
    text = json_proto_keyset_format.serialize_encrypted(handle, wrapping, b"")
    data = proto_keyset_format.serialize_encrypted(handle, wrapping, b"")
    for encrypted in (text.encode(), data):
        with pytest.raises(KeysetEncryptedError, match="tinkey"):
            parse(encrypted)


def test_a_private_keyset_is_refused_where_a_public_one_belongs() -> None:
    """In every form; a locked one does not even ask for its passphrase."""
    for form in (to_json(KEYSET), to_form(KEYSET, Form.TINK_BINARY), to_pem(KEYSET, WORD)):
        with pytest.raises(KeyKindError, match="private keyset where a public one"):
            parse_public(form)
    assert not parse_public(to_json(KEYSET.public())).is_private


@pytest.mark.parametrize(
    ("status", "word"), [(Status.DISABLED, "disabled"), (Status.DESTROYED, "destroyed")]
)
def test_a_primary_that_is_out_of_use_is_refused(status: Status, word: str) -> None:
    """It can be looked at, but nothing is sealed with it."""
    key = replace(KEYSET.public().primary, status=status)
    seen = parse(to_json(Keyset((key,), key.id)))
    assert not seen.enabled
    with pytest.raises(KeyKindError, match=word):
        parse_public(to_json(seen))


def test_a_primary_must_be_there_and_be_one() -> None:
    """As in Tink: without a primary, or with two, nobody could say which key seals."""
    public = KEYSET.public()
    with pytest.raises(KeyKindError, match="no key with its primary id 5"):
        parse_public(to_json(Keyset(public.keys, 5)))
    twin = replace(generate().public().primary, id=public.primary_id)
    with pytest.raises(KeyKindError, match="two enabled keys"):
        parse_public(to_json(Keyset((*public.keys, twin), public.primary_id)))
    # Where one of the two is disabled there is no doubt.
    twin = replace(twin, status=Status.DISABLED)
    found = parse_public(to_json(Keyset((twin, *public.keys), public.primary_id)))
    assert found.primary == public.primary


def test_protobufs_json_spellings_are_read() -> None:
    """Snake case, numbers as strings, enums as numbers, the other base64, a BOM."""
    (key,) = json.loads(to_json(KEYSET))["key"]
    value = base64.urlsafe_b64encode(base64.b64decode(key["keyData"]["value"])).rstrip(b"=")
    raw = {
        "primary_key_id": str(KEYSET.primary_id),
        "key": [
            {
                "key_data": {"type_url": key["keyData"]["typeUrl"], "value": value.decode()},
                "status": 1,
                "key_id": str(KEYSET.primary_id),
                "output_prefix_type": 1,
            }
        ],
    }
    assert parse(b"\xef\xbb\xbf\n" + json.dumps(raw).encode()) == KEYSET


@pytest.mark.parametrize("form", [Form.TINK_JSON, Form.TINK_BINARY])
@pytest.mark.parametrize("change", ["halves", "private", "public"])
def test_a_key_whose_parts_are_wrong_says_which(form: Form, change: str) -> None:
    """It is a keyset, whatever else it is; and nothing of the parts is shown."""
    key, other = KEYSET.primary, generate().primary
    assert key.private is not None
    said = {
        "halves": (replace(key, public=other.public), "do not belong together"),
        "private": (replace(key, private=key.private[:-1]), "private part is 31 bytes"),
        "public": (replace(key, public=key.public + b"x"), "public part is 33 bytes"),
    }
    wrong, why = said[change]
    data = to_form(Keyset((wrong,), key.id), form)
    with pytest.raises(KeysetMalformedError, match=rf"^mine: of key {key.id} .*{why}") as caught:
        parse(data, name="mine")
    assert wrong.public.hex() not in str(caught.value)


@pytest.mark.parametrize("point", [0, 1])
def test_a_weak_public_key_names_its_file(point: int) -> None:
    """A point of low order is found when it is read, not in the first batch."""
    key = replace(KEYSET.public().primary, public=point.to_bytes(32, "little"))
    keyset = Keyset((key,), key.id)
    with pytest.raises(KeysetMalformedError, match=rf"^theirs: .*{key.id} is weak"):
        parse_public(to_json(keyset), name="theirs")
    assert parse(to_json(keyset)) == keyset


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" \n",
        b"hello",
        b"{",
        b"{}",
        b'{"key":[]}',
        b'{"key":7}',
        b'{"key":[7]}',
        b"\x00\x01\x02",
        b"{" * 5000,
        _edited(lambda raw: raw["key"][0].pop("status")),
        _edited(lambda raw: raw["key"][0].pop("outputPrefixType")),
        _edited(lambda raw: raw["key"][0].update(status="ASLEEP")),
        _edited(lambda raw: raw["key"][0].update(keyId=-1)),
        _edited(lambda raw: raw["key"][0].update(keyId=1.5)),
        _edited(lambda raw: raw.update(primaryKeyId=1 << 32)),
        _edited(lambda raw: raw["key"][0].update(keyData=[])),
        _edited(lambda raw: raw["key"][0]["keyData"].update(value="*")),
        _edited(lambda raw: raw["key"][0]["keyData"].update(value="AAAA")),
        encode([(1, 1), (2, 5)]),
        encode([(1, 1), (2, encode([(1, encode([(1, 7)]))]))]),
    ],
)
def test_what_is_no_keyset_is_malformed(data: bytes) -> None:
    """Never a traceback, whatever is in the file."""
    with pytest.raises(KeysetMalformedError):
        parse(data)


def test_key_material_of_the_wrong_size_is_malformed() -> None:
    """A public key is 32 bytes; a private one is, too, and belongs to it."""
    short = replace(KEYSET.public().primary, public=b"x" * 31)
    with pytest.raises(KeysetMalformedError):
        parse(to_json(Keyset((short,), short.id)))
    for private in (b"x" * 31, generate().primary.private):
        stranger = replace(KEYSET.primary, private=private)
        with pytest.raises(KeysetMalformedError):
            parse(to_json(Keyset((stranger,), stranger.id)))


def test_private_and_public_keys_do_not_mix() -> None:
    """Nobody could say whether such a file may be handed out."""
    mixed = Keyset((KEYSET.primary, generate().public().primary), KEYSET.primary_id)
    with pytest.raises(KeysetMalformedError, match="mixes"):
        parse(to_json(mixed))


def test_a_key_of_no_hpke_kind_is_unsupported() -> None:
    """What the file calls its type is not repeated if it is not a name."""
    odd = _edited(lambda raw: raw["key"][0]["keyData"].update(typeUrl="x.\x1b[2J"))
    with pytest.raises(KeyUnsupportedError, match="no HPKE key"):
        parse(odd)
    newer = encode([(1, 1), (2, encode([(1, 1), (2, 1), (3, 2)])), (3, bytes(32))])
    value = base64.b64encode(newer).decode()
    with pytest.raises(KeyUnsupportedError):
        parse(_edited(lambda raw: raw["key"][0]["keyData"].update(value=value), KEYSET.public()))


@given(st.integers(min_value=0), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_no_damage_to_a_keyset_causes_anything_but_a_keyset_error(at: int, xor: int) -> None:
    """And no message shows private bytes."""
    data = bytearray(to_form(KEYSET, Form.TINK_BINARY))
    data[at % len(data)] ^= xor
    said = ""
    try:
        parse(bytes(data))
    except KeysetError as error:
        said = f"{error}{error!r}"
    private = KEYSET.primary.private
    assert private is not None
    assert private.hex() not in said
    assert repr(private)[2:-1] not in said


def test_only_pem_can_be_locked() -> None:
    """A passphrase is never silently left out."""
    for form in (Form.TINK_JSON, Form.TINK_BINARY):
        with pytest.raises(KeyKindError, match="PEM"):
            to_form(KEYSET, form, passphrase=WORD)


def test_a_rotation_keeps_the_old_keys() -> None:
    """The new primary has a new id and the old one's prefix."""
    old = generate(Prefix.CRUNCHY)
    new = rotate(old)
    assert new.keys[0] == old.primary
    assert new.primary.prefix is Prefix.CRUNCHY
    assert new.primary_id != old.primary_id


def test_a_fingerprint_is_of_the_public_part() -> None:
    """Both sides compare the same number, whichever half of the pair they hold."""
    assert fingerprint(KEYSET.primary) == fingerprint(KEYSET.public().primary)
    assert fingerprint(KEYSET.primary) != fingerprint(generate().primary)


def test_keysets_pickle_and_are_frozen() -> None:
    """They cross process borders and nobody changes them on the way."""
    copy = pickle.loads(pickle.dumps(KEYSET.public()))  # noqa: S301  # our own, a moment old
    assert copy == KEYSET.public()
    with pytest.raises(AttributeError):
        KEYSET.primary_id = 5  # type: ignore[misc]  # what must not work
