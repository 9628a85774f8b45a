"""A call that takes the value of the call before it in the same batch: what stands for that value on the way."""

from enum import Enum
from typing import Any, cast


class PreviousValue(Enum):
    """What stands, in a call, for the value of the call before it in the same batch."""

    VALUE = 0


PREVIOUS_VALUE = PreviousValue.VALUE


def with_previous_value(
    args: tuple[Any, ...], kwargs: dict[str, Any], value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call, with the previous call's value in the places that take it."""
    return tuple(_filled(arg, value) for arg in args), {name: _filled(arg, value) for name, arg in kwargs.items()}


def _filled(arg: Any, value: Any) -> Any:
    """Return an argument with the value in place of `PREVIOUS_VALUE`, which is found one level deep, as handles are."""
    if arg is PREVIOUS_VALUE:
        return value
    if type(arg) is dict:
        items = cast("dict[Any, Any]", arg)  # type: ignore[redundant-cast]  # pyright sees it as partly unknown
        return {key: value if item is PREVIOUS_VALUE else item for key, item in items.items()}
    if type(arg) in (list, tuple) and any(item is PREVIOUS_VALUE for item in arg):
        return type(arg)(value if item is PREVIOUS_VALUE else item for item in arg)
    return arg
