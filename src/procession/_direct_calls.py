"""What lets tests call tasks directly, and retry without pauses. Users import it from `procession.testing`."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from procession._engine.call_context import CURRENT_CALL, CallContext, CurrentTask, current_task
from procession._engine.retry import Pauses
from procession._model.record import WHOLE
from procession._model.task import task
from procession._remote.worker.run_stub import RunStub


class TaskContext:
    """A task that code is made to be part of, as `task_context` yields it.

    Attributes:
        task: What `current_task()` returns in the block.

    """

    def __init__(self, run: RunStub, task: CurrentTask) -> None:
        self.task: Final = task
        self._run = run

    def cancel(self) -> None:
        """Cancel the task, as when its run is cancelled: `cancelled` becomes true, and `sleep()` raises."""
        self._run.halt(cancelled=True)


@contextmanager
def task_context(
    name: str = "task",
    *,
    index: int = 0,
    attempt: int = 1,
    element: int | None = None,
    process_name: str = "test",
    run_id: str = "test",
) -> Generator[TaskContext]:
    """Make the calling code part of a task, so that functions that call `current_task()` can be called directly.

    Args:
        name: The name of the task.
        index: The place of the task in its process, from 0.
        attempt: The number of the attempt, from 1.
        element: The place of the element in its map; `None` for a task that is no map.
        process_name: The name of the process.
        run_id: The id of the run.

    Yields:
        The task, which can be cancelled.

    Example:
        >>> from procession import current_task
        >>> from procession.testing import task_context
        >>> with task_context(attempt=2):
        ...     current_task().attempt
        2

    """
    run, place = RunStub(process_name, run_id), WHOLE if element is None else element
    run.function = task(name=name)(task_context)
    token = CURRENT_CALL.set(CallContext(run, threading.current_thread().name, index, attempt, place))
    try:
        yield TaskContext(run, current_task())
    finally:
        CURRENT_CALL.reset(token)


@contextmanager
def without_pauses() -> Generator[None]:
    """Make no pauses between attempts within the block, in all runs of this program: retries are tested at once.

    Example:
        >>> from procession import Process, current_task, task
        >>> from procession.testing import without_pauses
        >>> process = Process("flaky")
        >>> process.add_task(task(retries=9)(lambda: 1 // (current_task().attempt - 9)))
        >>> with without_pauses():
        ...     process.execute()
        [-1]

    """
    before, Pauses.pace = Pauses.pace, 0.0
    try:
        yield
    finally:
        Pauses.pace = before
