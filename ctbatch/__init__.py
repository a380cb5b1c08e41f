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
    from ctbatch.api.asking import Patience
    from ctbatch.api.client import Answer, Client
    from ctbatch.api.cursors import Download
    from ctbatch.api.lookups import Found
    from ctbatch.api.queries import Lookup, Page
    from ctbatch.api.uploads import Outcome, UploadResult
    from ctbatch.errors import CtbatchError
    from ctbatch.pipeline.report.document import Report
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
    "Answer",
    "Batching",
    "Client",
    "CtbatchError",
    "Delivery",
    "Download",
    "Endpoint",
    "Found",
    "KeyFiles",
    "Lookup",
    "OnAmbiguous",
    "Outcome",
    "Page",
    "Patience",
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
    "Answer": "api.client",
    "Batching": "settings",
    "Client": "api.client",
    "CtbatchError": "errors",
    "Delivery": "settings",
    "Download": "api.cursors",
    "Endpoint": "settings",
    "Found": "api.lookups",
    "KeyFiles": "settings",
    "Lookup": "api.queries",
    "OnAmbiguous": "settings",
    "Outcome": "api.uploads",
    "Page": "api.queries",
    "Patience": "api.asking",
    "Report": "pipeline.report.document",
    "Secret": "settings",
    "Settings": "settings",
    "Stop": "pipeline.stopping",
    "UploadResult": "api.uploads",
    "report": "pipeline.runs",
    "resume": "pipeline.runs",
    "run": "pipeline.runs",
}


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ctbatch' has no attribute {name!r}")
    return getattr(import_module(f"ctbatch.{_HOMES[name]}"), name)
