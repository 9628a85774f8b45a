"""What a journal shows of a run and of its tasks, made of rows that may be damaged or somebody else's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, null, type_coerce
from sqlalchemy.types import NullType

from procession._model.progress import Progress
from procession._model.record import WHOLE
from procession.journal.checked import NAME_LIMIT, TEXT_LIMIT, Checked, Running, RunRow, bounded, error_of
from procession.journal.schema import records


@dataclass(frozen=True, slots=True)
class RunInfo:
    """How a recorded run stands, as the journal shows it. All times are in seconds since the epoch, UTC."""

    id: str
    """The run's id; of a run nested in another one, `run/task` or `run/task.element`."""
    process: str
    """The name of the process."""
    status: Literal["running", "completed", "failed", "cancelled", "interrupted"]
    """`Run.status`, or `"interrupted"` for a run whose process is gone without having recorded an end."""
    executions: int
    """How many times the run was begun."""
    created_at: float
    """When the run was begun for the first time."""
    started_at: float
    """When the run was begun for the last time, apart from executions that found it completed and called nothing."""
    ended_at: float | None
    """When the last execution ended; `None` if it has not."""
    progress: Progress | None
    """How far the run has come: at most about a second old while it goes on; after a crash, what is recorded."""
    running: tuple[Running, ...]
    """The tasks that run now or, after a crash, that ran when the run was last heard of."""
    cancelling: bool
    """Whether somebody has asked for the run to be cancelled."""
    host: str | None
    """The machine on which the run is executed now; `None` if nobody executes it."""
    pid: int | None
    """The number of the process that executes the run now; `None` if none does."""
    error: str | None
    """Why the run failed: what stopped it or, under `on_error="continue"`, what failed first.

    Where the journal is damaged, the text begins with the values that are wrong.
    """
    origin: Mapping[str, Any]
    """How the run was begun: `argv`, without the arguments of other programs, and `folder`."""


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """How a task, or one element of a map, ended, as the journal shows it."""

    task: int
    """The place of the task in its process; 0 is the first."""
    element: int | None
    """The place of the element in its map; `None` for the task itself."""
    name: str
    state: Literal["completed", "failed"]
    attempts: int
    """How many times it was called, retries included."""
    started_at: float
    """When the first attempt began, in seconds since the epoch, UTC."""
    duration: float
    """Seconds from the start of the first attempt to the end, pauses between attempts included."""
    worker: str
    """The name of the thread, process or asyncio task that made the call."""
    size: int | None
    """The size of the recorded value in bytes; `None` if there is no value."""
    error: str | None
    """The text of what was raised, and its traceback; `None` if nothing was."""
    log: str | None
    """What the call has logged, if that was kept: see `TaskLogHandler`."""


def run_info(row: RunRow, run_id: str, progress: Progress | None, *, alive: bool) -> RunInfo:
    """Return how the run of a row of `runs` stands; `alive` says whether somebody executes it."""
    holder = row.holder if alive else None
    return RunInfo(
        id=run_id,
        process=row.process,
        status="interrupted" if row.status == "running" and not alive else row.status,
        executions=row.executions,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        progress=progress,
        running=row.running if row.status == "running" else (),
        cancelling=row.cancelling,
        host=None if holder is None else holder.host,
        pid=None if holder is None else holder.pid,
        error=error_of(row.error, row.wrong),
        origin=row.origin,
    )


def task_columns(head: int = TEXT_LIMIT + 1, *, log: bool = True) -> list[ColumnElement[Any]]:
    """Return the columns of `records` that `task_info` takes, with the first `head` characters of an error."""
    c = records.c
    plain = {
        name: type_coerce(c[name], NullType()) for name in ("task", "element", "attempts", "started_at", "duration")
    }
    return [
        plain["task"],
        plain["element"],
        bounded(c.name, NAME_LIMIT),
        bounded(c.state, NAME_LIMIT),
        plain["attempts"],
        plain["started_at"],
        plain["duration"],
        bounded(c.worker, NAME_LIMIT),
        func.length(c.value),
        bounded(c.error, head),
        bounded(c.log, TEXT_LIMIT + 1) if log else null(),
    ]


def task_info(row: Sequence[Any]) -> TaskInfo:
    """Return how the task of a row of `task_columns` ended."""
    check = Checked()
    task, element, name, state, attempts, started_at, duration, worker, size, error, log = row
    found = TaskInfo(
        task=check.count("task", task),
        element=None if element == WHOLE else check.count("element", element),
        name=check.text("name", name),
        state=check.state(state),
        attempts=check.count("attempts", attempts),
        started_at=check.number("started_at", started_at),
        duration=check.number("duration", duration),
        worker=check.text("worker", worker),
        size=size,
        error=check.some_text("error", error),
        log=check.some_text("log", log),
    )
    return replace(found, error=error_of(found.error, check.wrong)) if check.wrong else found
