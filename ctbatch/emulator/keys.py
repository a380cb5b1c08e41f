"""The keys of both sides: the service's private keyset, the customer's public one, rotation.

Invariants:

1. The private keysets and the passcode are 0600; a rotation replaces files by write and rename.
2. Two of the service's keys are active, the primary and the previous: what was sealed just before a
   rotation still opens.
3. ``open`` and the ``seal`` methods do no I/O; everything else may block.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final, Self

from ctbatch.crypto import keyset
from ctbatch.crypto.hpke import OpeningKeys, SealingKey
from ctbatch.errors import SettingsError
from ctbatch.settings import Secret

__all__ = ["Keys", "passcode_of", "prepare"]

_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644


class Keys:
    """What the service holds. The customer's private keyset is written for the customer's use and
    never read here.
    """

    _sealing: SealingKey
    _foreign: SealingKey
    _opening: OpeningKeys

    def __init__(self, directory: Path, info: bytes) -> None:
        self._info = info
        self.server_public = directory / "server-public.json"
        self.server_private = directory / "server-private.json"
        self.client_public = directory / "client-public.json"
        self.client_private = directory / "client-private.json"

    @classmethod
    def open_or_make(cls, directory: Path, info: bytes, *, raw: bool) -> Self:
        """The keys in the directory; whichever pair is missing is made."""
        keys = cls(directory, info)
        prefix = keyset.Prefix.RAW if raw else keyset.Prefix.TINK
        for private, public in (
            (keys.server_private, keys.server_public),
            (keys.client_private, keys.client_public),
        ):
            if not private.exists() and not public.exists():
                made = keyset.generate(prefix)
                _write(private, keyset.to_json(made), _PRIVATE)
                _write(public, keyset.to_json(made.public()), _PUBLIC)
        keys.take_client_key()
        keys._foreign = SealingKey(keyset.generate().public(), info)
        keys._activate()
        return keys

    def open(self, body: bytes) -> tuple[bytes, int | None]:
        """The plaintext and the id of the key that opened it. Raises :class:`OpenError`."""
        opened = self._opening.open(body)
        return opened.plaintext, opened.key_id

    def seal(self, plain: bytes) -> bytes:
        """Seal to the customer."""
        return self._sealing.seal(plain)

    def seal_foreign(self, plain: bytes) -> bytes:
        """Seal to somebody else."""
        return self._foreign.seal(plain)

    def rotate(self) -> None:
        """Make a new primary; the old one is the previous, the one before that is gone."""
        rotated = keyset.rotate(keyset.load_private(self.server_private))
        active = keyset.Keyset(rotated.keys[-2:], rotated.primary_id)
        handed_out = keyset.Keyset((active.primary,), active.primary_id).public()
        _write(self.server_private, keyset.to_json(active), _PRIVATE)
        _write(self.server_public, keyset.to_json(handed_out), _PUBLIC)
        self._activate()

    def take_client_key(self) -> None:
        """Seal to the public keyset that lies there now, as after the customer handed over a new
        one. Raises :class:`KeysetError`.
        """
        self._sealing = SealingKey(keyset.load_public(self.client_public), self._info)

    def _activate(self) -> None:
        self._opening = OpeningKeys(keyset.load_private(self.server_private), self._info)


def prepare(directory: Path) -> None:
    """Make the directory, private to this user. Raises :class:`SettingsError`."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError("--keys-dir", f"{directory} cannot be made ({error})") from None


def passcode_of(directory: Path, given: Secret | None) -> Secret:
    """The passcode given, else the one kept in the directory, else a new one that is kept there."""
    kept = directory / "passcode"
    if given is not None:
        return given
    if not kept.exists():
        _write(kept, secrets.token_urlsafe(18).encode(), _PRIVATE)
    return Secret(kept.read_text().strip())


def _write(path: Path, content: bytes, mode: int) -> None:
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    # Made with its mode, so that there is no moment at which others can read it.
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    new.replace(path)
