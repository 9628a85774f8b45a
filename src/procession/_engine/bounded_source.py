"""What a map draws from, in a run with a deadline: a thread draws, and is left behind where the source does not give.

who draws ──a context──▶ a thread that calls `next` in it ──the element, or the error──▶ who draws
                                                            (waited for until the deadline, and a moment more)
"""

import contextvars
import threading
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from procession._engine.run_deadline import GRACE_S, RunDeadline
from procession.errors import TaskTimeoutError, WorkersUnavailableError

_Given = tuple[tuple[Any, ...], BaseException | None]


class BoundedSource(Iterator[tuple[Any, ...]]):
    """Gives what an iterator gives, one element at a time, and raises once the run's time is over."""

    __slots__ = ("_asked", "_deadline", "_given", "_thread", "_waits")

    def __init__(self, iterator: Iterator[tuple[Any, ...]], deadline: RunDeadline, name: str) -> None:
        self._deadline = deadline
        self._asked: SimpleQueue[contextvars.Context | None] = SimpleQueue()
        self._given: SimpleQueue[_Given] = SimpleQueue()
        self._waits = False
        """Whether an element was asked for that has not come."""
        self._thread = threading.Thread(
            target=_serve, args=(iterator, self._asked, self._given), name=name, daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:
            raise WorkersUnavailableError(f"no thread could be started to draw from an iterable: {error}") from None

    def __next__(self) -> tuple[Any, ...]:
        """Return the next element. Raises `TaskTimeoutError` where it does not come before the run's time is over."""
        self._waits = True
        self._asked.put(contextvars.copy_context())
        try:
            given = self._given.get(timeout=self._deadline.left + GRACE_S)
        except Empty:
            raise TaskTimeoutError("no element came before the run's time was over") from None
        self._waits = False
        element, error = given
        if error is None:
            return element
        try:
            raise error
        finally:
            del given, error  # no cycle may stay

    def close(self) -> None:
        """End the thread, or leave it behind with an element that has not come."""
        self._asked.put(None)
        if not self._waits:
            self._thread.join()

    def __del__(self) -> None:
        self._asked.put(None)  # where an error kept `close` from being called


def _serve(
    iterator: Iterator[tuple[Any, ...]],
    asked: "SimpleQueue[contextvars.Context | None]",
    given: "SimpleQueue[_Given]",
) -> None:
    """Draw each time that somebody asks, until there is a `None`."""
    while (context := asked.get()) is not None:
        try:
            answer: _Given = context.run(next, iterator), None
        except BaseException as error:
            answer = (), error
        given.put(answer)
        del answer, context
