"""Sealing is RFC 9180's, and every way in which a message does not open has its own error."""

from __future__ import annotations

import json
import pickle
import random
from dataclasses import replace
from pathlib import Path

import pyhpke.exceptions
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhpke import KEMKey, KEMKeyPair

from ctbatch.crypto import hpke
from ctbatch.crypto.hpke import OpeningKeys, SealingKey, check_apart, check_pair, check_sealing
from ctbatch.crypto.keyset import Key, Keyset, Prefix, Status, generate, parse, rotate, to_pem
from ctbatch.errors import (
    CiphertextCutError,
    ForeignKeyError,
    KeyKindError,
    KeyMismatchError,
    KeysetMalformedError,
    NotSealedError,
    OpenError,
    SealBrokenError,
    SealFailedError,
)

INFO = b"TEST-123-456Z"
VECTOR = json.loads(
    (Path(__file__).parent.parent / "vectors/hpke_x25519_sha256_aes256gcm.json").read_text()
)
KEYSET = generate()
SEALING = SealingKey(KEYSET.public(), INFO)
OPENING = OpeningKeys(KEYSET, INFO)
PLAINTEXT = b'{"d":[{"type":"profile"}]}'


def _hex(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


def _pair(private: bytes) -> KEMKeyPair:
    key = X25519PrivateKey.from_private_bytes(private)
    from_key = KEMKey.from_pyca_cryptography_key
    return KEMKeyPair(from_key(key), from_key(key.public_key()))


def test_we_seal_as_rfc_9180_does() -> None:
    """With the vector's ephemeral key, ``enc`` and ciphertext are the vector's."""
    recipient, (message,) = _pair(_hex("skRm")), VECTOR["encryptions"]
    enc, ct = hpke.seal_base(
        recipient.public_key,
        _hex("info"),
        bytes.fromhex(message["pt"]),
        aad=bytes.fromhex(message["aad"]),
        ephemeral=_pair(_hex("skEm")),
    )
    assert recipient.public_key.to_public_bytes() == _hex("pkRm")
    assert enc == _hex("enc")
    assert ct == bytes.fromhex(message["ct"])


def test_we_open_as_rfc_9180_does() -> None:
    """The vector's ciphertext opens to the vector's plaintext."""
    (message,) = VECTOR["encryptions"]
    sealed = _hex("enc") + bytes.fromhex(message["ct"])
    aad = bytes.fromhex(message["aad"])
    opened = hpke.open_base(_pair(_hex("skRm")).private_key, _hex("info"), sealed, aad=aad)
    assert opened == bytes.fromhex(message["pt"])


@pytest.mark.parametrize("prefix", Prefix)
def test_a_sealed_message_has_tinks_layout(prefix: Prefix) -> None:
    """Prefix, 32 bytes of ``enc``, the message, 16 bytes of tag."""
    keyset = generate(prefix)
    key = SealingKey(keyset.public(), INFO)
    sealed = key.seal(PLAINTEXT)
    start = {Prefix.TINK: b"\x01", Prefix.RAW: b""}.get(prefix, b"\x00")
    expected = b"" if prefix is Prefix.RAW else start + keyset.primary_id.to_bytes(4, "big")
    assert sealed.startswith(expected)
    assert len(sealed) == len(expected) + 32 + len(PLAINTEXT) + 16
    assert key.key_id == (None if prefix is Prefix.RAW else keyset.primary_id)


def test_every_message_has_an_ephemeral_key_of_its_own() -> None:
    """Nothing but the prefix repeats between two seals of one message."""
    first, second = SEALING.seal(PLAINTEXT), SEALING.seal(PLAINTEXT)
    assert first[:5] == second[:5]
    assert first[5:37] != second[5:37]
    assert first[37:] != second[37:]


def test_another_account_id_does_not_open() -> None:
    """The error names the account id as a likely cause, and shows ours."""
    with pytest.raises(SealBrokenError, match=r"account id \(HPKE info, here 'other'\)"):
        OpeningKeys(KEYSET, b"other").open(SEALING.seal(PLAINTEXT))


def test_a_message_to_somebody_else_names_both_keys() -> None:
    """Sealed to a key that we do not hold: the error names it, and those that we hold."""
    other = generate()
    sealed = SealingKey(other.public(), INFO).seal(PLAINTEXT)
    with pytest.raises(ForeignKeyError, match=f"{other.primary_id}.*has {KEYSET.primary_id}"):
        OPENING.open(sealed)


@pytest.mark.parametrize("status", [Status.DISABLED, Status.DESTROYED])
def test_a_key_that_is_out_of_use_does_not_open(status: Status) -> None:
    """The error says that the key is there, but not enabled."""
    rotated = rotate(KEYSET)
    old = replace(rotated.keys[0], status=status)
    keyset = Keyset((old, rotated.keys[1]), rotated.primary_id)
    with pytest.raises(ForeignKeyError, match=status.name.lower()):
        OpeningKeys(keyset, INFO).open(SEALING.seal(PLAINTEXT))


@given(at=st.integers(min_value=5), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_no_flipped_bit_goes_unnoticed(at: int, bit: int) -> None:
    """Wherever it is behind the prefix, which is a hint: the seal is broken."""
    sealed = bytearray(SEALING.seal(PLAINTEXT))
    sealed[5 + at % (len(sealed) - 5)] ^= 1 << bit
    # Even the top bit of ``enc``, which X25519 ignores (RFC 7748): HPKE hashes all of it.
    with pytest.raises(SealBrokenError):
        OPENING.open(bytes(sealed))


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("at", range(5))
def test_a_flipped_bit_in_the_prefix_does_no_harm(at: int, bit: int) -> None:
    """The prefix is not authenticated: the key is found, or the message is foreign or broken."""
    sealed = bytearray(SEALING.seal(PLAINTEXT))
    sealed[at] ^= 1 << bit
    if sealed[0] in {0, 1}:
        assert OPENING.open(bytes(sealed)).plaintext == PLAINTEXT
    else:
        with pytest.raises(SealBrokenError):
            OPENING.open(bytes(sealed))


@given(kept=st.integers(0, 5 + 48 + len(PLAINTEXT) - 1))
@settings(max_examples=80, deadline=None)
def test_a_cut_message_does_not_open(kept: int) -> None:
    """Below the least size the error says that it is cut; above, that the seal is broken."""
    expected = CiphertextCutError if 0 < kept < 53 else (SealBrokenError, NotSealedError)
    with pytest.raises(expected):
        OPENING.open(SEALING.seal(PLAINTEXT)[:kept])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        PLAINTEXT,
        b'{\n "status": "fail"\n}',
        b"<html>\n" + b"Bad Gateway " * 9,
        b"x" * 99,
        b'[{"n":1}]',
    ],
)
def test_readable_text_is_told_from_a_broken_seal(text: bytes) -> None:
    """An answer in plaintext is not a matter of keys, and the error does not quote it."""
    with pytest.raises(NotSealedError) as caught:
        OPENING.open(text)
    assert "status" not in str(caught.value)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_bytes_open_or_escape(data: bytes) -> None:
    """Whatever comes in, what comes out is an OpenError."""
    with pytest.raises(OpenError):
        OPENING.open(data)


