"""Every query of a journal, for the page, the command line and `Journal` itself, in one class.

Each query has a name and a limit, and no value is ever turned back from bytes; what was recorded as JSON is text.
A key is the number the journal gave a run; it is never used again, and the later a run was begun, the higher it is.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Select, func, select, type_coerce
from sqlalchemy.types import NullType

from procession._model.progress import Progress
from procession._model.record import WHOLE
from procession._plan.fingerprint import Fingerprint
from procession._plan.shape import Shape
from procession.errors import JournalError
from procession.journal.call_info import CallInfo, call_info, calls_query
from procession.journal.checked import NAME_LIMIT, RUN, Checked, RunRow, Status, bounded, run_row
from procession.journal.counts import count_elements, count_ended, count_failed, count_map, count_progress, count_tasks
from procession.journal.failed_calls import Alike, Failure, alike, compared_query, failed_query, failure_of
from procession.journal.last_runs import LastRun, last_runs, last_runs_query
from procession.journal.latest import Latest
from procession.journal.lease import Holder
from procession.journal.nested_runs import key_of, key_within, line_of
from procession.journal.run_info import (
    Found,
    Order,
    Recorded,
    RunCounts,
    RunInfo,
    TaskInfo,
    has_in_label,
    records_where,
    run_info,
    task_columns,
    task_info,
)
from procession.journal.schema import TOP, definitions, is_failed, records, runs
from procession.journal.task_status import TaskStatus, task_statuses
from procession.journal.time_usage import (
    Mark,
    Share,
    call_mark_of,
    call_marks_query,
    calls_span_of,
    calls_span_query,
    mark_of,
    marks_query,
    share_of,
    shares_query,
)
from procession.journal.waits import WaitInfo, ready_runs, waits_of

HEAD = 300
"""Characters of an error that a list has: what was raised stands in its first line."""

_PART = 500
"""Tasks that a query names one by one, at most."""

COUNTED = 1_000
"""Runs whose progress is kept once it was counted, at most."""

Counted = tuple[int, int, Progress | None]
"""What tells apart the states of a run that nobody executes: its key, its executions, and what it last said."""


class Reader:
    """Reads a journal in one connection, for as long as `Journal.reader()` lasts.

    `counted` keeps between readers how far runs had come that nobody executes; `last_commit` returns what every commit
    changes, or `None` where there is nothing of the kind. `now` is the database's time, in seconds since the epoch.
    """

    def __init__(
        self,
        connection: Connection,
        counted: Latest[Counted, Progress],
        now: float,
        last_commit: Callable[[], object],
    ) -> None:
        self._connection = connection
        self._counted = counted
        self._last_commit = last_commit
        self.now = now

    # Runs

    def runs(
        self,
        *,
        parent: int = TOP,
        status: Status | None = None,
        process: str | None = None,
        text: str = "",
        before: int | None = None,
        after: int | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> list[Found]:
        """Return runs, the newest first: those next `before` a key, or next `after` it, or the newest but `offset`.

        `parent` is the key of the run they are nested in. `text` is looked for in ids, processes and errors.
        """
        c = runs.c
        # Nearly all runs have no parent: by the index, all of them would be read and sorted to show the newest.
        query = select(*RUN).where(c.parent == parent if parent != TOP else c.parent + 0 == TOP)
        if status == "running" and parent == TOP:
            query = query.where(*self._maybe_alive())
        elif status in ("running", "interrupted"):
            query = query.where(c.status == "running")
        elif status is not None:
            query = query.where(c.status == status)
        if process is not None:
            query = query.where(c.process == process)
        if text:
            wanted = [column.icontains(text, autoescape=True) for column in (c.id, c.process, c.error)]
            query = query.where(wanted[0] | wanted[1] | wanted[2])
        rows = self._in_steps(query, before, after, limit, offset)
        outer = None if parent == TOP else self.run(parent)
        alive = outer is not None and outer.status == "running"
        found = (self._found(row, outer.id if outer else "", alive or row.is_alive(self.now)) for row in rows)
        wanted_ones = list(islice((one for one in found if status in (None, one.run.status)), limit))
        return wanted_ones if after is None else wanted_ones[::-1]

    def counts(self) -> RunCounts:
        """Return how many runs there are, by status, and of which processes; nested ones are not counted."""
        top = runs.c.parent == TOP
        status = bounded(runs.c.status, NAME_LIMIT)
        counts = Counter[Status]()
        for said, count in self._all(select(status, func.count()).where(top).group_by(runs.c.status)):
            counts[Checked().status(said)] += count
        if counts["running"]:
            going = self._all(select(*RUN).where(top, *self._maybe_alive()))
            alive = sum(run_row(row).is_alive(self.now) for row in going)
            counts["interrupted"] += counts["running"] - alive
            counts["running"] = alive
        names = self._all(
            select(bounded(runs.c.process, NAME_LIMIT))
            .where(top)
            .group_by(runs.c.process)
            .order_by(runs.c.process)
            .limit(200)
        )
        return RunCounts(dict(counts), [name for (name,) in names if isinstance(name, str)])

    def key(self, run_id: str) -> int:
        """Return the key of a run, or of one nested in it: `run/task`, `run/task.element`, and so on.

        `RunUnknownError` if there is none of that id.
        """
        return key_of(self._connection, run_id)

    def run(self, key: int) -> RunInfo:
        """Return how a run stands. `RunUnknownError` if there is none of that key."""
        row, *outer = line_of(self._connection, key)
        run_id = "/".join(one.id for one in [*reversed(outer), row])
        return self._info(row, run_id, alive=(outer or [row])[-1].is_alive(self.now))

    def waits(self, key: int) -> list[WaitInfo]:
        """Return the waits of the tasks of a run, and of its nested runs, whether or not the run is suspended."""
        return waits_of(self._connection, key, self.run(key).id)

    def ready(self, what: Literal["answered", "due"]) -> list[str]:
        """Return the ids of suspended runs in which a task has its answer, or is due, in the order they were begun."""
        return ready_runs(self._connection, self.now, what)

    def outer(self, key: int) -> list[Found]:
        """Return the runs that a run is nested in, the outermost first."""
        return [Found(row.key, self.run(row.key)) for row in reversed(line_of(self._connection, key)[1:])]

    def nested(self, key: int, task: int, element: int | None) -> int | None:
        """Return the key of the run that a task, or an element of a map, is itself."""
        return key_within(self._connection, key, f"{task}" if element is None else f"{task}.{element}")

    def definition(self, key: int) -> Fingerprint:
        """Return the definition of the process of a run.

        `RunUnknownError` if there is no run of that key, `JournalError` if it cannot be read.
        """
        line_of(self._connection, key)
        try:
            return self._definition(key)
        except ValueError as error:
            raise JournalError(f"the journal is damaged: the definition of run {key} is {error}") from error

    def has_shape(self, key: int) -> bool:
        """Return whether `shape` would return one."""
        query = select(definitions.c.run).where(definitions.c.run == key, definitions.c.shape.is_not(None))
        return self._connection.execute(query).scalar() is not None

    def shape(self, key: int) -> Shape | None:
        """Return which tasks of a run wait for which; `None` if it was recorded when none of that was kept.

        `JournalError` if that is not to be read.
        """
        column = type_coerce(definitions.c.shape, NullType())
        written = self._connection.execute(select(column).where(definitions.c.run == key)).scalar()
        if written is None:
            return None
        try:
            shape = Shape.from_bytes(bytes(written))
            shape.check(self.definition(key).tasks)
        except (TypeError, ValueError) as error:
            raise JournalError(f"the journal is damaged: the shape of run {key} is {error}") from error
        return shape

    def last_good(self, key: int) -> int | None:
        """Return the key of the last run of the same process, begun before this one, that completed."""
        here, c = line_of(self._connection, key)[0], runs.c
        before = select(c.key).where(c.parent == here.parent, c.process == here.process, c.status == "completed")
        return self._connection.execute(before.where(c.key < key).order_by(c.key.desc()).limit(1)).scalar()

    def last_runs(self, most: int, process: str | None = None) -> dict[str, list[LastRun]]:
        """Return the last runs of each process, or of one, at most so many, the newest first; none is nested.

        Only the newest `LOOKED_AT` runs are looked at.
        """
        return last_runs(self._all(last_runs_query(process)), self.now, most)

    # Tasks

    def tasks(
        self,
        key: int,
        *,
        task: int | None = None,
        state: Recorded | None = None,
        text: str = "",
        begin: int = 0,
        among: Sequence[int] | None = None,
        limit: int = 100,
        offset: int = 0,
        whole: bool = False,
        order: Order | None = None,
    ) -> list[TaskInfo]:
        """Return how the tasks from place `begin` on, or those `among` a few, ended; by place, or in an order.

        That takes time in proportion to the run. With `task`, they are the elements of that map. `text` is looked
        for in their names and labels. Unless `whole` texts are wanted, only the beginning of an error that is long is
        there, and of a log nothing.
        """
        place, where = records_where(key, task, state, text, self._connection.dialect.name)
        where.append(place >= begin)
        if among is not None:
            where.append(place.in_(among))
        columns = task_columns() if whole else task_columns(HEAD, log=False)
        first = {"slowest": [records.c.duration.desc()], "failed": [is_failed().desc()], None: []}[order]
        query = select(*columns).where(*where).order_by(*first, place).limit(limit).offset(offset)
        return [task_info(row) for row in self._all(query)]

    def open_between(self, key: int, first: int, last: int) -> set[int]:
        """Return the places, of those from the first to the last, whose tasks have no record."""
        c = records.c
        where = (c.run == key, c.element == WHOLE, c.task >= first, c.task <= last)
        if self._connection.execute(select(func.count()).where(*where)).scalar_one() == last - first + 1:
            return set()  # as nearly always
        return set(range(first, last + 1)).difference(self._connection.execute(select(c.task).where(*where)).scalars())

    def failed_tasks(self, key: int, limit: int) -> set[int]:
        """Return the places of tasks that failed."""
        c = records.c
        query = select(c.task).where(c.run == key, is_failed(), c.element == WHOLE).order_by(c.task).limit(limit)
        return set(self._connection.execute(query).scalars())

    def labelled(self, key: int, text: str) -> set[int]:
        """Return the places of tasks that have ended with a label that has the text in it.

        Takes time in proportion to the run.
        """
        c = records.c
        where = (c.run == key, c.element == WHOLE, has_in_label(text, self._connection.dialect.name))
        return set(self._connection.execute(select(c.task).where(*where)).scalars())

    def count_tasks(self, key: int) -> tuple[int, int, int]:
        """Return how many tasks have ended, how many of them failed, and how many were called more than once.

        Takes time in proportion to the run.
        """
        return count_tasks(self._connection, key)

    def count_map(self, key: int, task: int, most: int) -> tuple[int, int, int] | None:
        """Return how many elements of a map have ended, how many failed, and how many were called more than once.

        `None` if more than `most` have ended.
        """
        return count_map(self._connection, key, task, most)

    def earlier(
        self,
        key: int,
        *,
        task: int | None = None,
        state: Recorded | None = None,
        text: str = "",
        begin: int,
        limit: int = 100,
    ) -> int | None:
        """Return the place from which `tasks` shows those before `begin`, `None` if there are none."""
        place, where = records_where(key, task, state, text, self._connection.dialect.name)
        rows = self._all(select(place).where(*where, place < begin).order_by(place.desc()).limit(limit))
        return rows[-1][0] if rows else None

    def task(self, key: int, task: int, element: int | None) -> TaskInfo | None:
        """Return how one task, or element, ended, with all of its error and log; `None` if it has not."""
        c = records.c
        query = select(*task_columns()).where(
            c.run == key, c.task == task, c.element == (WHOLE if element is None else element)
        )
        row = self._connection.execute(query).one_or_none()
        return None if row is None else task_info(row)

    def calls(self, key: int, tasks: Sequence[int], element: int | None = None, limit: int = 100) -> list[CallInfo]:
        """Return how the calls ended that some tasks, `_PART` at most, or an element, made themselves, by place."""
        return [call_info(row) for row in self._all(calls_query(key, tasks, HEAD, limit, element))]

    def json_value(self, key: int, task: int, element: int | None, limit: int) -> bytes | None:
        """Return the first bytes of a recorded value, `None` where there is none, or it was not recorded as JSON."""
        c = records.c
        part = type_coerce(func.substr(c.value, 1, limit), NullType())
        query = select(part).join(runs, runs.c.key == c.run).where(runs.c.codec == "json", c.run == key)
        place = (c.task == task, c.element == (WHOLE if element is None else element))
        value = self._connection.execute(query.where(*place)).scalar()
        return bytes(value) if isinstance(value, bytes | memoryview) else None

    def failed(self, key: int, limit: int = 50) -> list[TaskInfo]:
        """Return the calls that failed, tasks and elements of maps, by place, with all of their errors and logs."""
        c = records.c
        query = select(*task_columns()).where(c.run == key, is_failed()).order_by(c.task, c.element)
        return [task_info(row) for row in self._all(query.limit(limit))]

    def count_failed(self, key: int) -> int:
        """Return how many calls failed, tasks and elements of maps."""
        return count_failed(self._connection, key)

    def status(self, key: int, info: RunInfo, task: int) -> TaskStatus:
        """Return how a task of a run stands, whether or not it has ended, with all of its error and log."""
        ended = self.task(key, task, None)
        return task_statuses(
            self._connection, key, info, [task], {} if ended is None else {task: ended}, partial(self._of_failed, key)
        )[0]

    def statuses(self, key: int, info: RunInfo, tasks: Sequence[int]) -> list[TaskStatus]:
        """Return how these tasks of a run stand; of an error that is long, only the beginning is there."""
        found: list[TaskStatus] = []
        for start in range(0, len(tasks), _PART):
            part = tasks[start : start + _PART]
            ended = {one.task: one for one in self.tasks(key, among=part, limit=_PART)}
            found += task_statuses(self._connection, key, info, part, ended, partial(self._of_failed, key))
        return found

    def statuses_of(self, key: int, info: RunInfo, ended: Sequence[TaskInfo]) -> list[TaskStatus]:
        """Return how tasks of a run stand, from their records. A task that has failed may run again."""
        by_task = {one.task: one for one in ended}
        of_failed = partial(self._of_failed, key)
        return task_statuses(self._connection, key, info, [one.task for one in ended], by_task, of_failed)

    def _of_failed(self, key: int) -> set[int]:
        """Return the tasks that failed, and those that follow from them, as far as that is known."""
        c = records.c
        query = select(c.task).where(c.run == key, is_failed(), c.element == WHOLE)
        shape, failed = self.shape(key), set(self._connection.execute(query).scalars())
        return failed if shape is None else shape.following(failed)

    def ended(self, key: int) -> int:
        """Return how many calls have a record. Takes time in proportion."""
        return count_ended(self._connection, key)

    def ends(self, key: int) -> Iterator[tuple[int, bool]]:
        """Yield each task that has ended, and whether it failed. Takes time in proportion."""
        c = records.c
        query = select(c.task, is_failed()).where(c.run == key, c.element == WHOLE)
        for task, failed in self._connection.execute(query):
            yield task, bool(failed)

    def elements(self, key: int, tasks: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return how many elements of these maps, a few, have ended, and how many of them failed, by task.

        Takes time in proportion to them.
        """
        return count_elements(self._connection, key, tasks)

    # Where the time went

    def shares(self, key: int, *, maps: bool, since: float, limit: int = 50) -> list[Share]:
        """Return how long the calls that began after `since` took, by name; names that took longest come first.

        Takes time in proportion to the run. `maps` says whether there are any among its tasks.
        """
        return [share_of(row) for row in self._all(shares_query(key, maps=maps, since=since, limit=limit))]

    def marks(self, key: int, *, maps: bool, begin: float, cell: float, labels: bool = False) -> list[Mark]:
        """Return who was busy when since `begin`, calls shorter than `cell` seconds in groups, by their begin.

        Takes time in proportion to the run. `maps` says whether there are any among its tasks, `labels`
        whether any may have a label.
        """
        dialect = self._connection.dialect.name
        query = marks_query(key, maps=maps, begin=begin, cell=cell, dialect=dialect, labels=labels)
        return [mark_of(row) for row in self._all(query)]

    def calls_span(self, key: int, since: float) -> tuple[int, float, float]:
        """Return how many recorded calls began after `since`, when the first of them began and the last one ended."""
        return calls_span_of(self._all(calls_span_query(key, since))[0])

    def call_marks(self, key: int, *, begin: float, cell: float) -> list[Mark]:
        """Return the same as `marks` of the recorded calls that tasks made."""
        query = call_marks_query(key, begin=begin, cell=cell, dialect=self._connection.dialect.name)
        return [call_mark_of(row) for row in self._all(query)]

    def failures(self, key: int, other: int, limit: int = 50) -> list[Failure]:
        """Return the calls that failed, by place, with how they were in another run."""
        return [failure_of(row) for row in self._all(compared_query(key, other, HEAD, limit))]

    def alike(self, key: int) -> list[Alike]:
        """Return the calls that failed, counted by name and type of exception: of the first `GROUPED` of them."""
        return alike(self._all(failed_query(key)))

    # Changes

    def stamp(self, key: int | None) -> str:
        """Return a short text that is another one when something has changed: of a run, or, for `None`, of the list."""
        return hashlib.blake2b(repr(self._facts(key)).encode(), digest_size=9).hexdigest()

    def _facts(self, key: int | None) -> object:
        c = runs.c
        if key is None:
            head = self._all(select(func.max(c.key), func.count()).where(c.parent == TOP))
            going = map(run_row, self._all(select(*RUN).where(c.parent == TOP, *self._maybe_alive())))
            return [tuple(row) for row in head], [
                (row.key, row.progress, row.running, row.cancelling, row.executions, row.is_alive(self.now))
                for row in going
            ]
        row, *outer = line_of(self._connection, key)
        alive = (outer or [row])[-1].is_alive(self.now)
        waits = waits_of(self._connection, key, row.id) if row.status == "suspended" else ()
        facts = (row.status, row.executions, row.progress, row.running, row.ended_at, row.cancelling, alive, waits)
        return (*facts, (self._last_commit() or self.ended(key)) if alive else None)

    # Inside

    def _maybe_alive(self) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions for runs that are not nested and may be executed now. There may be many others."""
        c = runs.c
        here = c.holder.startswith(Holder.here().place, autoescape=True)
        return c.status == "running", c.token.is_not(None), (c.held_until > self.now) | here

    def _info(self, row: RunRow, run_id: str, *, alive: bool) -> RunInfo:
        try:
            progress = row.progress
            if not alive and row.status == "running":
                progress = self._counted_progress(row)
            elif progress is None and row.parent != TOP:  # only the outermost run reports
                progress = self._count(row.key) if row.status == "running" else self._counted_progress(row)
        except ValueError as error:
            row = row._replace(wrong=(*row.wrong, f"definition is {error}"))
            progress = row.progress
        waits = waits_of(self._connection, row.key, run_id) if row.status == "suspended" else ()
        return run_info(row, run_id, progress, waits, alive=alive)

    def _counted_progress(self, row: RunRow) -> Progress:
        """Return how far a run has come that is not being executed, by counting its records."""
        which = row.key, row.executions, row.progress  # which another one has when records were deleted
        found = self._counted.get(which)
        if found is None:
            found = self._count(row.key)
            self._counted.put(which, found)
        return found if row.progress is None else found._replace(total=max(found.total, row.progress.total))

    def _count(self, key: int) -> Progress:
        return count_progress(self._connection, key, self._definition(key).tasks)

    def _definition(self, key: int) -> Fingerprint:
        """Return the definition of the process of a run; `ValueError` if it cannot be read."""
        column = type_coerce(definitions.c.fingerprint, NullType())
        written = self._connection.execute(select(column).where(definitions.c.run == key)).scalar()
        if not isinstance(written, bytes):
            raise ValueError("not the fingerprint of a process: there is none")  # noqa: TRY004  # as of bytes that are none
        return Fingerprint.from_bytes(written)

    def _all(self, query: Any) -> Sequence[Any]:
        return self._connection.execute(query).all()

    def _in_steps(
        self, query: Select[Any], before: int | None, after: int | None, step: int, offset: int
    ) -> Iterator[RunRow]:
        """Yield rows from a key on; whether one of a running run is wanted is known only when it is looked at."""
        key, upwards = runs.c.key, after is not None
        last = after if after is not None else before
        ordered = query.order_by(key if upwards else key.desc()).limit(step)
        if offset:
            ordered = ordered.offset(offset)
        while True:
            rows = self._all(ordered if last is None else ordered.where(key > last if upwards else key < last))
            yield from map(run_row, rows)
            if len(rows) < step:
                return
            last = rows[-1].key
            ordered = ordered.offset(None)

    def _found(self, row: RunRow, within: str, alive: bool) -> Found:
        run_id = f"{within}/{row.id}" if within else row.id
        return Found(row.key, self._info(row, run_id, alive=alive))
