"""Where the time of a recorded run went: summed up by the database, so that what comes out of it is bounded."""

from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, case, cast, exists, func, select

from procession._model.record import WHOLE
from procession.journal.checked import Checked, refuse
from procession.journal.schema import is_failed, records

MARKS = 20_000
"""Marks of a timeline that are read, at most."""


class Share(NamedTuple):
    """What the calls of one name took together, in this execution. Times are in seconds."""

    name: str
    calls: int
    failed: int
    again: int
    """Attempts after the first."""
    total: float
    longest: float
    begin: float
    """When the first began, in seconds since the epoch, UTC."""
    end: float
    """When the last ended."""


class Mark(NamedTuple):
    """A stretch in which one worker was busy: with one call, or with several that are too short to tell apart."""

    worker: str
    calls: int
    failed: int
    attempts: int
    """The most that one of the calls took."""
    begin: float
    end: float
    busy: float
    """Seconds in which calls ran."""
    task: int
    element: int | None
    name: str
    """The last three: of the first call."""


def shares_of(connection: Connection, key: int, maps: bool, since: float, limit: int) -> list[Share]:
    """Return what calls took, by name; see `Reader.shares`."""
    c = records.c
    total = func.sum(c.duration)
    query = (
        select(
            c.name,
            func.count(),
            func.sum(_failed()),
            func.sum(c.attempts - 1),
            total,
            func.max(c.duration),
            func.min(c.started_at),
            func.max(c.started_at + c.duration),
        )
        .where(*_calls(key, maps, since))
        .group_by(c.name)
        .order_by(total.desc(), c.name)
        .limit(limit)
    )
    return [_share(*row) for row in connection.execute(query)]


def marks_of(connection: Connection, key: int, maps: bool, begin: float, cell: float) -> list[Mark]:
    """Return who was busy when; see `Reader.marks`."""
    c = records.c
    place: ColumnElement[Any] = (c.started_at - begin) / cell
    if connection.dialect.name != "sqlite":
        place = func.floor(place)  # SQLite may have none, but cuts where others round
    # Each long call is a group of its own; the numbers of groups of short ones are negative.
    group = case((c.duration < cell, -1 - cast(place, BigInteger)), else_=c.task)
    part = case((c.duration < cell, WHOLE), else_=c.element)
    start = func.min(c.started_at)
    query = (
        select(
            c.worker,
            func.count(),
            func.sum(_failed()),
            func.max(c.attempts),
            start,
            func.max(c.started_at + c.duration),
            func.sum(c.duration),
            func.min(c.task),
            func.min(c.element),
            func.min(c.name),
        )
        .where(*_calls(key, maps, begin))
        .group_by(c.worker, group, part)
        .order_by(start)
        .limit(MARKS)
    )
    return [_mark(*row) for row in connection.execute(query)]


def _share(
    name: object,
    calls: object,
    failed: object,
    again: object,
    total: object,
    longest: object,
    begin: object,
    end: object,
) -> Share:
    check = Checked()
    share = Share(
        check.text("name", name),
        check.count("calls", calls),
        check.count("failed", failed),
        check.count("attempts", again),
        check.number("duration", total),
        check.number("duration", longest),
        check.number("started_at", begin),
        check.number("ended at", end),
    )
    refuse(check.wrong)
    return share


def _mark(
    worker: object,
    calls: object,
    failed: object,
    attempts: object,
    begin: object,
    end: object,
    busy: object,
    task: object,
    element: object,
    name: object,
) -> Mark:
    check = Checked()
    mark = Mark(
        check.text("worker", worker),
        check.count("calls", calls),
        check.count("failed", failed),
        check.count("attempts", attempts),
        check.number("started_at", begin),
        check.number("ended at", end),
        check.number("duration", busy),
        check.count("task", task),
        None if element == WHOLE else check.count("element", element),
        check.text("name", name),
    )
    refuse(check.wrong)
    return mark


def _calls(key: int, maps: bool, since: float) -> list[ColumnElement[bool]]:
    """Say which records are of calls: a map is none itself, but its elements are."""
    c = records.c
    where = [c.run == key, c.started_at >= since]
    if maps:
        element = records.alias()
        of_it = (element.c.run == key) & (element.c.task == c.task) & (element.c.element != WHOLE)
        where.append((c.element != WHOLE) | ~exists().where(of_it))
    return where


def _failed() -> ColumnElement[int]:
    return case((is_failed(), 1), else_=0)
