"""What a journal shows of a run and of its tasks, made of rows that may be damaged or forged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, case, func, null, type_coerce
from sqlalchemy.types import NullType

from procession._model.attempt import FailedAttempt
from procession._model.held_back import HeldBack
from procession._model.log_head import HEAD_SPACE, LABEL_MARK, LABEL_SPACE, head_of, without_head
from procession._model.progress import Progress
from procession._model.record import WHOLE
from procession.journal.checked import NAME_LIMIT, TEXT_LIMIT, Checked, Running, RunRow, Status, bounded, error_of
from procession.journal.lease import DURATION_S
from procession.journal.schema import is_failed, records
from procession.journal.waits import WaitInfo

Recorded = Literal["completed", "failed", "retried"]
"""What records can be selected by: how the call ended, or that it took several attempts."""

Order = Literal["slowest", "failed"]
"""What of records can come first, instead of those of the lowest place."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """How a recorded run stands, as the journal shows it. All times are in seconds since the epoch, UTC."""

    id: str
    """The run's id; of a run nested in another one, `run/task` or `run/task.element`."""
    process: str
    """The name of the process."""
    status: Literal["running", "completed", "failed", "cancelled", "suspended", "interrupted"]
    """`Run.status`, or `"interrupted"` for a run that nobody executes and that can be resumed: its process is gone
    without having recorded an end, or a part of it is to be called again (`Journal.rerun`)."""
    executions: int
    """How many times the run was started."""
    created_at: float
    """When the run was started for the first time."""
    started_at: float
    """When the run was started for the last time, apart from executions that found it completed and called nothing."""
    ended_at: float | None
    """When the last execution ended; `None` if it has not."""
    progress: Progress | None
    """How far the run has come: at most about a second old while it goes on; after a crash, what is recorded."""
    running: tuple[Running, ...]
    """The tasks that run now or, after a crash, that ran when the run was last heard of."""
    held_back: tuple[HeldBack, ...]
    """What limits hold back, or have held back in the last execution; up to 20 of them."""
    cancelling: bool
    """Whether the run was asked to cancel."""
    host: str | None
    """The machine on which the run is being executed; `None` if it is not."""
    pid: int | None
    """The number of the process that executes the run now; `None` if none does."""
    error: str | None
    """Why the run failed: what stopped it or, under `on_error="continue"`, what failed first.

    Where the journal is damaged, the text begins with the values that are wrong.
    """
    origin: Mapping[str, Any]
    """How the run was started: `argv`, without the arguments of other programs, and `folder`."""
    heard_at: float | None = None
    """When an interrupted run was last heard of, a few seconds before it was interrupted; `None` for any other run."""
    pausing: tuple[Running, ...] = ()
    """The tasks that wait for their next attempt, as `running`; `worker` is that of the last one."""
    waits: tuple[WaitInfo, ...] = ()
    """What a suspended run waits for, and the runs nested in it, answers included that a task does not know yet."""


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
    label: str | None = None
    """What the name gives for the arguments of the call, if it is a template such as `"fetch {url}"`."""
    failed_attempts: tuple[FailedAttempt, ...] = ()
    """The attempts that failed and were followed by others, up to 20 of them, where logs are read, too."""


class Found(NamedTuple):
    """A run, and its key."""

    key: int
    run: RunInfo


@dataclass(frozen=True, slots=True)
class RunCounts:
    """How many runs a journal has, by status, and what their processes are called."""

    by_status: dict[Status, int]
    processes: list[str]


def run_info(
    row: RunRow, run_id: str, progress: Progress | None, waits: Sequence[WaitInfo] = (), *, alive: bool
) -> RunInfo:
    """Return how the run of a row of `runs` stands; `alive` says whether it is being executed."""
    holder = row.holder if alive else None
    interrupted = row.status == "running" and not alive
    return RunInfo(
        id=run_id,
        process=row.process,
        status="interrupted" if interrupted else row.status,
        executions=row.executions,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        progress=progress,
        running=row.running if row.status == "running" else (),
        pausing=row.pausing if row.status == "running" else (),
        held_back=row.held_back,
        cancelling=row.cancelling,
        host=None if holder is None else holder.host,
        pid=None if holder is None else holder.pid,
        error=error_of(row.error, row.wrong),
        origin=row.origin,
        waits=tuple(waits),
        heard_at=row.held_until - DURATION_S if interrupted and row.held_until > DURATION_S else None,
    )


def records_where(
    key: int, task: int | None, state: Recorded | None, text: str, dialect: str
) -> tuple[ColumnElement[int], list[ColumnElement[bool]]]:
    """Return the column by which records of a run, or of a map in it, are ordered, and what selects those wanted."""
    c = records.c
    where = [c.run == key]
    where += [c.element == WHOLE] if task is None else [c.task == task, c.element != WHOLE]
    if state is not None:
        where.append(c.attempts > 1 if state == "retried" else is_failed() if state == "failed" else c.state == state)
    if text:
        where.append(c.name.icontains(text, autoescape=True) | has_in_label(text, dialect))
    return c.task if task is None else c.element, where


def has_in_label(text: str, dialect: str) -> ColumnElement[bool]:
    """Return the condition that a text is part of the label in front of a log."""
    c = records.c
    head = func.substr(c.log, 1, LABEL_SPACE)
    end = func.instr(head, "\n") if dialect == "sqlite" else func.strpos(head, "\n")
    label = case((head.like(f"{LABEL_MARK}%\n%"), func.substr(head, 2, end - 2)))
    # Only templates give labels, so that of other records nothing more is read.
    return c.name.contains("{") & label.icontains(text, autoescape=True)


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
        bounded(c.log, HEAD_SPACE if log else LABEL_SPACE).label("head"),
        bounded(c.log, TEXT_LIMIT + 1) if log else null(),
    ]


def task_info(row: Sequence[Any]) -> TaskInfo:
    """Return how the task of a row of `task_columns` ended."""
    check = Checked()
    task, element, name, state, attempts, started_at, duration, worker, size, error, head, log = row
    before = head_of(check.some_text("log", head))
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
        log=without_head(check.some_text("log", log)),
        label=before.label,
        failed_attempts=before.failed_attempts,
    )
    return replace(found, error=error_of(found.error, check.wrong)) if check.wrong else found
