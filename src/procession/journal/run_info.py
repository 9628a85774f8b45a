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
    """How a run stands. All times are in seconds since the epoch, UTC.

    `status` is what `Run.status` was or, of a run whose process is gone without having said so, `"interrupted"`.
    `executions` says how many times it was begun, and `started_at` when that was for the last time, but for those that
    found it completed and called nothing. `progress` and `running` are what the journal was last told, at most about a
    second old while the run goes on; after a crash, `progress` is what is recorded, and `running` what ran when the run
    was last heard of. `host` and `pid` are of the process that executes it, if one does. `origin` is by what it was
    begun, of which arguments are not kept, and in which folder.
    `error` is why it failed: what stopped it or, under `on_error="continue"`, what failed first; of a run
    of which the journal has a wrong value, it says that first.
    """

    id: str
    process: str
    status: Literal["running", "completed", "failed", "cancelled", "interrupted"]
    executions: int
    created_at: float
    started_at: float
    ended_at: float | None
    progress: Progress | None
    running: tuple[Running, ...]
    cancelling: bool
    host: str | None
    pid: int | None
    error: str | None
    origin: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """How a task, or one element of a map, ended.

    `element` is `None` for a task itself. `started_at` is in seconds since the epoch, UTC, `duration` in seconds,
    `size` that of the recorded value in bytes, `error` the text of what was raised, and `log` what the call logged, if
    that was kept: see `TaskLogHandler`.
    """

    task: int
    element: int | None
    name: str
    state: Literal["completed", "failed"]
    attempts: int
    started_at: float
    duration: float
    worker: str
    size: int | None
    error: str | None
    log: str | None


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
