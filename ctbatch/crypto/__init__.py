"""Keys and sealing: Tink keysets, X25519 PEM, HPKE in Tink's ciphertext form.

* :mod:`~ctbatch.crypto.keys`: the values, a key and a keyset, and making new ones.
* :mod:`~ctbatch.crypto.tink` (on :mod:`~ctbatch.crypto.protobuf`) and :mod:`~ctbatch.crypto.pem`:
  the forms a keyset is written in; pure.
* :mod:`~ctbatch.crypto.keyset`: one face for all of these, and reading key files.
* :mod:`~ctbatch.crypto.keyfiles`: who may read and write a key file, and writing one safely.
* :mod:`~ctbatch.crypto.upkeep`: making, rotating and converting key files.
* :mod:`~ctbatch.crypto.hpke`: sealing and opening; the only importer of pyhpke.

Why a reader of our own (2026-11): five small messages do not earn a dependency on protobuf, and
Tink itself would bring a compiled one. Tink is the oracle of the tests instead.
"""

__all__: list[str] = []
