"""How a run begins: its row and definition are written or, where they are there, compared with what is to be run."""

import json
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple, Self

from sqlalchemy import Connection, Row, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from procession._model.record import WHOLE
from procession._model.strategy import Stage
from procession._model.text import shown
from procession._plan.fingerprint import Fingerprint
from procession._plan.rerun import Rerun
from procession._plan.shape import Shape
from procession._plan.shared import Shared
from procession.errors import JournalError, PlanChangedError, RunInUseError
from procession.journal import lease
from procession.journal.checked import RunRow, run_row
from procession.journal.codec import writable
from procession.journal.held import Held
from procession.journal.prepared import Prepared
from procession.journal.removal import forget, forget_whole, nested_in
from procession.journal.schema import TOP, definitions, is_failed, records, runs
from procession.journal.statements import DIRECT


class Definition(NamedTuple):
    """The definition of a run; `written` is both as bytes, by the columns that keep them."""

    fingerprint: Fingerprint
    shape: Shape | None
    written: Mapping[str, bytes | None]

    @classmethod
    def of(cls, fingerprint: Fingerprint, shape: Shape | None) -> Self:
        """Return the definition with these parts."""
        return cls(
            fingerprint,
            shape,
            {"fingerprint": fingerprint.to_bytes(), "shape": None if shape is None else shape.to_bytes()},
        )

    def outdated(self, before: Fingerprint) -> set[int]:
        """Return the tasks whose records no longer count, as they were recorded with another definition."""
        changed = before.changed(self.fingerprint)
        return changed if self.shape is None else self.shape.following(changed)

    def same_processes(self, before: Fingerprint, tasks: AbstractSet[int]) -> set[int]:
        """Return those of the passed tasks that are processes of the same names in both, whatever their tasks."""
        if self.shape is None:
            return set()
        processes = {task for task in tasks if self.shape.kinds.get(task) == "process"}
        return before.same_names(self.fingerprint, processes)


class Beginning(NamedTuple):
    """A run that is to be begun, or gone on with."""

    run_id: str
    parent: int
    """The key of the run that it is nested in, or `TOP`."""
    place: str
    """Its id among those that have the same parent."""
    codec: str
    definition: Definition
    origin: Mapping[str, object]
    allow_changes: bool

    def enter(self, connection: Connection, held: Held, now: float) -> tuple[int, "Entry"]:
        """Write the run's row, in a transaction; return its key, and what was there before.

        Raises `RunInUseError`, `PlanChangedError` or `JournalError` if the run cannot be executed, or not like this.
        """
        if self.parent != TOP:
            held.check(connection)
        values: dict[str, Any] = {
            "process": writable(self.definition.fingerprint.process_name),
            "status": "running",
            "error": None,
            "started_at": now,
            "ended_at": None,
            "progress": "{}",
            "cancelling": False,
            "token": None,
            "holder": None,
            "held_since": None,
            "held_until": None,
        }
        if self.parent == TOP:
            values |= {
                "token": held.token,
                "holder": lease.Holder.here(held.thread).text,
                "held_since": now,
                "held_until": now + lease.DURATION_S,
            }
        found = _FIND.execute(connection, parent=self.parent, id=self.place).fetchone()
        if found is None:
            return self._new(connection, values), Entry(1)
        row = connection.execute(select(runs).where(runs.c.key == found[0])).one()
        if row.token == held.token:  # the answer to an earlier try was lost
            return row.key, Entry(row.executions, failed=_failed(connection, row.key))
        check_free(run_row(row), self.run_id, now)
        return row.key, self._again(connection, row, values)

    def _new(self, connection: Connection, values: dict[str, Any]) -> int:
        values |= {
            "parent": self.parent,
            "id": self.place,
            "codec": self.codec,
            "created_at": values["started_at"],
            "executions": 1,
            "origin": json.dumps(dict(self.origin)),
        }
        try:
            key = _insert(connection, values)
        except (IntegrityError, connection.dialect.loaded_dbapi.IntegrityError) as error:
            # On a server, two may find at the same time that there is none.
            raise RunInUseError(f"run {self.run_id!r} has just been begun by another process") from error
        _DEFINE.execute(connection, run=key, **self.definition.written)
        return key

    def _again(self, connection: Connection, row: Row[Any], values: dict[str, Any]) -> "Entry":
        if row.codec != self.codec:
            raise JournalError(
                f"run {self.run_id!r} was recorded with codec {row.codec!r} and not {self.codec!r}: "
                f"open the journal in a program, with the codec of that name: Journal(..., codec={row.codec!r})"
            )
        _define(connection, row, self.run_id, self.definition, allow_changes=self.allow_changes)
        failed = _failed(connection, row.key)
        _forget_made_without(connection, row.key, self.definition, failed, allow_changes=self.allow_changes)
        executions = row.executions + 1
        # The origin stays: how the run was begun, and not how it was gone on with.
        connection.execute(update(runs).where(runs.c.key == row.key).values(executions=executions, **values))
        completed = (row.started_at, row.ended_at) if row.status == "completed" else None
        return Entry(executions, row.error, row.progress, completed, failed)


