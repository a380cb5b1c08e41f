"""Google's Tink and we understand each other, both ways, in every form and with every prefix."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctbatch.crypto.hpke import OpeningKeys, SealingKey
from ctbatch.crypto.keyset import Form, Keyset, Prefix, Status, generate, parse, rotate, to_form
from tests.crypto import oracle

INFO = b"TEST-123-456Z"
SIZES = st.integers(0, 5_000_000)
KEYSETS = {prefix: generate(prefix) for prefix in Prefix}
HANDLES = {prefix: oracle.handle_of(keyset) for prefix, keyset in KEYSETS.items()}


@pytest.mark.parametrize("prefix", Prefix)
@given(size=SIZES, info=st.binary(max_size=64))
@example(size=0, info=INFO)
@example(size=5_000_000, info=INFO)
@settings(max_examples=12, deadline=None)
def test_tink_opens_what_we_seal(prefix: Prefix, size: int, info: bytes) -> None:
    """Any message up to 5 MB, any info, every prefix."""
    plaintext = random.Random(size).randbytes(size)
    sealed = SealingKey(KEYSETS[prefix].public(), info).seal(plaintext)
    assert oracle.open_(HANDLES[prefix], sealed, info) == plaintext


@pytest.mark.parametrize("prefix", Prefix)
@given(size=SIZES, info=st.binary(max_size=64))
@example(size=0, info=INFO)
@example(size=5_000_000, info=INFO)
@settings(max_examples=12, deadline=None)
def test_we_open_what_tink_seals(prefix: Prefix, size: int, info: bytes) -> None:
    """Any message up to 5 MB, any info, every prefix; the key id is told unless it is RAW."""
    plaintext = random.Random(size).randbytes(size)
    sealed = oracle.seal(HANDLES[prefix].public_keyset_handle(), plaintext, info)
    opened = OpeningKeys(KEYSETS[prefix], info).open(sealed)
    assert opened.plaintext == plaintext
    assert opened.key_id == (None if prefix is Prefix.RAW else KEYSETS[prefix].primary_id)


def test_we_read_tinks_forms_and_write_the_same_binary() -> None:
    """Tink's JSON and binary are one keyset to us, and our binary is Tink's, byte for byte."""
    handle = oracle.new_handle()
    keyset = parse(oracle.json_of(handle))
    assert keyset.is_private
    assert parse(oracle.binary_of(handle)) == keyset
    assert to_form(keyset, Form.TINK_BINARY) == oracle.binary_of(handle)


def test_tink_reads_a_keyset_of_many_keys() -> None:
    """Rotated, with a disabled and a destroyed key: Tink seals with our primary."""
    keyset = rotate(rotate(rotate(generate())))
    first, second, *rest = keyset.keys
    disabled = replace(first, status=Status.DISABLED)
    keyset = Keyset((disabled, second, *rest), keyset.primary_id)
    sealed = oracle.seal(oracle.handle_of(keyset).public_keyset_handle(), b"x", INFO)
    assert OpeningKeys(keyset, INFO).open(sealed).key_id == keyset.primary_id


def test_tink_reads_what_was_a_pem_key() -> None:
    """A PEM key has id 0 and no prefix; that survives the way through Tink's forms."""
    pem = parse(to_form(generate(), Form.PEM))
    sealed = oracle.seal(oracle.handle_of(pem).public_keyset_handle(), b"x", INFO)
    binary = parse(to_form(pem, Form.TINK_BINARY))
    assert binary == pem
    assert OpeningKeys(binary, INFO).open(sealed).plaintext == b"x"


def test_tink_opens_old_messages_after_a_rotation() -> None:
    """What was sealed before a rotation opens with the rotated keyset, in Tink and here."""
    old = generate()
    sealed = SealingKey(old.public(), INFO).seal(b"x")
    rotated = rotate(old)
    assert oracle.open_(oracle.handle_of(rotated), sealed, INFO) == b"x"
    assert OpeningKeys(rotated, INFO).open(sealed).key_id == old.primary_id
