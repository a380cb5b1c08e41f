"""What ``import ctbatch`` offers."""

from __future__ import annotations

import ast
from pathlib import Path

import ctbatch


def test_every_public_name_has_one_home() -> None:
    """``__all__``, the lazy table and what type checkers see are the same names, and each loads."""
    names = set(ctbatch.__all__) - {"__version__"}
    assert names == set(ctbatch._HOMES)
    tree = ast.parse(Path(ctbatch.__file__).read_text("utf-8"))
    typed = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ctbatch.")
        for alias in node.names
    }
    assert typed == {name: f"ctbatch.{home}" for name, home in ctbatch._HOMES.items()}
    for name in ctbatch.__all__:
        assert getattr(ctbatch, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    assert not hasattr(ctbatch, "no_such_name")
