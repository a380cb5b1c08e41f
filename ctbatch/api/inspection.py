"""Key files as a check sees them: what they hold, who else may open them; reads files, may block.

Invariants:

1. A key file with wrong permissions is looked into all the same, so that one check finds all there
   is to mend; nothing of a private key but its public half's fingerprint is told.
2. A pipe is read once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ctbatch import paths
from ctbatch.api.findings import Fact, Finding, Status, Step, failure, skipped
from ctbatch.crypto.hpke import OpeningKeys, SealingKey
from ctbatch.crypto.keyset import Keyset, fingerprint, load_private, load_public
from ctbatch.errors import KeyFileError, KeysetError
from ctbatch.settings import Account, KeyFiles

__all__ = ["UsableKeys", "inspect"]


@dataclass(frozen=True, slots=True)
class UsableKeys:
    """The keys that could be read and made ready."""

    sealing: SealingKey | None = None
    opening: OpeningKeys | None = None


def inspect(files: KeyFiles | None, account: Account | None) -> tuple[UsableKeys, list[Finding]]:
    """Read both keys and say what they are; blocks."""
    if files is None:
        why = "the settings name no two key files"
        return UsableKeys(), [skipped(Step.KEYS, why), skipped(Step.PERMISSIONS, why)]
    insist = files.insecure_permissions
    read_client = partial(load_private, passphrase=files.passphrase)
    server, found = _read("server key", files.server, load_public, insist=insist)
    client, more = _read("client key", files.client, read_client, insist=insist)
    found = sorted([*found, *more], key=lambda finding: list(Step).index(finding.step))
    if server and client and {key.public for key in server.keys} & {k.public for k in client.keys}:
        error = KeysetError(
            str(files.server),
            "is the public half of --client-key, and the service cannot open what it seals",
            "fetch the service's public keyset from the dashboard",
        )
        found.insert(0, failure(Step.KEYS, error))
        server = None
    if account is None and files.info is None:  # nothing can be sealed without its context
        return UsableKeys(), found
    info = files.info_for(account.id if account else "")
    opening = OpeningKeys(client, info) if client else None
    return UsableKeys(SealingKey(server, info) if server else None, opening), found


def _read(
    name: str, path: Path, read: Callable[..., Keyset], *, insist: bool
) -> tuple[Keyset | None, list[Finding]]:
    """Read one key file. One with wrong permissions is read all the same, so that one check finds
    all there is to mend.
    """
    found: list[Finding] = []
    try:
        keyset = read(path, insecure_permissions=insist)
    except KeysetError as error:
        # Not a second time from a pipe: it would wait for what was read already.
        if not isinstance(error, KeyFileError) or insist or not paths.is_file(path):
            return None, [failure(Step.KEYS, error, key=name, path=str(path))]
        try:
            keyset = read(path, insecure_permissions=True)
        except KeysetError as second:
            found = [failure(Step.KEYS, second, key=name, path=str(path))]
            if not isinstance(second, KeyFileError):
                found.append(failure(Step.PERMISSIONS, error, path=str(path)))
            return None, found
        found = [failure(Step.PERMISSIONS, error, path=str(path))]
    primary = keyset.primary
    facts: dict[str, Fact] = {
        "key": name,
        "path": str(path),
        "key_id": primary.id,
        "prefix": primary.prefix.name,
        "keys": len(keyset.enabled),
        "sha256": fingerprint(primary),
    }
    kind = "private" if keyset.is_private else "public"
    text = f"{name} {path} is a {kind} keyset, key {primary.id}, SHA-256 {facts['sha256']}"
    return keyset, [
        Finding(Step.KEYS, Status.OK, text, facts=facts),
        *(found or [_permitted(name, path, insist=insist)]),
    ]


def _permitted(name: str, path: Path, *, insist: bool) -> Finding:
    if insist:
        return skipped(Step.PERMISSIONS, f"{name}, because of --insecure-key-permissions")
    if os.name != "posix" or not paths.is_file(path):
        return skipped(Step.PERMISSIONS, f"{name} {path} has none to speak of")
    text = f"{name} {path} is not open to others"
    return Finding(Step.PERMISSIONS, Status.OK, text, facts={"path": str(path)})
