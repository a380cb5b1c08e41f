"""The keys of a run as they are now: loaded at its start, read again where a file was replaced.

The service rotates its key once a year, people rotate theirs, and a run takes hours. So before a
refusal is believed to be one, the key files are looked at; a replaced one is taken up, what was
sealed before is sealed anew, and the run goes on.

Invariants:

1. A file is read again only if it is another than before (or if a person asks for it), and one that
   cannot be used leaves the keys as they are.
2. ``generation`` grows with each new server key: what was sealed under an earlier one was refused
   for that, if it was refused.
3. Keys that opened replies go on doing so: some answers to earlier requests are still to come.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

from ctbatch import paths
from ctbatch.crypto.hpke import OpeningKeys
from ctbatch.crypto.keyset import Key, Keyset, load_private, load_public
from ctbatch.errors import KeysetError
from ctbatch.notices import Level, Notice, Watcher
from ctbatch.settings import KeyFiles, Settings

__all__ = ["KeyWatch", "Keyring", "load_keys"]


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What changes when a file is replaced, written to, or given other permissions."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """``None``: there is no regular file. A pipe can be read once only."""
        try:
            found = path.stat()
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class _Held:
    """The keyset of a file, and what the file was just before it was read."""

    keyset: Keyset
    stamp: _Stamp | None

    @classmethod
    def of(cls, path: Path, load: Callable[[], Keyset]) -> Self:
        stamp = _Stamp.of(path)  # first: what replaces it while it is read is noticed next time
        return cls(load(), stamp)


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keysets of a run and the HPKE ``info`` that both directions share; ``former`` are private
    keys that were in an earlier file.
    """

    files: KeyFiles
    info: bytes
    server: _Held
    client: _Held
    former: tuple[Key, ...] = field(default=(), repr=False)

    @classmethod
    def load(cls, files: KeyFiles, info: bytes) -> Self:
        """Read both files. Blocks; raises :class:`KeysetError`."""
        return cls(
            files,
            info,
            server=_Held.of(files.server, partial(_load_server, files)),
            client=_Held.of(files.client, partial(_load_client, files)),
        )

    def read_again(self, *, insist: bool) -> tuple[Keyring, list[KeysetError]]:
        """The keyring as the files have it now, and what is wrong with those that cannot be used.
        Blocks.
        """
        files, problems = self.files, list[KeysetError]()

        def fresh(held: _Held, path: Path, load: Callable[[KeyFiles], Keyset]) -> _Held:
            stamp = _Stamp.of(path)
            is_pipe = stamp is None and paths.exists(path)
            if is_pipe or (stamp in {None, held.stamp} and not insist):
                return held
            try:
                return _Held.of(path, partial(load, files))
            except KeysetError as error:
                problems.append(error)
                return replace(held, stamp=stamp)  # told once, until it is replaced again

        server = fresh(self.server, files.server, _load_server)
        client = fresh(self.client, files.client, _load_client)
        known = {key.public for key in client.keyset.keys}
        earlier = (*self.former, *self.client.keyset.enabled)
        former = tuple({key.public: key for key in earlier if key.public not in known}.values())
        return replace(self, server=server, client=client, former=former), problems

    def opening(self) -> OpeningKeys:
        """The keys that open replies."""
        keyset = self.client.keyset
        return OpeningKeys(replace(keyset, keys=(*keyset.keys, *self.former)), self.info)


def load_keys(settings: Settings) -> Keyring | None:
    """Load the keys that a run needs; ``None`` where it needs none.

    Raises:
        KeysetError: a key file is missing, unusable, or open to others.
    """
    files, account = settings.keys, settings.account
    if settings.plaintext or settings.dry_run or files is None or account is None:
        return None
    return Keyring.load(files, files.info_for(account.id))


class KeyWatch:
    """The keys of a run while it goes on; without a keyring (plaintext) nothing ever changes.

    ``use`` is called with each keyring that has another server key; belongs to one event loop.
    """

    def __init__(
        self, keyring: Keyring | None, watcher: Watcher, use: Callable[[Keyring], None]
    ) -> None:
        self._keyring = keyring
        self._watcher = watcher
        self._use = use
        self._one_at_a_time = asyncio.Lock()
        self.generation = 0
        self.opening = None if keyring is None else keyring.opening()

    async def look(self, *, insist: bool = False) -> None:
        """Take up what changed on disk; ``insist``: read the files, whatever they look like."""
        async with self._one_at_a_time:
            before = self._keyring
            if before is None:
                return
            now, problems = await asyncio.to_thread(before.read_again, insist=insist)
            self._keyring = now
            for problem in problems:
                self._tell("unusable", f"{problem}. Going on with the keys from before")
            sealing, opening = now.server.keyset, now.client.keyset
            if sealing != before.server.keyset:
                self.generation += 1
                self._use(now)
                named = _named(sealing.primary)
                self._tell("renewed", f"the server key was replaced: sealing with {named} now")
            if opening != before.client.keyset:
                self.opening = now.opening()
                named = ", ".join(_named(key) for key in opening.enabled)
                self._tell("renewed", f"the client key was replaced: opening with {named} now, too")
            if insist and not problems and now == before:
                self._tell("unchanged", "the key files were read again: they are as before")

    def _tell(self, event: str, text: str) -> None:
        self._watcher.tell(Notice(Level.WARNING, f"keys.{event}", text))


def _load_server(files: KeyFiles) -> Keyset:
    return load_public(files.server, insecure_permissions=files.insecure_permissions)


def _load_client(files: KeyFiles) -> Keyset:
    return load_private(
        files.client,
        passphrase=files.passphrase,
        insecure_permissions=files.insecure_permissions,
    )


def _named(key: Key) -> str:
    return f"key {key.id}" if key.output_prefix else "a key without id"
