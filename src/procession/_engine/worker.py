"""The worker of the engine for threads: a thread that makes calls, as long as it has a place among the others."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from procession._engine.call_context import CallContext

if TYPE_CHECKING:
    from procession._engine.watcher import Deadline


class Engine(Protocol):
    """What a worker needs of its engine."""

    def abandon(self, worker: "Worker", resume: Callable[[], object]) -> None:
        """Give the place of a worker, whose call takes too long, to another."""
        ...


class Worker:
    """The place of a thread among the `max_workers`. One that is `alone` has nothing else to do while a task pauses."""

    __slots__ = ("_engine", "abandoned", "alone", "call_context", "deadline", "ended", "has_place", "thread")

    def __init__(self, engine: Engine, call_context: CallContext, *, alone: bool) -> None:
        self._engine = engine
        self.call_context = call_context
        self.alone = alone
        self.has_place = True
        self.abandoned = False
        self.ended = False
        self.deadline: Deadline | None = None
        self.thread = threading.current_thread()

    def abandon(self, resume: Callable[[], object]) -> None:
        """Leave the thread behind with its call, and have `resume` make what follows ready for another worker."""
        self.abandoned = True
        self._engine.abandon(self, resume)
