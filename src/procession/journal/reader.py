"""All that is asked of a journal: by the page, the command line and `Journal` itself, through one class.

Each query has a name and a limit, and no value is ever turned back from bytes. A key is the number the journal gave a
run; it is never used again, and the later a run was begun, the higher it is.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, select, type_coerce
from sqlalchemy.types import NullType

from procession._model.progress import Progress
from procession._model.record import WHOLE
from procession._plan.fingerprint import Fingerprint
from procession._plan.shape import Shape
from procession.errors import JournalError, RunUnknownError
from procession.journal.checked import NAME_LIMIT, RUN, Checked, RunRow, Status, bounded, run_row
from procession.journal.latest import Latest
from procession.journal.lease import Holder
from procession.journal.run_info import RunInfo, TaskInfo, run_info, task_columns, task_info
from procession.journal.schema import TOP, definitions, is_failed, records, runs
from procession.journal.task_status import TaskStatus, task_status
from procession.journal.time_usage import Mark, Share, mark_of, marks_query, share_of, shares_query

HEAD = 300
"""Characters of an error that a list has: what was raised stands in its first line."""

_PART = 500
"""Tasks that a query names one by one, at most."""

_DEPTH = 1_000
"""How deep runs are nested in each other, at most."""

COUNTED = 1_000
"""Runs whose progress is kept once it was counted, at most."""


class Found(NamedTuple):
    """A run, and its key."""

    key: int
    run: RunInfo


@dataclass(frozen=True, slots=True)
class RunCounts:
    """How many runs a journal has, by status, and what their processes are called."""

    by_status: dict[Status, int]
    processes: list[str]


class Failure(NamedTuple):
    """A call that failed; and how it was in another run, if that has a record of it."""

    task: TaskInfo
    state_then: str | None
    duration_then: float | None


class Reader:
    """Reads a journal in one connection, for as long as `Journal.reader()` lasts.

    `counted` keeps between readers how far runs had come that nobody executes; `last_commit` returns what every commit
    changes, or `None` where there is nothing of the kind. `now` is the database's time, in seconds since the epoch.
    """

    def __init__(
        self,
        connection: Connection,
        counted: Latest[tuple[int, int], Progress],
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
        query = select(*RUN).where(c.parent == parent)
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
        outer, places = run_id, list[str]()
        while (key := self._key_within(TOP, outer)) is None:  # an id may have slashes of its own
            outer, slash, place = outer.rpartition("/")
            if not slash:
                break
            places.append(place)
        for place in reversed(places):
            key = None if key is None else self._key_within(key, place)
        if key is None:
            raise RunUnknownError(f"the journal has no run {run_id!r}")
        return key

    def run(self, key: int) -> RunInfo:
        """Return how a run stands. `RunUnknownError` if there is none of that key."""
        row, *outer = self._line(key)
        run_id = "/".join(one.id for one in [*reversed(outer), row])
        return self._info(row, run_id, alive=(outer or [row])[-1].is_alive(self.now))

    def outer(self, key: int) -> list[Found]:
        """Return the runs that a run is nested in, the outermost first."""
        return [Found(row.key, self.run(row.key)) for row in reversed(self._line(key)[1:])]

    def nested(self, key: int, task: int, element: int | None) -> int | None:
        """Return the key of the run that a task, or an element of a map, is itself."""
        return self._key_within(key, f"{task}" if element is None else f"{task}.{element}")

    def definition(self, key: int) -> Fingerprint:
        """Return the definition of the process of a run.

        `RunUnknownError` if there is no run of that key, `JournalError` if it cannot be read.
        """
        self._line(key)
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
        here, c = self._line(key)[0], runs.c
        before = select(c.key).where(c.parent == here.parent, c.process == here.process, c.status == "completed")
        return self._connection.execute(before.where(c.key < key).order_by(c.key.desc()).limit(1)).scalar()

    # Tasks

    def tasks(
        self,
        key: int,
        *,
        task: int | None = None,
        state: Literal["completed", "failed"] | None = None,
        text: str = "",
        begin: int = 0,
        among: Sequence[int] | None = None,
        limit: int = 100,
        offset: int = 0,
        whole: bool = False,
    ) -> list[TaskInfo]:
        """Return how the tasks from place `begin` on, or those `among` a few, ended; by place.

        With `task`, they are the elements of that map. `text` is looked for in their names. Unless `whole` texts are
        wanted, only the beginning of an error that is long is there, and of a log nothing.
        """
        place, where = self._which(key, task, state, text)
        where.append(place >= begin)
        if among is not None:
            where.append(place.in_(among))
        columns = task_columns() if whole else task_columns(HEAD, log=False)
        query = select(*columns).where(*where).order_by(place).limit(limit).offset(offset)
        return [task_info(row) for row in self._all(query)]

    def earlier(
        self,
        key: int,
        *,
        task: int | None = None,
        state: Literal["completed", "failed"] | None = None,
        text: str = "",
        begin: int,
        limit: int = 100,
    ) -> int | None:
        """Return the place from which `tasks` shows those before `begin`, `None` if there are none."""
        place, where = self._which(key, task, state, text)
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

    def failed(self, key: int, limit: int = 50) -> list[TaskInfo]:
        """Return the calls that failed, tasks and elements of maps, by place, with all of their errors and logs."""
        c = records.c
        query = select(*task_columns()).where(c.run == key, is_failed()).order_by(c.task, c.element)
        return [task_info(row) for row in self._all(query.limit(limit))]

    def count_failed(self, key: int) -> int:
        """Return how many calls failed, tasks and elements of maps."""
        query = select(func.count()).where(records.c.run == key, is_failed())
        return self._connection.execute(query).scalar_one()

    def status(self, key: int, info: RunInfo, task: int) -> TaskStatus:
        """Return how a task of a run stands, whether or not it has ended, with all of its error and log."""
        ended = self.task(key, task, None)
        return self._statuses(key, info, [task], {} if ended is None else {task: ended})[0]

    def statuses(self, key: int, info: RunInfo, tasks: Sequence[int]) -> list[TaskStatus]:
        """Return how these tasks of a run stand; of an error that is long, only the beginning is there."""
        found: list[TaskStatus] = []
        for start in range(0, len(tasks), _PART):
            part = tasks[start : start + _PART]
            ended = {one.task: one for one in self.tasks(key, among=part, limit=_PART)}
            found += self._statuses(key, info, part, ended)
        return found

    def statuses_of(self, key: int, info: RunInfo, ended: Sequence[TaskInfo]) -> list[TaskStatus]:
        """Return how tasks of a run stand whose records have been read: one that failed before may run again."""
        return self._statuses(key, info, [one.task for one in ended], {one.task: one for one in ended})

    def ended(self, key: int) -> int:
        """Return how many calls have a record. Takes time in proportion."""
        return self._connection.execute(select(func.count()).where(records.c.run == key)).scalar_one()

    def ends(self, key: int) -> Iterator[tuple[int, bool]]:
        """Yield each task that has ended, and whether it failed. Takes time in proportion."""
        c = records.c
        query = select(c.task, is_failed()).where(c.run == key, c.element == WHOLE)
        for task, failed in self._connection.execute(query):
            yield task, bool(failed)

    # Where the time went

    def shares(self, key: int, *, maps: bool, since: float, limit: int = 50) -> list[Share]:
        """Return how long the calls that began after `since` took, by name; names that took longest come first.

        Takes time in proportion to the run. `maps` says whether there are any among its tasks.
        """
        return [share_of(row) for row in self._all(shares_query(key, maps=maps, since=since, limit=limit))]

    def marks(self, key: int, *, maps: bool, begin: float, cell: float) -> list[Mark]:
        """Return who was busy when since `begin`, calls shorter than `cell` seconds in groups, by their begin.

        Takes time in proportion to the run. `maps` says whether there are any among its tasks.
        """
        dialect = self._connection.dialect.name
        query = marks_query(key, maps=maps, begin=begin, cell=cell, dialect=dialect)
        return [mark_of(row) for row in self._all(query)]

    def failures(self, key: int, other: int, limit: int = 50) -> list[Failure]:
        """Return the calls that failed, by place, with how they were in another run."""
        then = records.alias()
        c = records.c
        query = (
            select(
                *task_columns(HEAD, log=False),
                then.c.state.label("state_then"),
                then.c.duration.label("duration_then"),
            )
            .select_from(
                records.outerjoin(then, (then.c.run == other) & (then.c.task == c.task) & (then.c.element == c.element))
            )
            .where(c.run == key, is_failed())
            .order_by(c.task, c.element)
            .limit(limit)
        )
        return [Failure(task_info(row[:-2]), row[-2], row[-1]) for row in self._all(query)]

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
        row, *outer = self._line(key)
        alive = (outer or [row])[-1].is_alive(self.now)
        facts = (row.status, row.executions, row.progress, row.running, row.ended_at, row.cancelling, alive)
        return (*facts, (self._last_commit() or self.ended(key)) if alive else None)

    # Inside

    def _maybe_alive(self) -> tuple[ColumnElement[bool], ...]:
        """Say which runs that are not nested somebody may execute; of those that nobody does, there may be many."""
        c = runs.c
        here = c.holder.startswith(Holder.here().place, autoescape=True)
        return c.status == "running", c.token.is_not(None), (c.held_until > self.now) | here

    def _key_within(self, parent: int, place: str) -> int | None:
        query = select(runs.c.key).where(runs.c.parent == parent, runs.c.id == place)
        return self._connection.execute(query).scalar()

    def _line(self, key: int) -> list[RunRow]:
        """Return the row of a run, and those of the runs around it, the outermost last.

        `RunUnknownError` if there is none of that key.
        """
        line: list[RunRow] = []
        while key != TOP or not line:
            row = self._connection.execute(select(*RUN).where(runs.c.key == key)).one_or_none()
            if row is None:
                raise RunUnknownError(f"the journal has no run of key {key}")
            if len(line) == _DEPTH:
                raise JournalError(f"the journal is damaged: run {line[0].key} lies within more than {_DEPTH:,} others")
            line.append(run_row(row))
            key = line[-1].parent
        return line

    def _info(self, row: RunRow, run_id: str, *, alive: bool) -> RunInfo:
        try:
            progress = row.progress if alive or row.status != "running" else self._counted_progress(row)
        except ValueError as error:
            row = row._replace(wrong=(*row.wrong, f"definition is {error}"))
            progress = row.progress
        return run_info(row, run_id, progress, alive=alive)

    def _counted_progress(self, row: RunRow) -> Progress:
        """Return how far a run has come that nobody executes: what is recorded of it. Nothing is added to that."""
        which = (row.key, row.executions)
        found = self._counted.get(which)
        if found is None:
            found = self._count(row.key)
            self._counted.put(which, found)
        return found if row.progress is None else found._replace(total=max(found.total, row.progress.total))

    def _count(self, key: int) -> Progress:
        """Count the records of a run; a map counts as its elements, if it has any.

        Takes 20 to 40 ms for 100,000 calls.
        """
        c = records.c
        of_run, element = c.run == key, c.element != WHOLE
        tasks, calls, failed = self._definition(key).tasks, self.ended(key), self.count_failed(key)
        bad = func.count().filter(is_failed())
        maps = select(c.task, func.count().label("size"), bad.label("failed")).where(of_run, element).group_by(c.task)
        sizes = maps.subquery()
        whole = of_run & (c.task == sizes.c.task) & (c.element == WHOLE)
        query = select(sizes.c.size, sizes.c.failed, c.state).select_from(sizes.outerjoin(records, whole))
        for size, failures, state in self._connection.execute(query):
            tasks += size - 1
            calls -= state is not None
            failed -= state == "failed" and failures > 0
        return Progress(calls, failed, tasks)

    def _definition(self, key: int) -> Fingerprint:
        """Return the definition of the process of a run; `ValueError` if it cannot be read."""
        column = type_coerce(definitions.c.fingerprint, NullType())
        written = self._connection.execute(select(column).where(definitions.c.run == key)).scalar()
        if not isinstance(written, bytes):
            raise ValueError("not the fingerprint of a process: there is none")  # noqa: TRY004  # as of bytes that are none
        return Fingerprint.from_bytes(written)

    def _all(self, query: Any) -> Sequence[Any]:
        return self._connection.execute(query).all()

    def _statuses(
        self, key: int, info: RunInfo, tasks: Sequence[int], ended: Mapping[int, TaskInfo]
    ) -> list[TaskStatus]:
        goes_on = info.status == "running"
        partly = set[int]() if goes_on else self._partly(key, [task for task in tasks if task not in ended])
        began = {one.task: one.started_at for one in info.running}
        return [
            task_status(task, ended.get(task), began.get(task), goes_on=goes_on, partly=task in partly)
            for task in tasks
        ]

    def _partly(self, key: int, tasks: Sequence[int]) -> set[int]:
        """Return those of the tasks that anything is recorded inside of: an element, or the run that the task is."""
        if not tasks:
            return set()
        c = records.c
        elements = self._all(select(c.task).where(c.run == key, c.task.in_(tasks), c.element != WHOLE).distinct())
        nested = self._all(select(runs.c.id).where(runs.c.parent == key, runs.c.id.in_(map(str, tasks))))
        return {task for (task,) in elements} | {int(place) for (place,) in nested}

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

    @staticmethod
    def _which(
        key: int, task: int | None, state: str | None, text: str
    ) -> tuple[ColumnElement[int], list[ColumnElement[bool]]]:
        """Return the column by which records are ordered, and the conditions that select them."""
        c = records.c
        where = [c.run == key]
        where += [c.element == WHOLE] if task is None else [c.task == task, c.element != WHOLE]
        if state is not None:
            where.append(is_failed() if state == "failed" else c.state == state)
        if text:
            where.append(c.name.icontains(text, autoescape=True))
        return c.task if task is None else c.element, where
