"""What a person decides before a run: small frozen dataclasses by concern, validated on
construction.

Sizes are bytes, times are seconds, and every default is the documented one. Reading flags,
variables and files is not done here: :mod:`ctbatch.cli` does it and hands over values.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ctbatch.errors import SettingsError

__all__ = [
    "MAX_BATCH_LINES",
    "REGION_HOSTS",
    "Account",
    "Batching",
    "Delivery",
    "Endpoint",
    "KeyFiles",
    "OnAmbiguous",
    "Secret",
    "Settings",
    "check_header",
]

MAX_BATCH_LINES = 1000
"""Records per upload call: vendor's "Upload User Profiles API" page."""

MAX_CONCURRENCY = 15
"""Concurrent upload calls per account: vendor's "API Request Limit" page."""

REGION_HOSTS = {
    "eu1": "api.clevertap.com",
    "in1": "in1.api.clevertap.com",
    "sg1": "sg1.api.clevertap.com",
    "us1": "us1.api.clevertap.com",
    "aps3": "aps3.api.clevertap.com",
    "mec1": "mec1.api.clevertap.com",
    "sk1": "sk1.api.clevertap.com",
}
"""Hosts by region: vendor's "Common API Components" page (sk1: partner guides only)."""


class Secret:
    """A string that shows itself to nobody who does not ask with :meth:`reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself; call it only where it is put on the wire."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    __hash__ = None  # type: ignore[assignment]  # a secret is never a key


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who we are to the service: ``X-CleverTap-Account-Id`` and ``X-CleverTap-Passcode``."""

    id: str
    passcode: Secret

    def __post_init__(self) -> None:
        _require(
            bool(self.id),
            "--account-id",
            "is missing",
            "set CLEVERTAP_ACCOUNT_ID or pass --account-id",
        )
        _require(
            bool(self.passcode),
            "the passcode",
            "is missing",
            "set CLEVERTAP_PASSCODE or pass --passcode-file",
        )
        check_header("--account-id", self.id)
        check_header("the passcode", self.passcode.reveal())


