"""Coroutines that a plain function returns: nothing would ever await them, so the task fails.

Other awaitables, such as futures, go on by themselves and are values like any other.
"""

from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def awaited(value: T) -> T:
    """Return the value of a call, or raise `TypeError` if it is a coroutine."""
    if is_coroutine(type(value)):
        raise unawaited(value)
    return value


def unawaited_in(values: Sequence[object]) -> Iterator[int]:
    """Yield the places of coroutines among values. Where there are none, the search takes some 20 ns for each value."""
    kinds = set(filter(is_coroutine, set(map(type, values))))
    if kinds:
        yield from (place for place, value in enumerate(values) if type(value) in kinds)


def unawaited(value: Any, who: str = "it") -> TypeError:
    """Return the exception for a coroutine that a call returned, and close the coroutine unless it has been begun."""
    import inspect  # takes long to import, and few calls return a coroutine

    if inspect.iscoroutine(value) and inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
        with suppress(Exception):
            value.close()
    name = getattr(value, "__qualname__", type(value).__name__)
    return TypeError(
        f"{who} returned a coroutine, of {name}, that nobody awaits. Only what is known before the call to be a "
        "coroutine function is awaited: give the task the async function itself, with its arguments, or one that "
        "awaits, as in `async def call(): return await ...`; a decorator marks its wrapper with "
        "inspect.markcoroutinefunction"
    )


def is_coroutine(kind: type) -> bool:
    """Return whether instances of a type are coroutines."""
    return hasattr(kind, "__await__") and issubclass(kind, Coroutine)
