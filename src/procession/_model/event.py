"""What happens in a run, as a record."""

from typing import Final, Literal

from procession._model.progress import Progress
from procession._model.text import shown

EventName = Literal[
    "run_started",
    "run_completed",
    "run_failed",
    "run_cancelled",
    "task_started",
    "task_progressed",
    "task_completed",
    "task_failed",
    "task_cancelled",
    "task_retrying",
    "task_abandoned_ended",
    "element_started",
    "element_completed",
]


class Event:
    """One thing that happened in a run, as observers are told of it.

    `name` says what happened:

    - `run_started`, and `run_completed`, `run_failed` or `run_cancelled`;
    - `task_started`, and `task_completed`, `task_failed`, or `task_cancelled` for one that stopped because its run did;
    - `task_retrying`: an attempt failed, and another one follows;
    - `task_progressed`: elements of a map have ended;
    - `task_abandoned_ended`: an attempt that was given up at its timeout has come to its end after all;
    - `element_started`, `element_completed`, of a map: for those only that are told at once, as the log is.

    `at` is the moment, in seconds since the epoch (UTC), by a clock that never jumps within a run; `process_name` and
    `run_id` say where. The others are `None` where there is nothing to say:

    - of a task, `task_name`, `index` (its place), `element` (a place in a map), `attempt` (1 is the first), `worker`
      (the name of the thread);
    - `duration_s`, in seconds, of a task or run that has ended;
    - `error`, what a task or attempt raised, or what ended a run;
    - `progress`, at the start and end of a run, and of a map that goes on;
    - `dropped`, at the end of a run: how many events the observer was too slow for.
    """

    __slots__ = (
        "at",
        "attempt",
        "dropped",
        "duration_s",
        "element",
        "error",
        "index",
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
        *,
        at: float,
        task_name: str | None = None,
        index: int | None = None,
        element: int | None = None,
        attempt: int | None = None,
        worker: str | None = None,
        duration_s: float | None = None,
        error: BaseException | None = None,
        progress: Progress | None = None,
        dropped: int | None = None,
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
        self.duration_s: Final = duration_s
        self.error: Final = error
        self.progress: Final = progress
        self.dropped: Final = dropped

    def with_dropped(self, dropped: int) -> "Event":
        """Return the same event to an observer that missed so many."""
        return Event(
            self.name,
            self.process_name,
            self.run_id,
            at=self.at,
            duration_s=self.duration_s,
            error=self.error,
            progress=self.progress,
            dropped=dropped,
        )

    def __repr__(self) -> str:
        task = "" if self.task_name is None else f" of task {self.index} ({shown(self.task_name)})"
        return f"<Event {self.name}{task}, process {self.process_name!r}, run {self.run_id}>"
