"""Events: the records of what happens in a run, of which observers are told."""

from typing import Final, Literal

from procession._model.progress import Progress
from procession._model.text import shown

EventName = Literal[
    "run_started",
    "run_completed",
    "run_failed",
    "run_cancelled",
    "run_suspended",
    "task_started",
    "task_progressed",
    "task_completed",
    "task_failed",
    "task_cancelled",
    "task_suspended",
    "task_retrying",
    "task_held_back",
    "task_abandoned_ended",
    "element_started",
    "element_completed",
    "call_started",
    "call_completed",
    "call_failed",
]
"""What an event says: see `Event`."""


class Event:
    """One event of a run, as observers are told of it.

    The names of events:

    - `run_started`, and at the end `run_completed`, `run_failed`, `run_cancelled` or `run_suspended`;
    - `task_started`, and at the end `task_completed`, `task_failed`, or `task_cancelled` if the task stopped because
      its run was cancelled;
    - `task_suspended`: the task was left, as it waits for an answer or until a time, and starts again later;
    - `task_retrying`: an attempt failed, and another attempt follows;
    - `task_held_back`: a call was held back by a limit, for `duration` seconds, and may begin now;
    - `task_progressed`: elements of a map have ended;
    - `task_abandoned_ended`: an attempt that was abandoned at its timeout has ended after all;
    - `element_started`, `element_completed`: the start and end of an element of a map. Only immediate observers and the
      log are told of elements;
    - `call_started`, and at the end `call_completed` or `call_failed`: a call that a task makes itself, by
      `current_task().call`. Only immediate observers and the log are told of these calls.

    Attributes:
        name (EventName): What happened.
        process_name (str): The name of the process.
        run_id (str): The id of the run.
        at (float): When it happened, in seconds since the epoch (UTC), by a clock that never jumps within a run.
        task_name (str | None): The name of the task; `None`, as all attributes below, where the event has no such
            thing.
        index (int | None): The place of the task in its process, from 0.
        element (int | None): The place of the element in its map, from 0.
        attempt (int | None): The number of the attempt, from 1.
        worker (str | None): The name of the thread, asyncio task or worker process that made the call.
        duration (float | None): How long the task or run took, in seconds; there when it has ended. Of a call that was
            held back, for how long.
        error (BaseException | None): The exception of the task or attempt, or the exception that ended the run.
        progress (Progress | None): How far the run has come, at its start and end; of a map, how far that has come.
        limit (str | None): The name of the limit that held the call back.
        call (int | None): The place of a call among those that its task, or element, makes itself, from 0.
        call_name (str | None): The name of what such a call calls.
        dropped (int | None): At the end of a run, how many events this observer missed because it was too slow.

    """

    __slots__ = (
        "at",
        "attempt",
        "call",
        "call_name",
        "dropped",
        "duration",
        "element",
        "error",
        "index",
        "limit",
        "name",
        "process_name",
        "progress",
        "run_id",
        "task_name",
        "worker",
    )

    def __init__(
        self,
        name: EventName,
        process_name: str,
        run_id: str,
        at: float,
        task_name: str | None = None,
        index: int | None = None,
        element: int | None = None,
        attempt: int | None = None,
        worker: str | None = None,
        duration: float | None = None,
        error: BaseException | None = None,
        progress: Progress | None = None,
        dropped: int | None = None,
        limit: str | None = None,
        call: int | None = None,
        call_name: str | None = None,
    ) -> None:
        self.name: Final[EventName] = name
        self.at: Final = at
        self.process_name: Final = process_name
        self.run_id: Final = run_id
        self.task_name: Final = task_name
        self.index: Final = index
        self.element: Final = element
        self.attempt: Final = attempt
        self.worker: Final = worker
        self.duration: Final = duration
        self.error: Final = error
        self.progress: Final = progress
        self.dropped: Final = dropped
        self.limit: Final = limit
        self.call: Final = call
        self.call_name: Final = call_name

    def with_dropped(self, dropped: int) -> "Event":
        """Return the same event for an observer that missed `dropped` events."""
        return Event(
            self.name,
            self.process_name,
            self.run_id,
            at=self.at,
            duration=self.duration,
            error=self.error,
            progress=self.progress,
            dropped=dropped,
        )

    def __repr__(self) -> str:
        task = "" if self.task_name is None else f" of task {self.index} ({shown(self.task_name)})"
        return f"<Event {self.name}{task}, process {self.process_name!r}, run {self.run_id}>"
