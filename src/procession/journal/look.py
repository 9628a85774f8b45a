"""What a journal shows of runs: to people, who may not trust it, so no value is ever turned back from bytes here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, func, null, select, type_coerce
from sqlalchemy.types import NullType

from procession._model.progress import Progress
from procession._model.record import WHOLE
from procession.errors import JournalError, RunUnknownError
from procession.journal import lease
from procession.journal.checked import NAME_LIMIT, RUN, TEXT_LIMIT, Checked, Running, RunRow, bounded, error_of, run_row
from procession.journal.counts import Counts
from procession.journal.schema import TOP, records, runs

_DEPTH: Final = 1_000
"""How deep runs are nested in each other, at most."""


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


def key_of(connection: Connection, run_id: str) -> int:
    """Return the key of a run, or of one nested in it: `run/task`, `run/task.element`, and so on.

    `RunUnknownError` if there is none.
    """
    key = _key(connection, run_id)
    if key is None:
        raise RunUnknownError(f"the journal has no run {run_id!r}")
    return key


def runs_of(
    connection: Connection, counts: Counts, parent: int, within: str, now: float, limit: int, offset: int
) -> list[RunInfo]:
    """Return the runs nested in one, or, for `TOP`, those that are not nested; the newest first."""
    query = select(*RUN).where(runs.c.parent == parent).order_by(runs.c.key.desc()).limit(limit).offset(offset)
    alive = parent != TOP and is_alive(line_of(connection, parent)[-1], now)
    rows = map(run_row, connection.execute(query).all())
    return [
        info(connection, counts, row, f"{within}/{row.id}" if within else row.id, alive=alive or is_alive(row, now))
        for row in rows
    ]


def run_of(connection: Connection, counts: Counts, run_id: str, now: float) -> RunInfo:
    """Return how a run stands. `RunUnknownError` if there is none."""
    key = key_of(connection, run_id)
    line = line_of(connection, key)
    return info(connection, counts, line[0], run_id, alive=is_alive(line[-1], now))


def tasks_of(
    connection: Connection, key: int, task: int | None, state: str | None, limit: int, offset: int
) -> list[TaskInfo]:
    """Return how tasks of a run ended, by place; with `task`, how the elements of that map did."""
    c = records.c
    query = select(*task_columns()).where(c.run == key)
    query = query.where(c.element == WHOLE) if task is None else query.where(c.task == task, c.element != WHOLE)
    if state is not None:
        query = query.where(c.state == state)
    rows = connection.execute(query.order_by(c.task, c.element).limit(limit).offset(offset)).all()
    return [task_info(row) for row in rows]


def task_columns(head: int = TEXT_LIMIT + 1, *, log: bool = True) -> list[ColumnElement[Any]]:
    """Return what is selected of `records` to be shown, with so many characters of an error."""
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


def is_alive(row: RunRow, now: float) -> bool:
    """Return whether a run is being executed, as far as can be known here."""
    return lease.is_held(row.holder, row.token, row.held_until, now)


def line_of(connection: Connection, key: int) -> list[RunRow]:
    """Return the row of a run, and those of the runs around it, the outermost last.

    `RunUnknownError` if there is none of that key.
    """
    line: list[RunRow] = []
    while key != TOP or not line:
        row = connection.execute(select(*RUN).where(runs.c.key == key)).one_or_none()
        if row is None:
            raise RunUnknownError(f"the journal has no run of key {key}")
        if len(line) == _DEPTH:
            raise JournalError(f"the journal is damaged: run {line[0].key} lies within more than {_DEPTH:,} others")
        line.append(run_row(row))
        key = line[-1].parent
    return line


def _key(connection: Connection, run_id: str) -> int | None:
    def within(parent: int, name: str) -> int | None:
        return connection.execute(select(runs.c.key).where(runs.c.parent == parent, runs.c.id == name)).scalar()

    outer, places = run_id, list[str]()
    while (key := within(TOP, outer)) is None:  # an id may have slashes of its own
        outer, slash, place = outer.rpartition("/")
        if not slash:
            return None
        places.append(place)
    for place in reversed(places):
        if (key := within(key, place)) is None:
            return None
    return key


def info(connection: Connection, counts: Counts, row: RunRow, run_id: str, *, alive: bool) -> RunInfo:
    """Return how the run of a row of `runs` stands."""
    holder = row.holder if alive else None
    wrong = list(row.wrong)
    try:
        progress = counts.progress(connection, row, alive=alive)
    except ValueError as error:
        progress = row.progress
        wrong.append(f"definition is {error}")
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
        error=error_of(row.error, wrong),
        origin=row.origin,
    )
