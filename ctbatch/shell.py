"""Commands that a person is told to run, written so that a shell takes them as they are printed.

Invariant: what is given back is printable, so that no name can steer a terminal, and bash (or zsh,
ksh, the sh of POSIX.1-2024) reads the very bytes of the name from it, also those that are no text.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

__all__ = ["command", "quote"]


def command(words: Iterable[str]) -> str:
    """The words as one line."""
    return " ".join(quote(word) for word in words)


def quote(word: str) -> str:
    """The word in quotes, if it needs any; as ``$'…'`` with escapes if it is not printable."""
    if word.isprintable():
        return shlex.quote(word)
    return f"$'{''.join(_escaped(c) for c in word)}'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
