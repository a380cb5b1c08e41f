"""The values of options as they are typed: paths, numbers of workers, percentages.

Each raises :class:`~ctbatch.errors.SettingsError` for what is none, with the name of the option.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from ctbatch.errors import SettingsError

__all__ = ["NOT_EMPTY", "path_of", "percent_in", "workers_in"]

NOT_EMPTY: Final = "give a value or leave the option out; an unset shell variable is empty"


def path_of(option: str) -> Callable[[str], Path]:
    """Takes the text of an option for a path, unless it is empty: that would be the working
    directory.
    """

    def parse(text: str) -> Path:
        if not text:
            raise SettingsError(option, "is empty", NOT_EMPTY)
        return Path(text)

    return parse


def workers_in(text: str) -> int | None:
    """A number of workers; ``None`` for ``auto``."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise SettingsError("--workers", f"must be a number or auto, not {text!r}") from None


def percent_in(text: str) -> float:
    """A percentage, with its sign or without."""
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError:
        raise SettingsError(
            "--max-refused", f"must be a percentage such as 5%, not {text!r}"
        ) from None
