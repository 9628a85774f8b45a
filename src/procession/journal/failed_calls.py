"""The calls of a run that failed: alike ones counted together, and each beside the same call of another run."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, String, case, cast, exists, select

from procession._model.record import WHOLE
from procession.journal.checked import NAME_LIMIT, Checked, bounded
from procession.journal.run_info import TaskInfo, task_columns, task_info
from procession.journal.schema import is_failed, records, runs

GROUPED = 1_000
"""Failures of a run that are looked at, at most, to find those that are alike."""

_KIND = 200


class Failure(NamedTuple):
    """A call that failed; and how it was in another run, if that has a record of it."""

    task: TaskInfo
    state_then: str | None
    duration_then: float | None


class Alike(NamedTuple):
    """Calls of one name that failed of exceptions of one type."""

    kind: str
    """The name of the type."""
    name: str
    calls: int
    task: int
    element: int | None
    """The last two: of the first call."""


def failed_query(key: int) -> Select[Any]:
    """Return the query whose rows `alike` takes.

    A map with elements that failed is left out, and so is a task that is a run itself and failed: what they are made of
    says more.
    """
    # First the places alone, which stand in the index of failures.
    places = select(records.c.task, records.c.element).where(records.c.run == key, is_failed())
    failed = places.order_by(records.c.task, records.c.element).limit(GROUPED).subquery()
    c, element = records.c, records.alias()
    parts = exists().where(
        element.c.run == key, element.c.task == c.task, element.c.element != WHOLE, element.c.state == "failed"
    )
    place = cast(c.task, String) + case((c.element == WHOLE, ""), else_="." + cast(c.element, String))
    inside = exists().where(runs.c.parent == key, runs.c.id == place, runs.c.status == "failed")
    columns: list[ColumnElement[Any]] = [c.task, c.element, bounded(c.name, NAME_LIMIT), bounded(c.error, _KIND)]
    return (
        select(*columns)
        .select_from(failed.join(records, (c.run == key) & (c.task == failed.c.task) & (c.element == failed.c.element)))
        .where((c.element != WHOLE) | ~parts, ~inside)
        .order_by(c.task, c.element)
    )


def alike(rows: Sequence[Sequence[Any]]) -> list[Alike]:
    """Return rows of `failed_query` counted by name and type, in the order in which they first come."""
    found: dict[tuple[str, str], Alike] = {}
    for task, element, name, error in rows:
        check = Checked()
        which = (check.some_text("error", error) or "?").partition("\n")[0].partition(":")[0], check.text("name", name)
        one = found.get(which)
        if one is None:
            place = None if element == WHOLE else check.count("element", element)
            one = Alike(*which, 0, check.count("task", task), place)
        found[which] = one._replace(calls=one.calls + 1)
    return list(found.values())


def compared_query(key: int, other: int, head: int, limit: int) -> Select[Any]:
    """Return the query whose rows are the failures of a run, by place, with the same calls of another run."""
    then, c = records.alias(), records.c
    return (
        select(*task_columns(head, log=False), then.c.state.label("state_then"), then.c.duration.label("duration_then"))
        .select_from(
            records.outerjoin(then, (then.c.run == other) & (then.c.task == c.task) & (then.c.element == c.element))
        )
        .where(c.run == key, is_failed())
        .order_by(c.task, c.element)
        .limit(limit)
    )


def failure_of(row: Sequence[Any]) -> Failure:
    """Return a row of `compared_query`."""
    return Failure(task_info(row[:-2]), row[-2], row[-1])
