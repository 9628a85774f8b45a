"""Where the time of a recorded run went: summed up by the database, so that what comes out of it is bounded."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Select, case, cast, exists, func, select

from procession._model.log_head import HEAD_SPACE, Head, head_of
from procession._model.record import WHOLE
from procession._plan.identity import called
from procession.journal.checked import Checked, refuse
from procession.journal.schema import calls, is_failed, records

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
    head: Head = Head(None, ())
    """What stands in front of the log of a single call: its label, and its failed attempts."""
    call: int | None = None
    """The place of a recorded call among those of its task, or element; `None` for the call of a task or element."""


def shares_query(key: int, *, maps: bool, since: float, limit: int) -> Select[Any]:
    """Return the query whose rows are shares: see `Reader.shares`."""
    c = records.c
    total = func.sum(c.duration)
    ends = func.max(c.started_at + c.duration)
    return (
        select(c.name, func.count(), func.sum(_failed()), func.sum(c.attempts - 1), total)
        .add_columns(func.max(c.duration), func.min(c.started_at), ends)
        .where(*_calls(key, maps, since))
        .group_by(c.name)
        .order_by(total.desc(), c.name)
        .limit(limit)
    )


def share_of(row: Sequence[Any]) -> Share:
    """Return a row of `shares_query`, checked."""
    check = Checked()
    share = Share(
        check.text("name", row[0]),
        check.count("calls", row[1]),
        check.count("failed", row[2]),
        check.count("attempts", row[3]),
        check.number("duration", row[4]),
        check.number("duration", row[5]),
        check.number("started_at", row[6]),
        check.number("ended at", row[7]),
    )
    refuse(check.wrong)
    return share


def marks_query(key: int, *, maps: bool, begin: float, cell: float, dialect: str, labels: bool) -> Select[Any]:
    """Return the query whose rows are marks: see `Reader.marks`."""
    c = records.c
    part = case((c.duration < cell, WHOLE), else_=c.element)
    start = func.min(c.started_at)
    head: ColumnElement[Any] = func.substr(c.log, 1, HEAD_SPACE)
    if not labels:
        head = case((c.attempts > 1, head))
    return (
        select(c.worker, func.count(), func.sum(_failed()), func.max(c.attempts), start)
        .add_columns(func.max(c.started_at + c.duration), func.sum(c.duration))
        .add_columns(func.min(c.task), func.min(c.element), func.min(c.name))
        .add_columns(func.min(head))
        .where(*_calls(key, maps, begin))
        .group_by(c.worker, _group(c, begin, cell, dialect), part)
        .order_by(start)
        .limit(MARKS)
    )


def call_marks_query(key: int, *, begin: float, cell: float, dialect: str) -> Select[Any]:
    """Return the query whose rows are marks of recorded calls: see `Reader.call_marks`."""
    c = calls.c
    parts = (case((c.duration < cell, WHOLE), else_=c[name]) for name in ("element", "call"))
    start = func.min(c.started_at)
    return (
        select(c.worker, func.count(), func.sum(case((c.state == "failed", 1), else_=0)), func.max(c.attempts), start)
        .add_columns(func.max(c.started_at + c.duration), func.sum(c.duration))
        .add_columns(func.min(c.task), func.min(c.element), func.min(c.name))
        .add_columns(func.min(c.call))
        .where(c.run == key, c.started_at >= begin)
        .group_by(c.worker, _group(c, begin, cell, dialect), *parts)
        .order_by(start)
        .limit(MARKS)
    )


def calls_span_query(key: int, since: float) -> Select[Any]:
    """Return the query for how many recorded calls began since then, when the first began and the last ended."""
    c = calls.c
    ends: ColumnElement[Any] = func.max(c.started_at + c.duration)
    where = c.run == key, c.started_at >= since
    return select(func.count()).add_columns(func.min(c.started_at), ends).where(*where)


def calls_span_of(row: Sequence[Any]) -> tuple[int, float, float]:
    """Return the row of `calls_span_query`, checked; 0 for the times where there are none."""
    check = Checked()
    count = check.count("calls", row[0])
    begin, end = (check.number(name, row[at]) if count else 0.0 for at, name in ((1, "started_at"), (2, "ended at")))
    refuse(check.wrong)
    return count, begin, end


def call_mark_of(row: Sequence[Any]) -> Mark:
    """Return a row of `call_marks_query`, checked."""
    check = Checked()
    mark = mark_of((*row[:10], None))
    call = check.count("call", row[10])
    refuse(check.wrong)
    return mark._replace(name=called(mark.name), call=call if mark.calls == 1 else None)


def _group(c: Any, begin: float, cell: float, dialect: str) -> ColumnElement[Any]:
    """Return what calls are grouped by: a long one by its task, short ones by a negative number for when they began."""
    place: ColumnElement[Any] = (c.started_at - begin) / cell
    if dialect != "sqlite":
        place = func.floor(place)  # SQLite may have none, but cuts where others round
    return case((c.duration < cell, -1 - cast(place, BigInteger)), else_=c.task)


def mark_of(row: Sequence[Any]) -> Mark:
    """Return a row of `marks_query`, checked."""
    check = Checked()
    mark = Mark(
        check.text("worker", row[0]),
        check.count("calls", row[1]),
        check.count("failed", row[2]),
        check.count("attempts", row[3]),
        check.number("started_at", row[4]),
        check.number("ended at", row[5]),
        check.number("duration", row[6]),
        check.count("task", row[7]),
        None if row[8] == WHOLE else check.count("element", row[8]),
        check.text("name", row[9]),
        head_of(check.some_text("log", row[10]) if row[1] == 1 else None),
    )
    refuse(check.wrong)
    return mark


def _calls(key: int, maps: bool, since: float) -> list[ColumnElement[bool]]:
    """Return the condition for records of calls: a map is no call, but its elements are."""
    c = records.c
    where = [c.run == key, c.started_at >= since]
    if maps:
        element = records.alias()
        of_it = (element.c.run == key) & (element.c.task == c.task) & (element.c.element != WHOLE)
        where.append((c.element != WHOLE) | ~exists().where(of_it))
    return where


def _failed() -> ColumnElement[int]:
    return case((is_failed(), 1), else_=0)
