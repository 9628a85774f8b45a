"""One call to have made elsewhere, and everything that is known of it while it is under way."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from procession._engine.again import Again
from procession._engine.drawn import DrawnMap
from procession._model.record import WHOLE
from procession._model.task import Call, Options, is_process, name_of


class End(NamedTuple):
    """How an attempt ended: with an error or, to be judged by what it returned, with none; when; and in whose hands."""

    error: BaseException | None
    at: float
    worker: str


class Unit:
    """The call of a task, or of an element of a map. `alone` says that nothing else may travel with it.

    `last` is how the attempt before ended, `hung` the thread in which that still goes on, or whether there is one.
    `stays` says that the call is made in this process, wherever others are: it is a process, whose tasks then run
    where that one says.
    """

    __slots__ = (
        "again",
        "alone",
        "attempt",
        "call",
        "digest",
        "element",
        "follows",
        "hung",
        "index",
        "job",
        "last",
        "start",
        "stays",
        "timeout",
        "told",
    )

    def __init__(
        self,
        index: int,
        call: Call,
        options: Options,
        *,
        element: int = WHOLE,
        job: DrawnMap | None = None,
        digest: bytes = b"",
        follows: bool = False,
    ) -> None:
        self.index = index
        self.follows = follows
        self.element = element
        self.call = call
        self.job = job
        self.digest = digest
        self.timeout = options.timeout
        self.again = None if options.retries == 0 else Again(options, call)
        self.stays = is_process(call[0])
        self.alone = self.stays or options.timeout is not None
        self.attempt = 1
        self.start: float | None = None
        self.told = False
        self.last: End | None = None
        self.hung: threading.Thread | bool = False

    @property
    def key(self) -> int | tuple[int, int]:
        """Under what its attempts are counted."""
        return self.index if self.job is None else (self.index, self.element)

    @property
    def hangs(self) -> bool:
        """Whether the attempt before still goes on, so that no other may be made beside it."""
        return self.hung.is_alive() if isinstance(self.hung, threading.Thread) else self.hung


class Awaited:
    """Calls a coroutine function, and awaits it on an event loop of its own."""

    __slots__ = ("function", "name")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = name_of(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return asyncio.run(self.function(*args, **kwargs))
