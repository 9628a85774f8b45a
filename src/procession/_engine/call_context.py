"""Call contexts: which call a thread or coroutine is making, and what a running task can learn about itself."""

import contextvars
import time
from collections.abc import Callable
from typing import Final, Protocol

from procession._model.log import Logs
from procession._model.text import shown
from procession.errors import TaskCancelled


class CallingRun(Protocol):
    """The part of a run state that a running task may use."""

    process_name: str
    run_id: str
    logs: Logs | None
    """The logs of calls that have not ended; `None` where no logs are kept."""
    children: dict[object, Callable[[], object]]
    """For each unfinished run that a task of this run has started: a function that cancels it."""

    @property
    def around(self) -> "CallContext | None":
        """The call context of the task that executes this run, if it is executed in a task."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled."""
        ...

    def name(self, index: int) -> str:
        """Return the name of the task at an index."""
        ...

    def wait_cancelled(self, seconds: float) -> bool:
        """Wait until the run is cancelled, at most `seconds`; return whether it is."""
        ...


class CallContext:
    """Says which call a worker is making: run, task, element and attempt.

    A worker has one context and moves it from call to call. In a recorded run, and for each attempt with options, a
    call has a context of its own: a thread or coroutine that the call leaves behind keeps it and is not taken for a
    part of the worker's next call.
    """

    __slots__ = ("abandoned", "attempt", "element", "index", "over", "run", "worker")

    def __init__(self, run: CallingRun, worker: str, index: int = -1, attempt: int = 1, element: int = -1) -> None:
        self.run: CallingRun = run
        self.worker: str = worker
        self.index: int = index
        self.attempt: int = attempt
        self.element: int = element
        self.abandoned: bool = False
        self.over: bool = False

    def own(self, index: int, element: int = -1, attempt: int = 1) -> "CallContext":
        """Return a call context of its own for one call of this worker; `over` is set when the call has ended."""
        return CallContext(self.run, self.worker, index, attempt, element)


CURRENT_CALL: contextvars.ContextVar[CallContext] = contextvars.ContextVar("procession_call_context")
"""The call that this thread or coroutine is making, if it is making one."""


class CurrentTask:
    """The task that the calling code is part of, as `current_task()` returns it.

    Attributes:
        index (int): The place of the task in its process, from 0.
        attempt (int): The number of the attempt, from 1.
        name (str): The name of the task.
        process_name (str): The name of its process.
        run_id (str): The id of the run.

    """

    __slots__ = ("_call_context", "attempt", "index", "name", "process_name", "run_id")

    def __init__(self, call_context: CallContext) -> None:
        self._call_context: Final[CallContext] = call_context
        self.index: Final[int] = call_context.index
        self.attempt: Final[int] = call_context.attempt
        self.name: Final[str] = call_context.run.name(call_context.index)
        self.process_name: Final[str] = call_context.run.process_name
        self.run_id: Final[str] = call_context.run.run_id

    @property
    def cancelled(self) -> bool:
        """Whether the task should stop: its run was cancelled, or this attempt was abandoned at its timeout."""
        return self._call_context.abandoned or self._call_context.run.cancelled

    def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until the task should stop.

        In a coroutine, await `asyncio.sleep` instead, which ends when the run is cancelled and does not block the loop.

        Args:
            seconds: How long to sleep.

        Raises:
            TaskCancelled: The run was cancelled, or this attempt was abandoned at its timeout. It is raised about 0.1 s
                afterwards, at most.

        """
        deadline = time.monotonic() + seconds
        while True:
            if self.cancelled:
                raise TaskCancelled(
                    f"task {self.index} ({shown(self.name)}) of process {shown(self.process_name)!r} was cancelled"
                )
            left = deadline - time.monotonic()
            if left <= 0:
                return
            # A timeout abandons this attempt without waking its thread, so look at `cancelled` every 0.1 s.
            self._call_context.run.wait_cancelled(min(left, 0.1))

    def __repr__(self) -> str:
        name, process = shown(self.name), shown(self.process_name)
        return f"<current task {self.index} ({name}) of process {process!r}, attempt {self.attempt}>"


def current_task() -> CurrentTask:
    """Return the task that the calling code is part of.

    Returns:
        The task, as it can be asked for its name, its attempt, and whether it should stop.

    Raises:
        RuntimeError: The calling code is not part of a task.

    Example:
        >>> from procession import Process
        >>> process = Process("names")
        >>> process.add_task(lambda: current_task().index)
        >>> process.execute()
        [0]

    """
    call_context = CURRENT_CALL.get(None)
    if call_context is None or call_context.index < 0:
        raise RuntimeError("current_task() was called outside of a task")
    return CurrentTask(call_context)
