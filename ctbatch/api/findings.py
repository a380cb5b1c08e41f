"""What a check finds, step by step: the words that probing, diagnosis and display share.

Where a remedy lies decides the exit code. *Local* is what is mended on this machine or in its
network: settings, files, names, firewalls, proxies, trusted certificates, the clock. *Remote* is
what takes the dashboard or the vendor: the service was reached and says no. A local one comes
first: what the service says may be its consequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ctbatch.errors import CtbatchError, ExitCode, ServiceRefused

__all__ = ["Fact", "Finding", "Status", "Step", "exit_code_of", "failure", "skipped"]

Fact = str | int | float | bool | None


class Step(StrEnum):
    """The steps of a check, in their order."""

    SETTINGS = "settings"
    KEYS = "keys"
    PERMISSIONS = "permissions"
    DNS = "dns"
    TCP = "tcp"
    TLS = "tls"
    CLOCK = "clock"
    CREDENTIALS = "credentials"
    ENCRYPTION = "encryption"
    ROUND_TRIP = "round trip"


class Status(StrEnum):
    """How a step went; ``LOCAL`` and ``REMOTE`` say where the remedy lies."""

    OK = "ok"
    LOCAL = "local"
    REMOTE = "remote"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step found. ``remedies`` are the most likely first; ``facts`` are for programs.

    Holds no secret and no personal data.
    """

    step: Step
    status: Status
    text: str
    remedies: tuple[str, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)


def exit_code_of(findings: Iterable[Finding]) -> ExitCode:
    """0 if all is well, 2 if something is to be mended here first, else 5."""
    found = {finding.status for finding in findings}
    if Status.LOCAL in found:
        return ExitCode.USAGE
    return ExitCode.REFUSED if Status.REMOTE in found else ExitCode.OK


def skipped(step: Step, why: str) -> Finding:
    """A step that an earlier one stands in the way of."""
    return Finding(step, Status.SKIPPED, f"not tried: {why}")


def failure(
    step: Step, error: CtbatchError, status: Status = Status.LOCAL, **facts: Fact
) -> Finding:
    """The finding for one of our errors; the remedies that it knows are told apart from it."""
    if isinstance(error, ServiceRefused):
        return Finding(step, status, error.what, error.causes, facts)
    remedy = getattr(error, "remedy", "")
    if remedy:
        return Finding(step, status, str(replace(error, remedy="")), (remedy,), facts)  # type: ignore[call-arg]  # those that have a remedy are dataclasses with that field
    return Finding(step, status, str(error), (), facts)
