"""Handles in arguments: which tasks they stand for, and their replacement by values."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

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
        if type(value) is Handle:
            found.append(value)
        elif type(value) in HOLDERS:
            items = cast("Iterable[Any]", value.values() if type(value) is dict else value)
            found += [item for item in items if type(item) is Handle]
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

    if type(value) not in HOLDERS or not handles_in((value,), {}):
        return value
    if isinstance(value, Handle):
        return of(value)
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)  # type: ignore[redundant-cast]  # pyright sees it as partly unknown
        return {key: of(item) for key, item in items.items()}
    filled = map(of, value)
    return list(filled) if isinstance(value, list) else tuple(filled)
