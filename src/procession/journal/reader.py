"""What a page shows of a journal: by key, a bounded part at a time, and no value is ever turned back from bytes.

A key is the number the journal gave a run; it is never used again, and the later a run was begun, the higher it is.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, select, type_coerce
from sqlalchemy.types import NullType

from procession._model.record import WHOLE
from procession._plan.fingerprint import Fingerprint
from procession._plan.shape import Shape
from procession.errors import JournalError
from procession.journal import lease, look
from procession.journal.checked import NAME_LIMIT, RUN, Checked, RunRow, Status, bounded, run_row
from procession.journal.counts import Counts, definition_of
from procession.journal.look import RunInfo, TaskInfo, line_of
from procession.journal.schema import TOP, definitions, is_failed, records, runs
from procession.journal.spent import Mark, Share, marks_of, shares_of
from procession.journal.standing import TaskStanding, standing_of

HEAD = 300
"""Characters of an error that a list has: what was raised stands in its first line."""

_PART = 500
"""Tasks that a query names one by one, at most."""


class Found(NamedTuple):
    """A run, and its key."""

    key: int
    run: RunInfo


@dataclass(frozen=True, slots=True)
class Kept:
    """All that is kept of some runs: how many there are of each status, and what their processes are called."""

    counts: dict[Status, int]
    processes: list[str]


class Failure(NamedTuple):
    """A call that failed; and how it was in another run, if that has a record of it."""

    task: TaskInfo
    state_then: str | None
    duration_then: float | None


class Reader:
    """One look at a journal, in one connection, as long as `Journal.reader()` lasts."""

    def __init__(self, connection: Connection, counts: Counts, now: float, trace: Callable[[], object]) -> None:
        self._connection = connection
        self._counts = counts
        self._trace = trace
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
    ) -> list[Found]:
        """Return runs, the newest first: those next `before` a key, or next `after` it, or the newest.

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
        rows = self._in_steps(query, before, after, limit)
        outer = None if parent == TOP else self.run(parent)
        alive = outer is not None and outer.status == "running"
        found = (self._found(row, outer.id if outer else "", alive or look.is_alive(row, self.now)) for row in rows)
        wanted_ones = list(islice((one for one in found if status in (None, one.run.status)), limit))
        return wanted_ones if after is None else wanted_ones[::-1]

    def kept(self) -> Kept:
        """Return how many runs there are, by status, and of which processes; nested ones are not counted."""
        top = runs.c.parent == TOP
        status = bounded(runs.c.status, NAME_LIMIT)
        counts = Counter[Status]()
        for said, count in self._all(select(status, func.count()).where(top).group_by(runs.c.status)):
            counts[Checked().status(said)] += count
        if counts["running"]:
            going = self._all(select(*RUN).where(top, *self._maybe_alive()))
            alive = sum(look.is_alive(run_row(row), self.now) for row in going)
            counts["interrupted"] += counts["running"] - alive
            counts["running"] = alive
        names = self._all(
            select(bounded(runs.c.process, NAME_LIMIT))
            .where(top)
            .group_by(runs.c.process)
            .order_by(runs.c.process)
            .limit(200)
        )
        return Kept(dict(counts), [name for (name,) in names if isinstance(name, str)])

    def key(self, run_id: str) -> int:
        """Return the key of a run. `RunUnknownError` if there is none of that id."""
        return look.key_of(self._connection, run_id)

    def run(self, key: int) -> RunInfo:
        """Return how a run stands. `RunUnknownError` if there is none of that key."""
        row, *outer = line_of(self._connection, key)
        run_id = "/".join(one.id for one in [*reversed(outer), row])
        return look.info(
            self._connection, self._counts, row, run_id, alive=look.is_alive((outer or [row])[-1], self.now)
        )

    def outer(self, key: int) -> list[Found]:
        """Return the runs that a run is nested in, the outermost first."""
        return [Found(row.key, self.run(row.key)) for row in reversed(line_of(self._connection, key)[1:])]

    def nested(self, key: int, task: int, element: int | None) -> int | None:
        """Return the key of the run that a task, or an element of a map, is itself."""
        place = f"{task}" if element is None else f"{task}.{element}"
        query = select(runs.c.key).where(runs.c.parent == key, runs.c.id == place)
        return self._connection.execute(query).scalar()

    def definition(self, key: int) -> Fingerprint:
        """Return what the process of a run was.

        `RunUnknownError` if there is no run of that key, `JournalError` if what it was is not to be read.
        """
        line_of(self._connection, key)
        try:
            return definition_of(self._connection, key)
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
    ) -> list[TaskInfo]:
        """Return how the tasks from place `begin` on, or those `among` a few, ended; by place.

        With `task`, they are the elements of that map. `text` is looked for in their names. Of an error that is long,
        only the beginning is there, and of a log nothing.
        """
        place, where = self._which(key, task, state, text)
        where.append(place >= begin)
        if among is not None:
            where.append(place.in_(among))
        rows = self._all(select(*look.task_columns(HEAD, log=False)).where(*where).order_by(place).limit(limit))
        return [look.task_info(row) for row in rows]

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
        query = select(*look.task_columns()).where(
            c.run == key, c.task == task, c.element == (WHOLE if element is None else element)
        )
        row = self._connection.execute(query).one_or_none()
        return None if row is None else look.task_info(row)

    def failed(self, key: int, limit: int = 50) -> list[TaskInfo]:
        """Return the calls that failed, tasks and elements of maps, by place, with all of their errors and logs."""
        c = records.c
        query = select(*look.task_columns()).where(c.run == key, is_failed()).order_by(c.task, c.element)
        return [look.task_info(row) for row in self._all(query.limit(limit))]

    def count_failed(self, key: int) -> int:
        """Return how many there are."""
        query = select(func.count()).where(records.c.run == key, is_failed())
        return self._connection.execute(query).scalar_one()

    def standing(self, key: int, info: RunInfo, task: int) -> TaskStanding:
        """Return how a task of a run stands, whether or not it has ended, with all of its error and log."""
        ended = self.task(key, task, None)
        return self._standings(key, info, [task], {} if ended is None else {task: ended})[0]

    def standings(self, key: int, info: RunInfo, tasks: Sequence[int]) -> list[TaskStanding]:
        """Return how these tasks of a run stand; of an error that is long, only the beginning is there."""
        found: list[TaskStanding] = []
        for start in range(0, len(tasks), _PART):
            part = tasks[start : start + _PART]
            ended = {one.task: one for one in self.tasks(key, among=part, limit=_PART)}
            found += self._standings(key, info, part, ended)
        return found

    def standings_of(self, key: int, info: RunInfo, ended: Sequence[TaskInfo]) -> list[TaskStanding]:
        """Return how tasks of a run stand whose records have been read: one that failed before may run again."""
        return self._standings(key, info, [one.task for one in ended], {one.task: one for one in ended})

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
        """Return what the calls that began after `since` took, by name, the names that took longest first.

        Takes time in proportion to the run. `maps` says whether there are any among its tasks.
        """
        return shares_of(self._connection, key, maps, since, limit)

    def marks(self, key: int, *, maps: bool, begin: float, cell: float) -> list[Mark]:
        """Return who was busy when since `begin`, calls shorter than `cell` seconds in groups, by their begin.

        Takes time in proportion to the run. `maps` says whether there are any among its tasks.
        """
        return marks_of(self._connection, key, maps, begin, cell)

    def failures(self, key: int, other: int, limit: int = 50) -> list[Failure]:
        """Return the calls that failed, by place, with how they were in another run."""
        then = records.alias()
        c = records.c
        query = (
            select(
                *look.task_columns(HEAD, log=False),
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
        return [Failure(look.task_info(row[:-2]), row[-2], row[-1]) for row in self._all(query)]

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
                (row.key, row.progress, row.running, row.cancelling, row.executions, look.is_alive(row, self.now))
                for row in going
            ]
        row, *outer = line_of(self._connection, key)
        alive = look.is_alive((outer or [row])[-1], self.now)
        facts = (row.status, row.executions, row.progress, row.running, row.ended_at, row.cancelling, alive)
        return (*facts, (self._trace() or self.ended(key)) if alive else None)

    # Inside

    def _maybe_alive(self) -> tuple[ColumnElement[bool], ...]:
        """Say which runs that are not nested somebody may execute; of those that nobody does, there may be many."""
        c = runs.c
        here = c.holder.startswith(lease.Holder.here().place, autoescape=True)
        return c.status == "running", c.token.is_not(None), (c.held_until > self.now) | here

    def _all(self, query: Any) -> Sequence[Any]:
        return self._connection.execute(query).all()

    def _standings(
        self, key: int, info: RunInfo, tasks: Sequence[int], ended: Mapping[int, TaskInfo]
    ) -> list[TaskStanding]:
        goes_on = info.status == "running"
        partly = set[int]() if goes_on else self._partly(key, [task for task in tasks if task not in ended])
        began = {one.task: one.started_at for one in info.running}
        return [
            standing_of(task, ended.get(task), began.get(task), goes_on=goes_on, partly=task in partly)
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

    def _in_steps(self, query: Select[Any], before: int | None, after: int | None, step: int) -> Iterator[RunRow]:
        """Yield rows from a key on; whether one of a running run is wanted is known only when it is looked at."""
        key, upwards = runs.c.key, after is not None
        last = after if after is not None else before
        ordered = query.order_by(key if upwards else key.desc()).limit(step)
        while True:
            rows = self._all(ordered if last is None else ordered.where(key > last if upwards else key < last))
            yield from map(run_row, rows)
            if len(rows) < step:
                return
            last = rows[-1].key

    def _found(self, row: RunRow, within: str, alive: bool) -> Found:
        run_id = f"{within}/{row.id}" if within else row.id
        return Found(row.key, look.info(self._connection, self._counts, row, run_id, alive=alive))

    @staticmethod
    def _which(
        key: int, task: int | None, state: str | None, text: str
    ) -> tuple[ColumnElement[int], list[ColumnElement[bool]]]:
        """Return what counts as the place of a record, and which records are meant."""
        c = records.c
        where = [c.run == key]
        where += [c.element == WHOLE] if task is None else [c.task == task, c.element != WHOLE]
        if state is not None:
            where.append(is_failed() if state == "failed" else c.state == state)
        if text:
            where.append(c.name.icontains(text, autoescape=True))
        return c.task if task is None else c.element, where
