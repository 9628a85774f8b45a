"""Handles in arguments: which tasks they stand for, and their replacement by values."""

from collections.abc import Mapping, Sequence
from typing import Any

from procession._model.handle import Handle, any_made, index_of

HOLDERS = frozenset({Handle, list, tuple, dict})
"""The types an argument must have to be, or to hold, a handle. Subclasses are values of their own and left alone."""

Values = Sequence[object] | Mapping[int, object]
"""The values of tasks, by index."""


def handles_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Handle]:
    """Return the handles that stand as an argument, or directly inside a list, tuple or dict argument."""
    found: list[Handle] = []
    if not any_made():
        return found
    for value in (*args, *kwargs.values()) if kwargs else args:
        kind: type[object] = type(value)
        if kind is Handle:
            found.append(value)
        elif kind is list or kind is tuple:
            found += [item for item in value if type(item) is Handle]
        elif kind is dict:
            found += [item for item in value.values() if type(item) is Handle]
    return found


def bound(args: tuple[Any, ...], kwargs: dict[str, Any], values: Values) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with the values in place of handles; containers without a handle stay the same object."""
    filled = [
        value
        if type(value) not in HOLDERS
        else values[index_of(value)]
        if type(value) is Handle
        else _filled(value, values)
        for value in args
    ]
    return tuple(filled), {key: _filled(value, values) for key, value in kwargs.items()} if kwargs else kwargs


def _filled(value: Any, values: Values) -> Any:
    def of(item: Any) -> Any:
        return values[index_of(item)] if type(item) is Handle else item

    kind: type[object] = type(value)
    if kind is list and any(type(item) is Handle for item in value):
        return [of(item) for item in value]
    if kind is tuple and any(type(item) is Handle for item in value):
        return tuple([of(item) for item in value])
    if kind is dict and any(type(item) is Handle for item in value.values()):
        return {key: of(item) for key, item in value.items()}
    return of(value)
