"""What docstrings say of the package holds."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ctbatch

ROOT = Path(ctbatch.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
REFERENCE = re.compile(r":(?:mod|class|func|meth|attr|data):`~?(ctbatch\.[\w.]+)`")


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def _references() -> Iterator[str]:
    """Everything that is referred to by its full name."""
    for path in FILES:
        yield from REFERENCE.findall(path.read_text("utf-8"))


def _resolve(name: str) -> object:
    """The module, or what is in one, that a name stands for."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        outer, _, inner = name.rpartition(".")
        return getattr(_resolve(outer), inner)


@pytest.mark.parametrize("name", sorted(set(_references())))
def test_what_is_referred_to_exists(name: str) -> None:
    """A reference leads somewhere."""
    assert _resolve(name) is not None


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_every_module_says_what_it_is(path: Path) -> None:
    """In a sentence at least."""
    told = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert told
    assert len(told) > 10
