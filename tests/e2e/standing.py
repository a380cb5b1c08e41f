"""What stands at the end of a run and must not depend on how often it was cut off."""

from __future__ import annotations

from typing import Any

from tests.e2e.command import Rows

__all__ = ["what_stands"]


def what_stands(run: Rows, report: dict[str, Any], *, words: bool = True) -> dict[str, Any]:
    """Counts, sources, reasons with their first lines, and the files, byte for byte.

    Without ``words``, what is said of unknown lines counts no more: the moment they were cut off
    at is told there.
    """
    rows: dict[str, Any] = {
        path.name: path.read_bytes() for path in run.path.iterdir() if path.suffix == ".ndjson"
    }
    reasons = [dict(reason) for reason in report["reasons"]]
    if not words:
        rows["unknown.reasons.ndjson"] = run.places("unknown")
        reasons = [reason for reason in reasons if reason["state"] != "unknown"]
    sources = [(source["path"], source["lines"]) for source in report["sources"]]
    told = sorted(str(sorted(reason.items(), key=str)) for reason in reasons)
    return {"lines": report["lines"], "sources": sources, "reasons": told} | rows
