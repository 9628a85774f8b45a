"""What the generated processes of `test_everywhere` call: functions that any worker on this machine can import."""

import asyncio
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from tenacity import Retrying, stop_after_attempt, wait_none

from procession import task


class Item(NamedTuple):
    """An element of a map that fails so many times before it comes out well."""

    key: str
    fails: int
    error: type


class OwnError(Exception):
    """One that the standard library does not know."""


def noted(sheet: str, key: str) -> int:
    """Note a call; return how many of this key that makes. In files, which count across processes too."""
    file = os.open(os.path.join(sheet, key), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    try:
        os.write(file, b".")
        return os.fstat(file).st_size
    finally:
        os.close(file)


def noted_calls(sheet: str) -> dict[str, int]:
    """Return how many calls were noted of each key."""
    with os.scandir(sheet) as files:
        return {file.name: file.stat().st_size for file in files}


def once(sheet: str, key: str, fails: int, error: type, /, *args: Any, **kwargs: Any) -> list[Any]:
    """Fail as many times as is said, each time with another error; then return what was passed."""
    attempt = noted(sheet, key)
    if attempt <= fails:
        raise error(key, attempt)
    return [key, *args, kwargs]


def each_once(sheet: str, key: str, item: Any) -> Any:
    """Do the same for an element of a map. What is no `Item` comes out as it is."""
    if not isinstance(item, Item):
        return item
    once(sheet, f"{key}-{item.key}", item.fails, item.error)
    return item._replace(key=f"{item.key}+")


def _up_to(attempts: int) -> Retrying:
    return Retrying(stop=stop_after_attempt(attempts), wait=wait_none())


@task(retries=_up_to(2))
def twice(sheet: str, key: str, fails: int, error: type, /, *args: Any, **kwargs: Any) -> list[Any]:
    """As `once`, with a second attempt."""
    return once(sheet, key, fails, error, *args, **kwargs)


@task(retries=_up_to(3))
def thrice(sheet: str, key: str, fails: int, error: type, /, *args: Any, **kwargs: Any) -> list[Any]:
    """As `once`, with two more attempts."""
    return once(sheet, key, fails, error, *args, **kwargs)


@task(retries=_up_to(2))
def each_twice(sheet: str, key: str, item: Any) -> Any:
    """As `each_once`, with a second attempt."""
    return each_once(sheet, key, item)


@task(retries=_up_to(3))
def each_thrice(sheet: str, key: str, item: Any) -> Any:
    """As `each_once`, with two more attempts."""
    return each_once(sheet, key, item)


def _awaited(function: Callable[..., Any], attempts: int) -> Callable[..., Any]:
    """Return a coroutine function that does the same."""

    async def later(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        try:
            return function(*args, **kwargs)
        except StopIteration as error:  # which Python keeps from leaving a coroutine
            raise StopAsyncIteration(*error.args) from None

    return later if attempts == 1 else task(retries=_up_to(attempts))(later)


AWAITED_CALLS = {attempts: _awaited(once, attempts) for attempts in (1, 2, 3)}
AWAITED_ELEMENT_CALLS = {attempts: _awaited(each_once, attempts) for attempts in (1, 2, 3)}
CALLS = {1: once, 2: twice, 3: thrice}
ELEMENT_CALLS = {1: each_once, 2: each_twice, 3: each_thrice}
