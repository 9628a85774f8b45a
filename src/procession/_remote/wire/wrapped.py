"""Functions as they travel, with what the worker does around them."""

from collections.abc import Callable
from typing import Any

from procession._model.task import name_of


class Awaited:
    """Calls a coroutine function, and awaits it on an event loop of its own."""

    __slots__ = ("function", "name")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = name_of(function)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        import asyncio  # takes longer to import than all else that a worker needs

        return asyncio.run(self.function(*args, **kwargs))


class WithRemoteSetup:
    """Calls a function on the worker, after the setup that an observer has sent along with it."""

    __slots__ = ("function", "name", "remote_setup")

    def __init__(self, remote_setup: Callable[[], object], function: Callable[..., Any]) -> None:
        self.remote_setup = remote_setup
        self.function = function
        self.name = name_of(function)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        self.remote_setup()
        return self.function(*args, **kwargs)