class Entry(NamedTuple):
    """What a run's row said before this execution began it, and which of its calls had failed."""

    executions: int
    """How many times it has been begun, this time included."""
    error: str | None = None
    progress: str = "{}"
    completed: tuple[float, float] | None = None
    """When it began and ended, if it has completed."""
    failed: Collection[tuple[int, int]] = ()


_FIND: Final = Prepared(
    select(runs.c.key).where(runs.c.parent == bindparam("parent"), runs.c.id == bindparam("id")).with_for_update()
)
_ROW: Final = insert(runs).values(
    {column.name: bindparam(column.name) for column in runs.c if column is not runs.c.key}
)
_INSERT: Final = Prepared(_ROW)
_INSERT_AND_SAY: Final = Prepared(_ROW.returning(runs.c.key))
_DEFINE: Final = Prepared(
    insert(definitions).values({name: bindparam(name) for name in ("run", "fingerprint", "shape")})
)


def _insert(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert the row of a run, and return its key."""
    key: int
    if connection.dialect.name == "sqlite":  # older ones have no RETURNING
        key = _INSERT.execute(connection, **values).lastrowid
    elif connection.dialect.name in DIRECT:
        (key,) = _INSERT_AND_SAY.execute(connection, **values).fetchone()
    else:
        answer = connection.execute(insert(runs).values(**values)).inserted_primary_key
        assert answer is not None
        key = answer[0]
    return key


def _failed(connection: Connection, key: int) -> list[tuple[int, int]]:
    query = select(records.c.task, records.c.element).where(records.c.run == key, is_failed())
    return [(task, element) for task, element in connection.execute(query)]


def read_shared(written: str | None) -> list[Shared]:
    """Return the notes of a run on objects that several tasks take and have changed."""
    return [Shared(kind, tuple(tasks)) for kind, tasks in json.loads(written or "[]")]


def check_free(row: RunRow, run_id: str, now: float) -> None:
    """Raise `RunInUseError` if the run is being executed."""
    holder = row.holder
    if holder is None or not row.is_alive(now):
        return
    here = lease.Holder.here()
    late = now - row.held_until + lease.DURATION_S
    if holder.place != here.place:
        # Nobody here can look whether it lives.
        free = f"should that process be dead, the run is free {row.held_until - now:.0f} s from now"
    elif row.held_until > now:
        free = "once that process is gone, the run is free at once"
    else:
        free = (
            f"that process lives, but has not been heard of for {late:.0f} s: it may have been stopped, or hang. Let "
            "it go on, or end it, and the run is free at once"
        )
    raise RunInUseError(
        f"run {run_id!r} is being executed by process {holder.pid} on {holder.host} since "
        f"{lease.moment(row.held_since)}. Wait for its end or cancel it; {free}"
    )


def _define(connection: Connection, row: Row[Any], run_id: str, plan: Definition, *, allow_changes: bool) -> None:
    """Write the definition of a run; forget the records of tasks that have changed, or refuse the change."""
    here = definitions.c.run == row.key
    _check_shared(connection, row, run_id, plan, allow_changes=allow_changes)
    kept = connection.execute(select(definitions.c.fingerprint, definitions.c.shape).where(here)).one()
    if kept.fingerprint != plan.written["fingerprint"]:
        before = Fingerprint.from_bytes(kept.fingerprint)
        difference = before.first_difference(plan.fingerprint)
        if difference is not None and not allow_changes:
            raise PlanChangedError(
                f"run {run_id!r} of process {row.process!r} was begun with another definition: {difference}. "
                "Start under another run id, or with allow_changes=True, which calls again what changed and what "
                "follows from it"
            )
        if difference is not None:
            outdated = plan.outdated(before)
            # An element is called again only if it is another one; a run inside looks what has changed itself.
            looked_into = before.same_maps(plan.fingerprint, outdated) | plan.same_processes(before, outdated)
            forget_whole(connection, row.key, looked_into)
            forget(connection, row.key, outdated - looked_into)
    if kept._mapping != plan.written:
        connection.execute(update(definitions).where(here).values(**plan.written))


def _forget_made_without(
    connection: Connection, key: int, plan: Definition, failed: Collection[tuple[int, int]], *, allow_changes: bool
) -> None:
    """Forget what was made of the elements of maps while some were left out, as they had failed: they are called again.

    Where changes are allowed, elements that were not missed may be others, too, in a map that has not completed.
    """
    shape = plan.shape
    if shape is None or not (failed or allow_changes):
        return
    # Who comes later in order has not begun after a failure, and does not follow from it under another strategy.
    rerun = Rerun(shape._replace(stages=(Stage(0, plan.fingerprint.tasks, at_once=True),)), _shared_in(connection, key))
    open_tasks = {task for task, _ in failed}
    if allow_changes:
        open_tasks |= {task for task, kind in shape.kinds.items() if kind == "map"} - _completed(connection, key)
    for task in open_tasks:
        rerun.add(task, frozenset(), "failed")  # their elements that are recorded stay
    rerun.follow()
    forget(connection, key, {task for task, part in rerun.parts.items() if part is None})


def _shared_in(connection: Connection, key: int) -> list[tuple[int, ...]]:
    """Return the tasks that take one object and have changed it, for each such object."""
    query = select(definitions.c.shared).where(definitions.c.run == key)
    return [one.tasks for one in read_shared(connection.execute(query).scalar_one())]


def _completed(connection: Connection, key: int) -> set[int]:
    """Return the tasks of a run that are recorded as completed."""
    c = records.c
    whole = select(c.task).where(c.run == key, c.element == WHOLE, c.state == "completed")
    return set(connection.execute(whole).scalars())


def _done_in_part(connection: Connection, key: int, tasks: AbstractSet[int]) -> set[int]:
    """Return those of the passed tasks, none of them completed, of which a part will not be called again.

    A part is an element of a map, or a task of a nested run. Recorded calls refuse changed arguments by themselves.
    """
    if not tasks:
        return set()
    elements = select(records.c.task).where(records.c.run == key, records.c.state == "completed").distinct()
    found = set(connection.execute(elements).scalars()) & tasks
    for child, (task, _, call) in nested_in(connection, key):
        if task in tasks - found and call == WHOLE and _holds_records(connection, child):
            found.add(task)
    return found


def _holds_records(connection: Connection, key: int) -> bool:
    """Return whether anything is recorded as completed in a run, or in those nested in it."""
    record = select(records.c.task).where(records.c.run == key, records.c.state == "completed").limit(1)
    if connection.execute(record).first() is not None:
        return True
    return any(_holds_records(connection, child) for child, _ in nested_in(connection, key))


def _check_shared(connection: Connection, row: Row[Any], run_id: str, plan: Definition, *, allow_changes: bool) -> None:
    """Refuse to go on, or forget, where tasks have changed what they share and only some of them are recorded.

    The others would be called with the object as it was at first.
    """
    here = definitions.c.run == row.key
    noted = read_shared(connection.execute(select(definitions.c.shared).where(here)).scalar_one())
    if not noted:
        return
    completed = _completed(connection, row.key)
    done_in_part = _done_in_part(connection, row.key, {task for one in noted for task in one.tasks} - completed)
    done_at_all = completed | done_in_part
    halves = [one for one in noted if done_at_all.intersection(one.tasks) and not completed.issuperset(one.tasks)]
    if halves and not allow_changes:
        kind, tasks = halves[0]
        done = next((task for task in tasks if task in completed), None)
        what = "only part of task" if done is None else "only task"
        if done is None:
            done = next(task for task in tasks if task in done_in_part)
        open_ = next(task for task in tasks if task not in completed and task != done)
        raise PlanChangedError(
            f"run {run_id!r} of process {row.process!r} cannot be resumed: {_named(plan, done)} and "
            f"{_named(plan, open_)} take the same object of type {shown(kind)}, which was changed while the run was "
            f"executed, and {what} {done} is recorded: task {open_} would not see the change. Have tasks hand on "
            "what they make as values (process.task), and start under another run id, or with allow_changes=True, "
            "which calls again all that take that object"
        )
    again = {task for one in halves for task in one.tasks}
    if again:
        forget(connection, row.key, again if plan.shape is None else plan.shape.following(again))
    kept = json.dumps([one for one in noted if completed.issuperset(one.tasks)])
    connection.execute(update(definitions).where(here).values(shared=kept))


def _named(plan: Definition, task: int) -> str:
    fingerprint = plan.fingerprint
    return f"task {task} ({shown(fingerprint.name(task))})" if task < fingerprint.tasks else f"task {task}"
