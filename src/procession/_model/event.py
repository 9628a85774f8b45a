"""What happens in a run, as a record."""

from typing import Literal, NamedTuple

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
]


class Event(NamedTuple):
    """One thing that happened in a run. The fields from `task_name` on are for tasks; `duration_s` is in seconds."""

    name: EventName
    process_name: str
    run_id: str
    task_name: str | None = None
    index: int | None = None
    attempt: int | None = None
    duration_s: float | None = None
    error: BaseException | None = None
