"""Keys and sealing: Tink keysets, X25519 PEM, HPKE in Tink's ciphertext form."""
