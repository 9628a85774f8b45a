"""How a task of a run stands, whether or not it has ended: decided here, for all that show it."""

from dataclasses import dataclass
from typing import Literal

from procession.journal.run_info import TaskInfo

_ROUNDING_S = 1e-3
"""Between when a task began as its run tells and as its record does, at most."""


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """How a task stands. `ended` says how it ended, if it has, `since` when it began, if it runs (as `started_at`)."""

    task: int
    state: Literal["completed", "failed", "running", "waiting", "interrupted", "never begun"]
    ended: TaskInfo | None = None
    since: float | None = None


def task_status(task: int, ended: TaskInfo | None, began: float | None, *, goes_on: bool, partly: bool) -> TaskStatus:
    """Return how a task stands of which these are known: its record and, if its run has said that it runs, since when.

    `goes_on` says whether the run does, `partly` whether the journal has a part of the task.
    """
    # What has failed before is called again.
    if ended is not None and (began is None or began < ended.started_at + _ROUNDING_S):
        return TaskStatus(task, ended.state, ended)
    if goes_on:
        return TaskStatus(task, "waiting" if began is None else "running", since=began)
    return TaskStatus(task, "never begun" if began is None and not partly else "interrupted")
