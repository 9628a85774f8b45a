"""What a journal shows of runs: to people, who may not trust it, so no value is ever turned back from bytes here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, select

from procession._model.progress import Progress
from procession._model.record import WHOLE
from procession.errors import RunUnknownError
from procession.journal import lease
from procession.journal.counts import Counts
from procession.journal.schema import TOP, records, runs


@dataclass(frozen=True, slots=True)
class Running:
    """A task that ran when the journal was last told. `started_at` is in seconds since the epoch, UTC."""

    task: int
    name: str
    worker: str
    started_at: float


@dataclass(frozen=True, slots=True)
class RunInfo:
    """How a run stands. All times are in seconds since the epoch, UTC.

    `status` is what `Run.status` was or, of a run whose process is gone without having said so, `"interrupted"`.
    `executions` says how many times it was begun, and `started_at` when that was for the last time, but for those that
    found it completed and called nothing. `progress` and `running` are what the journal was last told, at most about a
    second old while the run goes on; after a crash, `progress` is what is recorded, and `running` what ran when the run
    was last heard of. `host` and `pid` are of the process that executes it, if one does. `origin` is by what it was
    begun, of which arguments are not kept, and in which folder.
    `error` is why it failed: what stopped it or, under `on_error="continue"`, what failed first.
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
    query = select(runs).where(runs.c.parent == parent).order_by(runs.c.key.desc()).limit(limit).offset(offset)
    alive = parent != TOP and is_alive(_outermost(connection, parent), now)
    rows = connection.execute(query).all()
    return [
        info(connection, counts, row, f"{within}/{row.id}" if within else row.id, alive=alive or is_alive(row, now))
        for row in rows
    ]


def run_of(connection: Connection, counts: Counts, run_id: str, now: float) -> RunInfo:
    """Return how a run stands. `RunUnknownError` if there is none."""
    key = key_of(connection, run_id)
    row = connection.execute(select(runs).where(runs.c.key == key)).one()
    return info(connection, counts, row, run_id, alive=is_alive(_outermost(connection, key), now))


def tasks_of(
    connection: Connection, key: int, task: int | None, state: str | None, limit: int, offset: int
) -> list[TaskInfo]:
    """Return how tasks of a run ended, by place; with `task`, how the elements of that map did."""
    c = records.c
    query = select(
        c.task,
        c.element,
        c.name,
        c.state,
        c.attempts,
        c.started_at,
        c.duration,
        c.worker,
        func.length(c.value),
        c.error,
        c.log,
    ).where(c.run == key)
    query = query.where(c.element == WHOLE) if task is None else query.where(c.task == task, c.element != WHOLE)
    if state is not None:
        query = query.where(c.state == state)
    rows = connection.execute(query.order_by(c.task, c.element).limit(limit).offset(offset)).all()
    return [TaskInfo(task, None if element == WHOLE else element, *rest) for task, element, *rest in rows]


def is_alive(row: Row[Any], now: float) -> bool:
    """Return whether a run is being executed, as far as can be known here."""
    return row.token is not None and lease.is_held(row.holder, row.token, row.held_until, now)


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


def _outermost(connection: Connection, key: int) -> Row[Any]:
    while True:
        row = connection.execute(select(runs).where(runs.c.key == key)).one()
        if row.parent == TOP:
            return row
        key = row.parent


def info(connection: Connection, counts: Counts, row: Row[Any], run_id: str, *, alive: bool) -> RunInfo:
    """Return how the run of a row of `runs` stands."""
    told = json.loads(row.progress)
    holder = lease.Holder.read(row.holder) if row.token is not None and alive else None
    return RunInfo(
        id=run_id,
        process=row.process,
        status="interrupted" if row.status == "running" and not alive else row.status,
        executions=row.executions,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        progress=counts.progress(connection, row, alive=alive),
        running=tuple(Running(*task) for task in told["running"]) if told and row.status == "running" else (),
        cancelling=row.cancelling,
        host=None if holder is None else holder.host,
        pid=None if holder is None else holder.pid,
        error=row.error,
        origin=json.loads(row.origin),
    )
