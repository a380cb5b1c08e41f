"""Looking at paths without an exception for what may not be looked at.

Before Python 3.14 the like-named methods of :class:`pathlib.Path` raise for a directory that may
not be searched or a name that is too long. Here that is "no": who opens it then gets the reason.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["exists", "is_directory", "is_file", "legible"]


def exists(path: Path) -> bool:
    """Whether it is there, as far as that can be seen; a link without a target is not."""
    return os.path.exists(path)  # noqa: PTH110  # see above


def is_file(path: Path) -> bool:
    """Whether it is seen to be a regular file."""
    return os.path.isfile(path)  # noqa: PTH113  # see above


def is_directory(path: Path) -> bool:
    """Whether it is seen to be a directory."""
    return os.path.isdir(path)  # noqa: PTH112  # see above


def legible(text: str) -> str:
    """The text of a path that may not be UTF-8 (lone surrogates), with escapes for what is not."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
