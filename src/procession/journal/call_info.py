"""How the calls that tasks make themselves ended, as the journal shows them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, func, select, type_coerce
from sqlalchemy.types import NullType

from procession._model.record import WHOLE
from procession._plan.identity import called
from procession.journal.checked import NAME_LIMIT, Checked, bounded, error_of
from procession.journal.schema import calls


@dataclass(frozen=True, slots=True)
class CallInfo:
    """How a call ended that a task made by `current_task().call` or `.map`, as the journal shows it."""

    task: int
    """The place of the task in its process; 0 is the first."""
    element: int | None
    """The place of the element in its map that made the call; `None` if the task itself did."""
    call: int
    """The place of the call among those of its task, or element."""
    name: str
    state: Literal["completed", "failed"]
    attempts: int
    """How many times it was made, retries included."""
    started_at: float
    """When the first attempt began, in seconds since the epoch, UTC."""
    duration: float
    """Seconds from the start of the first attempt to the end, pauses between attempts included."""
    worker: str
    """The name of the thread, process or asyncio task that made the call."""
    size: int | None
    """The size of the recorded value, or exception, in bytes; `None` if there is none."""
    error: str | None
    """The text of what was raised, and its traceback; `None` if nothing was."""


def calls_query(key: int, tasks: Sequence[int], head: int, limit: int, element: int | None = None) -> Select[Any]:
    """Return the query for the calls of a few tasks of a run, or of one element, with so much of their errors."""
    c = calls.c
    columns: list[ColumnElement[Any]] = [
        *(type_coerce(c[name], NullType()) for name in ("task", "element", "call")),
        *(bounded(c[name], NAME_LIMIT) for name in ("name", "state")),
        *(type_coerce(c[name], NullType()) for name in ("attempts", "started_at", "duration")),
        bounded(c.worker, NAME_LIMIT),
        func.length(c.value),
        bounded(c.error, head),
    ]
    query = select(*columns).where(c.run == key, c.task.in_(tasks))
    if element is not None:
        query = query.where(c.element == element)
    return query.order_by(c.task, c.element, c.call).limit(limit)


def call_info(row: Sequence[Any]) -> CallInfo:
    """Return how the call of a row of `calls_query` ended."""
    check = Checked()
    task, element, call, name, state, attempts, started_at, duration, worker, size, error = row
    found = CallInfo(
        task=check.count("task", task),
        element=None if element == WHOLE else check.count("element", element),
        call=check.count("call", call),
        name=called(check.text("name", name)),
        state=check.state(state),
        attempts=check.count("attempts", attempts),
        started_at=check.number("started_at", started_at),
        duration=check.number("duration", duration),
        worker=check.text("worker", worker),
        size=size,
        error=check.some_text("error", error),
    )
    return replace(found, error=error_of(found.error, check.wrong)) if check.wrong else found
