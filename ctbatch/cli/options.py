"""Flags and variables to settings: flag over environment over default.

Invariants:

1. The passcode is never a flag: it comes from ``CLEVERTAP_PASSCODE`` or a file.
2. Every option is declared once; commands share the groups.
3. An empty variable is as none; an empty flag is refused, never as none: `--base-url "$URL"` with
   an unset variable must not go to the default host.

Ranges are not checked here (:mod:`ctbatch.settings` does that), nor what a mode needs
(:mod:`~ctbatch.cli.targets`). The environment is an argument.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ctbatch import paths
from ctbatch.cli.secret_files import ask_passphrase, read_secret
from ctbatch.cli.values import NOT_EMPTY, path_of, percent_in, workers_in
from ctbatch.errors import SettingsError
from ctbatch.models import Mode
from ctbatch.settings import Account, Endpoint, KeyFiles, OnAmbiguous, Secret

__all__ = [
    "Connection",
    "Environment",
    "Kind",
    "Output",
    "Tuning",
    "as_flags",
]

Environment = Mapping[str, str]

_CONNECTION: Final = "Account, endpoint and keys"
_TUNING: Final = "How it is sent"
_KIND: Final = "What is done"
_OUTPUT: Final = "What is shown"


def _option(panel: str, help_text: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=panel, metavar=metavar)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Who we are to the service, where it is, and which keys seal and open."""

    account_id: Annotated[
        str | None, _option(_CONNECTION, "The account. Variable: CLEVERTAP_ACCOUNT_ID.")
    ] = None
    passcode_file: Annotated[
        Path | None,
        _option(
            _CONNECTION,
            "File with the passcode, which is never a flag. Variable with the passcode"
            " itself: CLEVERTAP_PASSCODE.",
        ),
    ] = None
    region: Annotated[
        str | None,
        _option(
            _CONNECTION,
            "eu1 (default), in1, sg1, us1, aps3, mec1 or sk1. Variable: CLEVERTAP_REGION.",
        ),
    ] = None
    base_url: Annotated[
        str | None,
        _option(_CONNECTION, "Instead of a region. Variable: CLEVERTAP_BASE_URL.", metavar="URL"),
    ] = None
    server_key: Annotated[
        Path | None,
        _option(
            _CONNECTION, "The service's public key: seals requests. Variable: CTBATCH_SERVER_KEY."
        ),
    ] = None
    client_key: Annotated[
        Path | None,
        _option(_CONNECTION, "Your private key: opens replies. Variable: CTBATCH_CLIENT_KEY."),
    ] = None
    passphrase_file: Annotated[
        Path | None,
        _option(
            _CONNECTION,
            "File with the passphrase of a locked PEM key; else it is asked for on a terminal.",
        ),
    ] = None
    hpke_info: Annotated[
        str | None,
        _option(_CONNECTION, "HPKE info; the account id unless given.", metavar="TEXT"),
    ] = None
    ca_file: Annotated[
        Path | None, _option(_CONNECTION, "Certificates to trust instead of the system's.")
    ] = None
    proxy: Annotated[
        str | None,
        _option(_CONNECTION, "HTTP proxy; proxy variables are not read.", metavar="URL"),
    ] = None
    insecure_key_permissions: Annotated[
        bool,
        _option(
            _CONNECTION,
            "Use key and passcode files that others can read or change.",
            "--insecure-key-permissions",
        ),
    ] = False

    def __post_init__(self) -> None:
        for name, value in _given(self):
            # A path of nothing is the working directory, which none of these can be. That the
            # HPKE info is empty can be meant.
            if value in {"", Path()} and name != "--hpke-info":
                why = "is empty" if value == "" else "names no file"
                raise SettingsError(name, why, NOT_EMPTY)

    def account(self, env: Environment) -> Account | None:
        """The account, or ``None`` if neither id nor passcode is given anywhere."""
        account_id = self.account_id or env.get("CLEVERTAP_ACCOUNT_ID", "")
        passcode = Secret(env.get("CLEVERTAP_PASSCODE", ""))
        if self.passcode_file is not None:
            passcode = self._secret("--passcode-file", self.passcode_file)
        if not account_id and not passcode:
            return None
        return Account(id=account_id, passcode=passcode)

    def endpoint(self, env: Environment) -> Endpoint:
        """The endpoint: region or URL, never both."""
        region, base_url = self.region, self.base_url
        if region is None and base_url is None:
            region, base_url = env.get("CLEVERTAP_REGION"), env.get("CLEVERTAP_BASE_URL")
        if region and base_url:
            raise SettingsError(
                "--region and --base-url (CLEVERTAP_REGION, CLEVERTAP_BASE_URL)",
                "exclude each other",
                "give one of them",
            )
        ca_file = self.ca_file
        if ca_file is not None and not paths.is_file(ca_file):
            raise SettingsError("--ca-file", f"{ca_file} is not a file")
        if base_url:
            return Endpoint(base_url=base_url, ca_file=ca_file, proxy=self.proxy)
        return Endpoint.of_region(region, ca_file=ca_file, proxy=self.proxy)

    def keys(self, env: Environment) -> KeyFiles | None:
        """The key files, or ``None`` if neither is given anywhere; the passphrase of a locked one
        is asked for on a terminal.
        """
        server = self.server_key or _path(env, "CTBATCH_SERVER_KEY")
        client = self.client_key or _path(env, "CTBATCH_CLIENT_KEY")
        if server is None and client is None:
            return None
        if server is None:
            remedy = "set CTBATCH_SERVER_KEY to the file of the vendor's public key"
            raise SettingsError("--server-key", "is missing", remedy)
        if client is None:
            remedy = "set CTBATCH_CLIENT_KEY to the file of your private key"
            raise SettingsError("--client-key", "is missing", remedy)
        passphrase = None
        if self.passphrase_file is not None:
            passphrase = self._secret("--passphrase-file", self.passphrase_file)
        else:
            passphrase = _asked_for(client)
        return KeyFiles(
            server=server,
            client=client,
            passphrase=passphrase,
            insecure_permissions=self.insecure_key_permissions,
            info=self.hpke_info,
        )

    def refuse_all(self, why: str) -> None:
        """Raise :class:`SettingsError` if any flag of this group is given: with ``why`` none has
        a meaning.
        """
        for name, _ in _given(self):
            raise SettingsError(name, why, "leave it out")

    def _secret(self, option: str, path: Path) -> Secret:
        return read_secret(option, path, insecure=self.insecure_key_permissions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How lines are cut into batches and how batches are sent. ``None`` is: not given."""

    concurrency: Annotated[
        int | None,
        _option(_TUNING, "Requests at a time, shared by all that uses the account. Default: 15."),
    ] = None
    batch_size: Annotated[
        int | None, _option(_TUNING, "Records in a request, at most 1000. Default: 1000.")
    ] = None
    max_batch_bytes: Annotated[
        int | None, _option(_TUNING, "A batch is cut at so many bytes. Default: 2000000.")
    ] = None
    max_line_bytes: Annotated[
        int | None, _option(_TUNING, "A longer line is invalid. Default: 1048576.")
    ] = None
    linger: Annotated[
        float | None,
        _option(_TUNING, "Seconds a slow pipe may take to fill a batch. Default: 1."),
    ] = None
    workers: Annotated[
        str | None,
        _option(
            _TUNING,
            "Processes that seal; 0: the main one does. Default: auto.",
            metavar="N|auto",
        ),
    ] = None
    timeout: Annotated[
        float | None,
        _option(_TUNING, "Seconds for one attempt, connect to last byte. Default: 60."),
    ] = None
    give_up_after: Annotated[
        float | None,
        _option(_TUNING, "Stop after so many seconds without a usable answer. Default: 900."),
    ] = None
    on_ambiguous: Annotated[
        OnAmbiguous | None,
        _option(
            _TUNING,
            "Records that may or may not have arrived: auto sends again those that cannot count"
            " twice and holds the others back. Default: auto.",
        ),
    ] = None
    max_refused: Annotated[
        str | None,
        _option(
            _TUNING, "Stop when a larger share of the lines is refused or invalid.", metavar="P%"
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        """What was given, by the names of ``Batching`` and ``Delivery``."""
        values: dict[str, Any] = {
            "batch_size": self.batch_size,
            "max_batch_bytes": self.max_batch_bytes,
            "max_line_bytes": self.max_line_bytes,
            "linger_s": self.linger,
            "concurrency": self.concurrency,
            "timeout_s": self.timeout,
            "give_up_after_s": self.give_up_after,
            "on_ambiguous": self.on_ambiguous,
        }
        given = {name: value for name, value in values.items() if value is not None}
        if self.workers is not None:
            given["workers"] = workers_in(self.workers)
        if self.max_refused is not None:
            given["max_refused_percent"] = percent_in(self.max_refused)
        return given


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What kind of run it is."""

    dry_run: Annotated[
        bool, _option(_KIND, "Check every line; send nothing, need nothing.", "--dry-run")
    ] = False
    server_dry_run: Annotated[
        bool, _option(_KIND, "Have the service check; it stores nothing.", "--server-dry-run")
    ] = False
    emulator: Annotated[
        bool,
        _option(_KIND, "Against a service on this machine; nothing to configure.", "--emulator"),
    ] = False
    plaintext: Annotated[
        bool, _option(_KIND, "Send without end-to-end encryption.", "--plaintext")
    ] = False
    strict: Annotated[
        bool,
        _option(
            _KIND, "Check before sending what the service is known to refuse, too.", "--strict"
        ),
    ] = False
    limit: Annotated[int | None, _option(_KIND, "The input ends after so many lines.")] = None
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where report and refused lines go. Default: a new one in ctbatch-runs.",
            rich_help_panel=_KIND,
            metavar="PATH",
            parser=path_of("--run-dir"),
        ),
    ] = None

    @property
    def mode(self) -> Mode:
        """The mode of the run."""
        asked = (
            (self.dry_run, Mode.DRY_RUN),
            (self.emulator, Mode.EMULATOR),
            (self.server_dry_run, Mode.SERVER_DRY_RUN),
            (self.plaintext, Mode.PLAINTEXT),
        )
        return next((mode for wanted, mode in asked if wanted), Mode.SEALED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What is shown."""

    json: Annotated[bool, _option(_OUTPUT, "The report as JSON on standard output.", "--json")] = (
        False
    )
    quiet: Annotated[
        bool, _option(_OUTPUT, "No progress and no warnings; errors only.", "--quiet")
    ] = False
    log_level: Annotated[
        str | None,
        _option(
            _OUTPUT,
            "debug, info, warning (default) or error. Variable: CTBATCH_LOG_LEVEL.",
            metavar="LEVEL",
        ),
    ] = None

    def level(self, env: Environment) -> int:
        """The level as the number that ``logging`` knows."""
        given = self.log_level
        if given is None:
            given = env.get("CTBATCH_LOG_LEVEL") or "warning"
        name = given.strip().upper()
        if name not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            why = f"must be debug, info, warning or error, not {name.lower()!r}"
            raise SettingsError("--log-level (CTBATCH_LOG_LEVEL)", why)
        return logging.getLevelNamesMapping()[name]


def as_flags(*groups: Any) -> tuple[str, ...]:
    """The flags that were given in these groups, to be repeated in the command that goes on."""
    flags: list[str] = []
    for group in groups:
        for name, value in _given(group):
            if value is True:
                flags.append(name)
            elif str(value).startswith("-"):
                flags.append(f"{name}={value}")
            else:
                flags += [name, str(value)]
    return tuple(flags)


def _given(group: Any) -> Iterator[tuple[str, object]]:
    for item in fields(group):
        value = getattr(group, item.name)
        if value != item.default:
            yield f"--{item.name.replace('_', '-')}", value


def _asked_for(client: Path) -> Secret | None:
    from ctbatch.crypto.keyset import needs_passphrase  # noqa: PLC0415  # heavy: --help is not slow

    return ask_passphrase(client) if needs_passphrase(client) else None


def _path(env: Environment, name: str) -> Path | None:
    value = env.get(name)
    return Path(value) if value else None
