"""What a running task can learn about itself."""

import contextvars
import time
from collections.abc import Callable
from typing import Final, Protocol

from procession._model.log import Logs
from procession._model.text import shown
from procession.errors import TaskCancelled


class CallingRun(Protocol):
    """What a task may know and ask of the engine that runs it."""

    process_name: str
    run_id: str
    logs: Logs | None
    """What calls that go on have logged; `None` where nobody keeps it."""
    children: dict[object, Callable[[], object]]
    """How to cancel the runs that its tasks have started and that go on."""

    @property
    def around(self) -> "CallContext | None":
        """Where the run itself is executed, if that is in a task."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled."""
        ...

    def name(self, index: int) -> str:
        """Return a task's name."""
        ...

    def wait_cancelled(self, seconds: float) -> bool:
        """Wait until the run is cancelled, at most this long; return whether it is."""
        ...


class CallContext:
    """Where a task runs: a worker's loop, which moves from task to task, or one call, or one attempt of one.

    In a run that is recorded each call has one of its own. What it leaves behind, a thread or a coroutine, keeps that,
    and so does not pass for the worker's next task.
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
        """Return a call context for one call of this worker. It is `over` when that has ended."""
        return CallContext(self.run, self.worker, index, attempt, element)


CURRENT_CALL: contextvars.ContextVar[CallContext] = contextvars.ContextVar("procession_seat")


class CurrentTask:
    """The task that the calling code is part of. Obtained from `current_task()`."""

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
        """Whether the task is asked to stop: its run was cancelled, or it ran into its timeout."""
        return self._call_context.abandoned or self._call_context.run.cancelled

    def sleep(self, seconds: float) -> None:
        """Sleep, in seconds, but no longer than until the task is asked to stop: then raise `TaskCancelled`.

        In a coroutine, await `asyncio.sleep` instead: it ends when the run is cancelled, and leaves the loop to others.
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
            # A timeout abandons one attempt and wakes nobody, so look up now and then.
            self._call_context.run.wait_cancelled(min(left, 0.1))

    def __repr__(self) -> str:
        name, process = shown(self.name), shown(self.process_name)
        return f"<current task {self.index} ({name}) of process {process!r}, attempt {self.attempt}>"


def current_task() -> CurrentTask:
    """Return the task that the calling code is part of.

    Raises `RuntimeError` outside of a task.

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