def check_header(name: str, value: str) -> None:
    """Raise :class:`SettingsError` unless a header can carry the account id or passcode."""
    _require(
        value.isascii() and value.isprintable() and value == value.strip(),
        name,
        "must be printable ASCII without blanks around it",
        "copy it again from the dashboard's settings page",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the service is. Make one with :meth:`of_region` or :meth:`of_url`."""

    base_url: str
    ca_file: Path | None = None
    proxy: str | None = None

    def __post_init__(self) -> None:
        url = _split_url("--base-url", self.base_url)
        _require(
            url.scheme == "https" or (url.scheme == "http" and self.is_loopback),
            "--base-url",
            "must be https (http only to localhost or a literal loopback address)",
        )
        if self.proxy is not None:
            proxy = _split_url("--proxy", self.proxy)
            _require(proxy.scheme in {"http", "https"}, "--proxy", "must be an http or https URL")
            _require(not self.is_loopback, "--proxy", "is never used for a loopback address")

    @classmethod
    def of_region(
        cls, region: str | None, *, ca_file: Path | None = None, proxy: str | None = None
    ) -> Endpoint:
        """The endpoint of a region code; ``None``, empty, ``eu`` and ``eu1`` are the default
        host.
        """
        code = (region or "eu1").strip().lower()
        code = "eu1" if code == "eu" else code
        _require(
            code in REGION_HOSTS,
            "--region",
            f"is not a known region: {region!r}",
            f"choose one of {', '.join(REGION_HOSTS)}, or pass --base-url",
        )
        return cls(base_url=f"https://{REGION_HOSTS[code]}", ca_file=ca_file, proxy=proxy)

    @property
    def host(self) -> str:
        """Host and, where it is not the default, port: what a person is shown."""
        return urlsplit(self.base_url).netloc

    @property
    def is_loopback(self) -> bool:
        """Whether the host is ``localhost`` or a literal loopback address."""
        host = urlsplit(self.base_url).hostname or ""
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFiles:
    """Where the keys are: the vendor's public key (seals requests), our private key (opens
    replies).
    """

    server: Path
    client: Path
    passphrase: Secret | None = None
    insecure_permissions: bool = False
    info: str | None = None

    def __post_init__(self) -> None:
        try:
            (self.info or "").encode()
        except UnicodeEncodeError:
            raise SettingsError("--hpke-info", "is not text (UTF-8)") from None

    def info_for(self, account_id: str) -> bytes:
        """The HPKE ``info``: the account's id unless another was given, an empty one included."""
        return (account_id if self.info is None else self.info).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How lines are cut into batches."""

    batch_size: int = MAX_BATCH_LINES
    max_batch_bytes: int = 2_000_000
    max_line_bytes: int = 1 << 20
    linger_s: float = 1.0

    def __post_init__(self) -> None:
        _bounds("--batch-size", self.batch_size, 1, MAX_BATCH_LINES)
        _bounds("--max-batch-bytes", self.max_batch_bytes, 1_000, 100_000_000)
        _bounds("--max-line-bytes", self.max_line_bytes, 100, 100_000_000)
        _bounds("--linger", self.linger_s, 0, 3600)


class OnAmbiguous(StrEnum):
    """What happens to records that may or may not have been stored."""

    AUTO = "auto"
    RESEND = "resend"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How batches reach the service. ``workers`` ``None`` is automatic; with 0, batches are sealed
    on the event loop, one at a time.
    """

    concurrency: int = MAX_CONCURRENCY
    workers: int | None = None
    timeout_s: float = 60.0
    give_up_after_s: float = 900.0
    drain_s: float = 30.0
    on_ambiguous: OnAmbiguous = OnAmbiguous.AUTO
    max_refused_percent: float | None = None

    def __post_init__(self) -> None:
        _bounds("--concurrency", self.concurrency, 1, 1000)
        if self.workers is not None:
            _bounds("--workers", self.workers, 0, 256)
        _bounds("--timeout", self.timeout_s, 0.1, 3600)
        _bounds("--give-up-after", self.give_up_after_s, 0, 7 * 86400)
        if self.max_refused_percent is not None:
            _bounds("--max-refused", self.max_refused_percent, 0, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run.

    ``account``, ``endpoint`` and ``keys`` may be ``None`` only where the mode needs none:
    ``dry_run`` needs nothing, ``plaintext`` needs no keys, ``emulator`` brings its own.
    """

    inputs: Sequence[str | Path]
    account: Account | None = None
    endpoint: Endpoint | None = None
    keys: KeyFiles | None = None
    batching: Batching = field(default_factory=Batching)
    delivery: Delivery = field(default_factory=Delivery)
    plaintext: bool = False
    dry_run: bool = False
    server_dry_run: bool = False
    emulator: bool = False
    strict: bool = False
    limit: int | None = None
    run_dir: Path | None = None
    resume_flags: tuple[str, ...] = ()
    """Flags that the command to resume has to repeat: endpoint, account id, key files."""

    def __post_init__(self) -> None:
        _require(
            bool(self.inputs), "INPUT", "is missing", "name a file, a glob, or - for standard input"
        )
        if self.limit is not None:
            _bounds("--limit", self.limit, 1, 10**12)
        _require(
            not (self.dry_run and (self.server_dry_run or self.emulator)),
            "--dry-run",
            "sends nothing, so it excludes --server-dry-run and --emulator",
        )
        if self.dry_run or self.emulator:
            return
        _require(
            self.account is not None,
            "--account-id",
            "is missing",
            "set CLEVERTAP_ACCOUNT_ID or pass --account-id; to try without an account: --emulator",
        )
        _require(self.endpoint is not None, "--region", "is missing", "pass --region or --base-url")
        _require(
            self.plaintext or self.keys is not None,
            "--server-key and --client-key",
            "are missing",
            "make yours with `ctbatch keys generate --out DIR`; fetch the vendor's from the "
            "dashboard",
        )


def _require(condition: bool, option: str, why: str, remedy: str = "") -> None:
    if not condition:
        raise SettingsError(option, why, remedy)


def _bounds(option: str, value: float, low: float, high: float) -> None:
    # Written so that NaN fails too.
    if not low <= value <= high:
        raise SettingsError(option, f"must be from {low:g} to {high:,.15g}, not {value:g}")


def _split_url(option: str, text: str) -> SplitResult:
    # First: urlsplit takes tabs and newlines out, and what is around a URL.
    odd = next((c for c in text if c.isspace() or not c.isprintable()), None)
    _require(odd is None, option, f"must have no blanks or control characters, and has {odd!a}")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise SettingsError(option, f"is not a URL ({error})") from None
    _require(bool(url.hostname), option, "is not a URL with a host")
    _require(port != 0, option, "must have a port from 1 to 65,535, not 0")
    _require(
        "@" not in url.netloc and "?" not in text and "#" not in text,
        option,
        "must have no user, query or fragment",
    )
    return url
