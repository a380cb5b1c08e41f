"""Groups of options that several commands share, as dataclasses.

A command takes a group as one parameter; :func:`spread` shows typer the group's fields instead, so
that each option is declared once, with its help, and every command that has it has the same one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Any, TypeVar, get_type_hints

__all__ = ["spread"]

_T = TypeVar("_T")


def spread(command: Callable[..., _T]) -> Callable[..., _T]:
    """Give a command whose parameters are groups the signature of their fields, in order."""
    hints = get_type_hints(command, include_extras=True)
    groups = {
        name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)
    }
    flat: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            flat.extend(_parameters(groups[name]))
        else:
            flat.append(parameter.replace(annotation=hints[name], kind=_KIND))

    @wraps(command)
    def spread_command(**given: Any) -> _T:
        return command(**_gathered(groups, given))

    signature = inspect.Signature(flat)
    spread_command.__signature__ = signature  # type: ignore[attr-defined]  # what typer reads
    return spread_command


_KIND = inspect.Parameter.KEYWORD_ONLY


def _parameters(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(item.name, _KIND, default=_default(item), annotation=hints[item.name])
        for item in fields(group)
    ]


def _default(item: Field[Any]) -> Any:
    return inspect.Parameter.empty if item.default is MISSING else item.default


def _gathered(groups: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    rest = dict(given)
    made = {
        name: group(**{item.name: rest.pop(item.name) for item in fields(group)})
        for name, group in groups.items()
    }
    return rest | made