@pytest.mark.parametrize("point", [0, 1])
def test_a_point_of_low_order_is_a_broken_seal(point: int) -> None:
    """The curve's library raises ValueError here, which must not end a run as a bug."""
    prefix = KEYSET.primary.output_prefix
    with pytest.raises(SealBrokenError):
        OPENING.open(prefix + point.to_bytes(32, "little") + bytes(200))


def test_a_weak_public_key_is_refused_before_the_first_batch() -> None:
    """Not when a run already reads its input."""
    weak = Keyset((Key(5, Prefix.TINK, Status.ENABLED, bytes(32)),), 5)
    with pytest.raises(KeysetMalformedError, match="weak"):
        SealingKey(weak, INFO)


@pytest.mark.parametrize("sent", Prefix)
@pytest.mark.parametrize("held", Prefix)
def test_a_reply_opens_whatever_prefix_the_other_side_knows(sent: Prefix, held: Prefix) -> None:
    """The service may hold our key by another prefix and id, or without any (PEM)."""
    ours = replace(KEYSET.primary, prefix=held)
    theirs = replace(KEYSET.public().primary, prefix=sent, id=77)
    sealed = SealingKey(Keyset((theirs,), 77), INFO).seal(PLAINTEXT)
    opened = OpeningKeys(Keyset((ours,), ours.id), INFO).open(sealed)
    assert opened.plaintext == PLAINTEXT
    assert opened.key_id == (None if held is Prefix.RAW else ours.id)


