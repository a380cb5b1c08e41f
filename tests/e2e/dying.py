"""Death by kill -9 at a step of the ledger's protocol or of the closing, at any one by its number.

The command knows nothing of it: :func:`doomed` gives an environment in which a ``sitecustomize``
patches, in the command's own process, what makes things durable. A step is a moment before or
after a sync, a rename, a removal, a directory, or the begin or commit of a transaction.
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import partial, wraps
from pathlib import Path
from typing import Any

__all__ = ["doomed", "install"]

_AT = "DIE_AT_STEP"
_ROOT = Path(__file__).parents[2]

_DURABLE = ("fdatasync", "fsync", "ftruncate", "mkdir", "rename", "replace", "unlink")


def doomed(directory: Path, at: int) -> dict[str, str | None]:
    """The changes to its environment that let a command die at its ``at``-th step."""
    (directory / "sitecustomize.py").write_text("from tests.e2e.dying import install\ninstall()\n")
    return {
        "PYTHONPATH": os.pathsep.join([str(directory), str(_ROOT)]),
        _AT: str(at),
    }


def install() -> None:
    """Have this process, if it is the command and not a worker of it, die at the step."""
    if "ctbatch" in sys.orig_argv:
        _patch(partial(_dying, itertools.count(1), int(os.environ[_AT])))


def _dying(numbers: Iterator[int], at: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a step before and after it."""

    def step() -> None:
        if next(numbers) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    @wraps(function)
    def do(*args: Any, **kwargs: Any) -> Any:
        step()
        result = function(*args, **kwargs)
        step()
        return result

    return do


def _patch(dying: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    for name in _DURABLE:
        setattr(os, name, dying(getattr(os, name)))

    class Dying(sqlite3.Connection):
        executescript = dying(sqlite3.Connection.executescript)

        def execute(self, statement: str, *args: Any) -> sqlite3.Cursor:
            if statement.startswith(("BEGIN", "COMMIT")):
                return dying(super().execute)(statement, *args)  # type: ignore[no-any-return]
            return super().execute(statement, *args)

    sqlite3.connect = partial(sqlite3.connect, factory=Dying)  # type: ignore[assignment]
