"""Functions that a map calls with lists of elements: how they are called, and what they have to return."""

from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, cast

from procession._model.text import counted, shown, sketch

_WHOLES = (str, bytes, bytearray, Mapping, set, frozenset)
"""What can be iterated, but is surely not meant as results in the order of the elements."""


_LAYERS = 4
"""A partial for the constants, and what a coordinator puts around a coroutine function and for observers."""


class BatchFunction:
    """Calls a function with lists of elements, and returns the list of its results: one for each element.

    `name` is that of the function. The result of another number of elements is an error of the call, so it is found
    where the call is made.
    """

    __slots__ = ("function", "name")

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function = function
        self.name = name

    def __call__(self, /, *columns: list[Any], **constants: Any) -> Any:
        # Copies, so that another attempt gets all elements, whatever this one does to its lists.
        value: Any = self.function(*map(list, columns), **constants)
        if isinstance(value, Coroutine):
            return cast("Any", value)  # which is refused where the value of any call would be
        return results_of(value, len(columns[0]), self.name)


class AwaitedBatchFunction(BatchFunction):
    """Does the same for a coroutine function."""

    __slots__ = ()

    async def __call__(self, /, *columns: list[Any], **constants: Any) -> list[Any]:
        value = await self.function(*map(list, columns), **constants)
        return results_of(value, len(columns[0]), self.name)


def inside(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the user's function of a call of several elements, and any other as it is."""
    return function.function if isinstance(function, BatchFunction) else function


def results_of(value: Any, count: int, name: str) -> list[Any]:
    """Return the value of a batched call as a list with one result for each of its `count` elements.

    Raises `TypeError` for what holds no results in order, and `ValueError` for another number of them.

    >>> results_of((letter.upper() for letter in "ab"), 2, "upper")
    ['A', 'B']
    """
    rule = "a map with batch=... calls its function for one result for each element, in their order"
    said, kind = f"{shown(name)} returned", shown(type(value).__name__)
    if issubclass(type(value), _WHOLES) or type(value).__name__ == "DataFrame":  # iterating that gives columns
        raise TypeError(f"{said} an object of type {kind} for {counted(count, 'element')}: {rule}, in a list, say")
    try:
        results: Iterator[Any] = iter(value)
    except TypeError:
        raise TypeError(
            f"{said} an object of type {kind}, which cannot be iterated, for {counted(count, 'element')}: {rule}"
        ) from None
    found = list(islice(results, count + 1))
    if len(found) != count:
        number = f"{len(found):,}"
        if len(found) > count:
            try:
                number = f"{len(value):,}"
            except TypeError:
                number = f"more than {count:,}"
        raise ValueError(f"{said} {number} results for {counted(count, 'element')}: {rule}")
    return found


def checked_batch(where: str, batch: Any) -> int | None:
    """Return how many elements a call of a map gets, at most. Raises for what is no such number."""
    if batch is None:
        return None
    if isinstance(batch, bool) or not isinstance(batch, int):
        raise TypeError(f"{where}: map(batch=...) takes a number of elements as an int, or None; got {sketch(batch)}")
    if batch < 1:
        raise ValueError(f"{where}: map(batch=...) takes a number of at least 1; got {sketch(batch)}")
    return batch


def is_batched(function: object) -> bool:
    """Return whether a callable calls a function with lists of elements, whatever an engine has put around it."""
    for _ in range(_LAYERS):
        if isinstance(function, BatchFunction):
            return True
        with suppress(Exception):
            function = getattr(function, "func", None) or getattr(function, "function", None)
    return False