def test_keys_that_share_an_id_are_all_tried() -> None:
    """Tink allows it for all but the primary."""
    first, second = generate().primary, generate().primary
    primary = generate().primary
    keyset = Keyset((replace(first, id=9), replace(second, id=9), primary), primary.id)
    for key in keyset.keys[:2]:
        sealing = SealingKey(Keyset((replace(key, private=None),), 9), INFO)
        assert OpeningKeys(keyset, INFO).open(sealing.seal(b"x")).key_id == 9


def test_a_keyset_of_the_wrong_kind_is_refused() -> None:
    """Private keysets do not seal, public ones do not open."""
    with pytest.raises(KeyKindError, match="private"):
        SealingKey(KEYSET, INFO)
    with pytest.raises(KeyKindError, match="public"):
        OpeningKeys(KEYSET.public(), INFO)


def test_a_sealing_key_pickles_and_opening_keys_do_not() -> None:
    """Workers seal; private keys stay in the process that loaded them."""
    copy = pickle.loads(pickle.dumps(SEALING))  # noqa: S301  # our own, a moment old
    assert OPENING.open(copy.seal(b"x")).plaintext == b"x"
    with pytest.raises(TypeError, match="private"):
        pickle.dumps(OPENING)


def test_nothing_that_is_shown_holds_plaintext_or_private_bytes() -> None:
    """Neither keys nor messages show themselves in a ``repr``."""
    opened = OPENING.open(SEALING.seal(b"Asha Rao"))
    assert "Asha" not in repr(opened)
    private = KEYSET.primary.private
    assert private is not None
    for shown in (repr(OPENING), repr(KEYSET), repr(KEYSET.primary)):
        assert repr(private)[2:-1] not in shown
        assert private.hex() not in shown


@pytest.mark.parametrize("kind", [*pyhpke.exceptions.PyHPKEError.__subclasses__(), ValueError])
def test_every_foreign_error_is_translated(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new error class of pyhpke that does not descend from its root would fail here."""
    sealed = SEALING.seal(b"message")
    named = [
        error
        for error in vars(pyhpke.exceptions).values()
        if isinstance(error, type) and issubclass(error, Exception)
    ]
    assert all(issubclass(error, pyhpke.exceptions.PyHPKEError) for error in named)

    class Broken:
        """Stands in for the library."""

        def __getattr__(self, name: str) -> object:
            raise kind

    monkeypatch.setattr(hpke, "_SUITE", Broken())
    with pytest.raises(OpenError):
        OPENING.open(sealed)
    with pytest.raises(KeysetMalformedError, match="weak or broken"):
        SealingKey(KEYSET.public(), b"")
    with pytest.raises(SealFailedError, match="7 bytes") as caught:
        SEALING.seal(b"message")
    assert isinstance(caught.value.__cause__, kind)
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # our own, a moment old
    assert copy.size == 7


def test_a_pair_is_told_from_two_strangers() -> None:
    """A canary decides; the error says where to look."""
    assert check_pair(KEYSET.public(), KEYSET) == KEYSET.primary_id
    assert check_pair(parse(to_pem(KEYSET)).public(), KEYSET) is None
    with pytest.raises(KeyMismatchError, match="fingerprints"):
        check_pair(generate().public(), KEYSET)


def test_our_own_public_key_is_no_server_key() -> None:
    """Naming one's own public key as the service's is a likely slip; the service could not open."""
    other = generate().public()
    check_apart(other, KEYSET)
    assert check_sealing(other) == other.primary_id
    with pytest.raises(KeyMismatchError, match="your own"):
        check_apart(KEYSET.public(), KEYSET)


def test_a_megabyte_survives() -> None:
    """A message of a usual batch's size comes back as it was."""
    plaintext = random.Random(1).randbytes(1_000_000)
    assert OPENING.open(SEALING.seal(plaintext)).plaintext == plaintext
