"""How a task of a run stands, whether or not it has ended: decided here, for all that show it."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, select

from procession._model.record import WHOLE
from procession.journal.checked import Running
from procession.journal.run_info import RunInfo, TaskInfo
from procession.journal.schema import calls, records, runs

_ROUNDING_S = 1e-3
"""Between when a task began as its run tells and as its record does, at most."""


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """How a task stands. `ended` says how it ended, if it has, `since` when it began, if it runs (as `started_at`).

    A map of a completed run is `"cancelled"` if only a part of its elements was called, as nobody took others. If it
    follows from a task that failed, it is `"interrupted"`: a later execution goes on with both.
    """

    task: int
    state: Literal["completed", "failed", "running", "waiting", "interrupted", "not started", "suspended", "cancelled"]
    ended: TaskInfo | None = None
    since: float | None = None
    label: str | None = None
    """What its name gives for its arguments, as far as that is known."""
    pausing: bool = False
    """Whether it waits for its next attempt."""


def task_statuses(
    connection: Connection,
    key: int,
    info: RunInfo,
    tasks: Sequence[int],
    ended: Mapping[int, TaskInfo],
    of_failed: Callable[[], AbstractSet[int]],
) -> list[TaskStatus]:
    """Return how these tasks of a run stand, from the records of those that have `ended`, and what it has reported.

    `of_failed` returns the tasks that failed, and those that follow from them. It is asked where that matters.
    """
    goes_on = info.status == "running"
    partly = set[int]() if goes_on else _partly(connection, key, [task for task in tasks if task not in ended])
    pausing = {one.task for one in info.pausing}
    running = {one.task: one for one in (*info.pausing, *info.running)}
    waiting = {one.within(info.id) for one in info.waits}
    whole = info.status == "completed"
    open_ones = of_failed() if whole and partly and (info.progress is None or info.progress.failed) else ()
    return [
        _task_status(
            task,
            ended.get(task),
            running.get(task),
            goes_on=goes_on,
            partly=task in partly,
            pausing=task in pausing,
            waits=task in waiting,
            completed=whole and task not in open_ones,
        )
        for task in tasks
    ]


def _task_status(
    task: int,
    ended: TaskInfo | None,
    running: Running | None,
    *,
    goes_on: bool,
    partly: bool,
    pausing: bool = False,
    waits: bool = False,
    completed: bool = False,
) -> TaskStatus:
    """Return how a task stands: from its record, and from what its run has reported if that says that it runs.

    `goes_on` says whether the run does, `partly` whether the journal has a part of the task, `pausing` whether it is
    between two attempts, `waits` whether the run is suspended, as the task waits, `completed` whether the run
    has, and the task does not follow from one that failed.
    """
    # What has failed before is called again.
    if ended is not None and (running is None or running.started_at < ended.started_at + _ROUNDING_S):
        return TaskStatus(task, ended.state, ended, label=ended.label)
    if waits:
        return TaskStatus(task, "suspended")
    if completed and partly:
        return TaskStatus(task, "cancelled")
    if running is None:
        return TaskStatus(task, "waiting" if goes_on else "interrupted" if partly else "not started")
    if goes_on and pausing:
        return TaskStatus(task, "waiting", label=running.label, pausing=True)
    if goes_on:
        return TaskStatus(task, "running", since=running.started_at, label=running.label)
    return TaskStatus(task, "interrupted", label=running.label)


def _partly(connection: Connection, key: int, tasks: Sequence[int]) -> set[int]:
    """Return those of the tasks that anything is recorded inside of: an element, a call, or a run."""
    if not tasks:
        return set()
    c = records.c
    of_calls = select(calls.c.task).where(calls.c.run == key, calls.c.task.in_(tasks)).distinct()
    of_elements = select(c.task).where(c.run == key, c.task.in_(tasks), c.element != WHOLE).distinct()
    nested = select(runs.c.id).where(runs.c.parent == key, runs.c.id.in_(map(str, tasks)))
    found = {task for query in (of_calls, of_elements) for task in connection.execute(query).scalars().all()}
    return found | {int(place) for place in connection.execute(nested).scalars().all()}
