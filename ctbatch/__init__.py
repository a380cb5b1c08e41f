"""Upload profiles to CleverTap in bulk, end-to-end encrypted, and account for every line.

The library is what the command is made of::

    report = await ctbatch.run(ctbatch.Settings(inputs=["users.ndjson"], ...))

    async with ctbatch.Client(account=..., endpoint=..., keys=...) as client:
        outcome = await client.upload([{"type": "profile", ...}])

It installs no signal handlers and touches nothing global. Names are loaded when they are first
used, so that ``import ctbatch`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ctbatch.api.client import Client, Outcome, UploadResult
    from ctbatch.errors import CtbatchError
    from ctbatch.pipeline.report import Report
    from ctbatch.pipeline.runs import report, resume, run
    from ctbatch.pipeline.stopping import Stop
    from ctbatch.settings import (
        Account,
        Batching,
        Delivery,
        Endpoint,
        KeyFiles,
        OnAmbiguous,
        Secret,
        Settings,
    )

__all__ = [
    "Account",
    "Batching",
    "Client",
    "CtbatchError",
    "Delivery",
    "Endpoint",
    "KeyFiles",
    "OnAmbiguous",
    "Outcome",
    "Report",
    "Secret",
    "Settings",
    "Stop",
    "UploadResult",
    "__version__",
    "report",
    "resume",
    "run",
]

_HOMES = {
    "Account": "settings",
    "Batching": "settings",
    "Client": "api.client",
    "CtbatchError": "errors",
    "Delivery": "settings",
    "Endpoint": "settings",
    "KeyFiles": "settings",
    "OnAmbiguous": "settings",
    "Outcome": "api.client",
    "Report": "pipeline.report",
    "Secret": "settings",
    "Settings": "settings",
    "Stop": "pipeline.stopping",
    "UploadResult": "api.client",
    "report": "pipeline.runs",
    "resume": "pipeline.runs",
    "run": "pipeline.runs",
}


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ctbatch' has no attribute {name!r}")
    return getattr(import_module(f"ctbatch.{_HOMES[name]}"), name)
