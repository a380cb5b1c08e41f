"""``ctbatch keys``: make keys, look at them, rotate, convert and check them.

Nothing here prints any part of a private key, and a passphrase is read from a file or a terminal,
never from the command line.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

from ctbatch import shell
from ctbatch.cli import streams
from ctbatch.cli.groups import spread
from ctbatch.cli.secret_files import ask_passphrase, read_secret
from ctbatch.cli.values import path_of
from ctbatch.cli.wording import clean
from ctbatch.crypto import upkeep
from ctbatch.crypto.hpke import check_apart, check_pair, check_sealing
from ctbatch.crypto.keyset import (
    Form,
    Key,
    Keyset,
    Prefix,
    fingerprint,
    load,
    load_private,
    load_public,
    needs_passphrase,
)
from ctbatch.errors import SettingsError
from ctbatch.settings import Secret

__all__ = ["app"]

_T = TypeVar("_T")

app = typer.Typer(
    help="Make keys, look at them, rotate, convert and check them.", no_args_is_help=True
)


class PrefixName(StrEnum):
    """The prefixes by name."""

    TINK = "tink"
    RAW = "raw"
    CRUNCHY = "crunchy"
    LEGACY = "legacy"


_File = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="Tink JSON, Tink binary or PEM.", parser=path_of("FILE")),
]
_INSECURE: Final = "Use key files that others can read or change."


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How key files are read."""

    passphrase_file: Annotated[
        Path | None, typer.Option(help="File with the passphrase of a locked PEM key.")
    ] = None
    insecure_key_permissions: Annotated[
        bool, typer.Option("--insecure-key-permissions", help=_INSECURE)
    ] = False

    def public(self, path: Path) -> Keyset:
        """The public keyset in a file."""
        return load_public(path, insecure_permissions=self.insecure_key_permissions)

    def private(self, path: Path) -> Keyset:
        """The private keyset in a file."""
        return load_private(
            path,
            passphrase=self.passphrase(path),
            insecure_permissions=self.insecure_key_permissions,
        )

    def passphrase(self, path: Path) -> Secret | None:
        """The passphrase of the file that holds it, or one asked for if the key is locked."""
        if self.passphrase_file is not None:
            return self.secret("--passphrase-file", self.passphrase_file)
        return ask_passphrase(path) if needs_passphrase(path) else None

    def secret(self, option: str, path: Path) -> Secret:
        """The secret in a file."""
        return read_secret(option, path, insecure=self.insecure_key_permissions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The key files to check: those of a run, or a pair."""

    server_key: Annotated[
        Path | None, typer.Option(help="The service's public key. Variable: CTBATCH_SERVER_KEY.")
    ] = None
    client_key: Annotated[
        Path | None, typer.Option(help="Your private key. Variable: CTBATCH_CLIENT_KEY.")
    ] = None
    public: Annotated[
        Path | None, typer.Option(help="The public half of a pair, checked with --private.")
    ] = None
    private: Annotated[
        Path | None, typer.Option(help="The private half of a pair, checked with --public.")
    ] = None

    def or_of_environment(self) -> Checked:
        """These files, or those of the variables if none is named."""
        if (self.public is None) != (self.private is None):
            missing = "--public" if self.public is None else "--private"
            raise SettingsError(missing, "is missing", "a pair has two halves")
        if self != Checked():
            return self
        found = Checked(
            server_key=_variable("CTBATCH_SERVER_KEY"), client_key=_variable("CTBATCH_CLIENT_KEY")
        )
        if found == Checked():
            options = "--server-key, --client-key, --public and --private"
            raise SettingsError(options, "are missing", "name a key file to check")
        return found


@app.command()
def generate(
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Where the two files go; made if not there.",
            parser=path_of("--out"),
        ),
    ],
    prefix: Annotated[
        PrefixName, typer.Option(case_sensitive=False, help="How ciphertexts name their key.")
    ] = PrefixName.TINK,
) -> None:
    """Make your key pair: two files, of which you hand over the public one.

    ctbatch keys generate --out ctbatch-keys
    """
    made = upkeep.generate_files(out, Prefix[prefix.name])
    streams.out(
        f"Made key {made.keyset.primary_id}.\n\n"
        f"  {_path(made.private)}\n      private: opens the service's replies; never give it away\n"
        f"  {_path(made.public)}\n      public: goes to CleverTap\n\n"
        "What to do next:\n\n"
        f"1. Hand the public keyset, {_path(made.public)}, to CleverTap\n"
        "   (dashboard: Settings, API encryption).\n"
        "2. Fetch CleverTap's public keyset from there, say as clevertap-public.json.\n"
        "3. Point ctbatch at both and check them:\n\n"
        f"   export CTBATCH_CLIENT_KEY={_path(made.private)}\n"
        "   export CTBATCH_SERVER_KEY=clevertap-public.json\n"
        "   ctbatch keys check"
    )


@app.command()
@spread
def show(
    file: _File,
    access: Access,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show what a key file holds; of a private key only the public part.

    ctbatch keys show ctbatch-keys/client-public.json
    """
    keyset = load(
        file,
        passphrase=access.passphrase(file),
        insecure_permissions=access.insecure_key_permissions,
    )
    if as_json:
        streams.out(json.dumps(_facts(file, keyset), indent=2))
        return
    kind = "private keyset, never give it away" if keyset.is_private else "public keyset"
    count = f"{len(keyset.keys)} key{'' if len(keyset.keys) == 1 else 's'}"
    streams.out(f"{clean(str(file))}: {kind}, {count}")
    for key in keyset.keys:
        streams.out(f"\nkey {key.id}{', primary' if key.id == keyset.primary_id else ''}")
        streams.out(f"  status       {key.status.name.lower()}")
        streams.out(f"  prefix       {key.prefix.name}")
        streams.out(f"  fingerprint  {_fingerprint(key) or 'none: the key is destroyed'}")
    streams.out("\nFingerprints are SHA-256 of the public key: compare them with the other side.")


@app.command()
def rotate(
    file: _File,
    insecure_key_permissions: Annotated[
        bool, typer.Option("--insecure-key-permissions", help=_INSECURE)
    ] = False,
) -> None:
    """Add a new primary key to your private keyset; the old ones go on opening replies.

    ctbatch keys rotate ctbatch-keys/client-private.json
    """
    made = upkeep.rotate_file(file, insecure_permissions=insecure_key_permissions)
    held = len(made.keyset.keys)
    streams.out(
        f"Made key {made.keyset.primary_id}; {_path(made.private)} now holds {held} keys.\n\n"
        "What to do next:\n\n"
        f"1. Hand the new public keyset, {_path(made.public)}, to CleverTap\n"
        "   (dashboard: Settings, API encryption).\n"
        "2. Keep the private file as it is: until CleverTap has switched, replies are sealed\n"
        "   with the old key, and it opens both."
    )


@app.command()
@spread
def convert(
    file: _File,
    *,
    to: Annotated[Form, typer.Option(help="The form to write.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="A new file; never overwritten.")],
    access: Access,
    public_only: Annotated[
        bool, typer.Option("--public-only", help="Leave out the private parts.")
    ] = False,
    out_passphrase_file: Annotated[
        Path | None, typer.Option(help="Lock the PEM key with the passphrase in this file.")
    ] = None,
) -> None:
    """Write a key file in another form: tink-json, tink-binary or pem.

    ctbatch keys convert mine.pem --to tink-json --out mine-private.json
    """
    lock = None
    if out_passphrase_file is not None:
        lock = access.secret("--out-passphrase-file", out_passphrase_file)
    written = upkeep.convert_file(
        file,
        to,
        out,
        public_only=public_only,
        passphrase=access.passphrase(file),
        out_passphrase=lock,
        insecure_permissions=access.insecure_key_permissions,
    )
    kind = "private, never give it away" if written.is_private else "public"
    streams.out(f"Wrote {_path(out)} ({kind}).")
    if to is Form.PEM and written.primary.prefix is not Prefix.RAW:
        streams.err(
            "PEM has no room for the key's id and prefix. Whoever uses it seals without a prefix;\n"
            "the original opens that, too."
        )


@app.command()
@spread
def check(checked: Checked, access: Access) -> None:
    """Seal and open a canary: are these keys usable, and do they belong together?

    The two keys of your runs:

        ctbatch keys check --server-key clevertap-public.json --client-key client-private.json

    A pair:

        ctbatch keys check --public client-public.json --private client-private.json
    """
    files = checked.or_of_environment()
    server = None if files.server_key is None else access.public(files.server_key)
    client = None if files.client_key is None else access.private(files.client_key)
    if server is not None and client is not None:
        check_apart(server, client)
    if server is not None:
        streams.out(f"OK: the server key seals ({_named(check_sealing(server))}).")
    if client is not None:
        named = _named(check_pair(client.public(), client))
        streams.out(f"OK: the client key opens what is sealed to it ({named}).")
    if files.public is not None and files.private is not None:
        named = _named(check_pair(access.public(files.public), access.private(files.private)))
        streams.out(f"OK: what the public one seals, the private one opens ({named}).")


def _variable(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None


def _path(path: Path) -> str:
    return shell.quote(str(path))


def _named(key_id: int | None) -> str:
    return "a key without prefix" if key_id is None else f"key {key_id}"


def _fingerprint(key: Key) -> str | None:
    return fingerprint(key) if key.public else None


def _facts(file: Path, keyset: Keyset) -> dict[str, object]:
    return {
        "file": str(file),
        "private": keyset.is_private,
        "primary_key_id": keyset.primary_id,
        "keys": [
            {
                "id": key.id,
                "primary": key.id == keyset.primary_id,
                "status": key.status.name,
                "prefix": key.prefix.name,
                "fingerprint_sha256": _fingerprint(key),
            }
            for key in keyset.keys
        ],
    }
