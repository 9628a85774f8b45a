"""What happens in a run, as a record."""

from typing import Final, Literal

EventName = Literal[
    "run_started",
    "run_completed",
    "run_failed",
    "run_cancelled",
    "task_started",
    "task_completed",
    "task_failed",
    "task_retrying",
    "task_abandoned_ended",
    "element_started",
    "element_completed",
]


class Event:
    """One thing that happened in a run. The fields from `task_name` on are for tasks; `duration_s` is in seconds.

    `element` is the place of an element in a map, where the event is of one.
    """

    __slots__ = ("attempt", "duration_s", "element", "error", "index", "name", "process_name", "run_id", "task_name")

    def __init__(
        self,
        name: EventName,
        process_name: str,
        run_id: str,
        *,
        task_name: str | None = None,
        index: int | None = None,
        element: int | None = None,
        attempt: int | None = None,
        duration_s: float | None = None,
        error: BaseException | None = None,
    ) -> None:
        self.name: Final[EventName] = name
        self.process_name: Final = process_name
        self.run_id: Final = run_id
        self.task_name: Final = task_name
        self.index: Final = index
        self.element: Final = element
        self.attempt: Final = attempt
        self.duration_s: Final = duration_s
        self.error: Final = error
