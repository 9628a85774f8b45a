"""The journal: a durable record of runs."""

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from procession._model.progress import Progress
from procession._model.record import WHOLE
from procession._model.text import described, shown, sketch
from procession._plan.fingerprint import Fingerprint
from procession._plan.shape import Shape
from procession.errors import JournalError, PlanChangedError, ProcessionError, RunInUseError, RunUnknownError
from procession.journal import lease
from procession.journal.checked import RUN, RunRow, run_row
from procession.journal.codec import Codec, CodecName, codec_of, writable
from procession.journal.database import Database, Durability
from procession.journal.latest import Latest
from procession.journal.reader import COUNTED, Reader
from procession.journal.recorder import Entry, Held, Recorder, read_shared
from procession.journal.removal import forget, forget_whole, remove
from procession.journal.run_info import RunInfo, TaskInfo
from procession.journal.schema import ID_LIMIT, TOP, definitions, records, runs


class _Plan(NamedTuple):
    """What a run is; `written` is both as bytes, by the columns that keep them."""

    fingerprint: Fingerprint
    shape: Shape | None
    written: Mapping[str, bytes | None]

    def outdated(self, before: Fingerprint) -> set[int]:
        """Return the tasks of which nothing counts any more that was recorded when the run was another."""
        changed = before.changed(self.fingerprint)
        return changed if self.shape is None else self.shape.following(changed)


class Journal:
    """A durable record of runs, in a database: what ended well is never called again under the same run id.

    Nothing is opened until a run begins or something is asked of the journal.

    Args:
        where: A path, which means an SQLite file; `":memory:"` for a journal that lasts as long as it is open; or a URL
            such as `postgresql://user@host/name`.
        durability: With `"process"`, the default, a record survives the death of the process at any instant. With
            `"power"` it also survives that of the whole system, for the price of a disk sync at each commit.
        codec: How results become bytes: `"pickle"`, the default, `"json"`, or an object with a `name` that encodes and
            decodes, see `Codec`.
        texts: Whether the texts and tracebacks of exceptions, and what tasks log, are kept beside the results. They are
            written as they are, whatever the codec. By default they are kept, but not beside a codec of your own, which
            may be there to encrypt: then only the types of exceptions are.

    Raises:
        ValueError: `where`, `durability` or `codec` has no meaning.
        JournalError: The database cannot be used. Raised by the methods, and by runs.

    Example:
        >>> with Journal(":memory:") as journal:
        ...     [run.id for run in journal.runs()]
        []

    """

    def __init__(
        self,
        where: str | os.PathLike[str],
        *,
        durability: Durability = "process",
        codec: CodecName | Codec = "pickle",
        texts: bool | None = None,
    ) -> None:
        self.database = Database(where, durability)
        self._codec = codec_of(codec)
        self._texts = isinstance(codec, str) if texts is None else texts
        self._counted = Latest[tuple[int, int], Progress](COUNTED)

    def begin(
        self,
        run_id: str,
        fingerprint: Fingerprint,
        shape: Shape | None = None,
        *,
        within: tuple[Recorder, int, int] | None = None,
        origin: Mapping[str, object] | None = None,
        allow_changes: bool = False,
    ) -> Recorder:
        """Begin to execute a run, or go on with it, and return the way to record it.

        `shape` is kept to be shown: the run may go on with another one. `within` is the recorder, the task and the
        element (or `WHOLE`) that the run is itself, `origin` says how it was started, for people and for `resume`.
        With `allow_changes`, what was recorded of changed tasks is forgotten, and of tasks that take their values.
        Raises `RunInUseError` if somebody executes the run, `PlanChangedError` if it was begun with another
        definition, `ValueError` for a run id that no database could keep, `JournalError` for all else.
        """
        _check(run_id)
        written = {"fingerprint": fingerprint.to_bytes(), "shape": None if shape is None else shape.to_bytes()}
        plan = _Plan(fingerprint, shape, written)
        if within is not None:
            held, outer = within[0].held, within[0].key
            place = f"{within[1]}" if within[2] == WHOLE else f"{within[1]}.{within[2]}"
            return within[0].persist(
                lambda _: self._begun(held, outer, place, run_id, plan, origin or {}, allow_changes=allow_changes)
            )
        channel = self.database.channel(create=True)
        token = lease.take()
        try:
            held = Held(channel, TOP, token, run_id)
            return self._begun(held, TOP, run_id, run_id, plan, origin or {}, allow_changes=allow_changes)
        except BaseException as error:
            if not isinstance(error, ProcessionError):  # Ctrl-C, say, which may have come when the lease was written
                free = {"token": None, "held_until": None, "status": "failed", "error": described(error)}
                with suppress(JournalError), channel.transaction() as connection:
                    connection.execute(update(runs).where(runs.c.token == token).values(**free))
            lease.drop(token)
            self.database.release(channel)
            raise

    def runs(self, limit: int = 50, offset: int = 0, *, within: str | None = None) -> list[RunInfo]:
        """Return how runs stand, the newest first.

        Args:
            limit: How many runs to return at most.
            offset: How many of the newest runs to leave out.
            within: The id of a run: return the runs nested in it. By default, runs that are not nested are returned.

        Raises:
            RunUnknownError: The journal has no run of the id `within`.

        """
        with self.reader() as reader:
            parent = TOP if within is None else reader.key(within)
            return [found.run for found in reader.runs(parent=parent, limit=limit, offset=offset)]

    def run(self, run_id: str) -> RunInfo:
        """Return how a run stands.

        Args:
            run_id: The run's id; of a nested run, `run/task` or `run/task.element`.

        Raises:
            RunUnknownError: The journal has no run of that id.

        """
        with self.reader() as reader:
            return reader.run(reader.key(run_id))

    def tasks(
        self,
        run_id: str,
        limit: int = 100,
        offset: int = 0,
        *,
        task: int | None = None,
        state: Literal["completed", "failed"] | None = None,
    ) -> list[TaskInfo]:
        """Return how the tasks of a run ended, by place. Tasks that have not ended are left out.

        Args:
            run_id: The run's id; of a nested run, `run/task` or `run/task.element`.
            limit: How many tasks to return at most.
            offset: How many tasks to leave out at the beginning.
            task: The place of a map: return its elements instead of tasks.
            state: Return only tasks that have `"completed"`, or only tasks that have `"failed"`.

        Raises:
            RunUnknownError: The journal has no run of that id.
            ValueError: `state` is unknown.

        """
        if state not in (None, "completed", "failed"):
            raise ValueError(f"unknown state {sketch(state)}; known are 'completed' and 'failed'")
        with self.reader() as reader:
            key = reader.key(run_id)
            return reader.tasks(key, task=task, state=state, limit=limit, offset=offset, whole=True)

    @contextmanager
    def reader(self) -> Generator[Reader]:
        """Open a connection for all queries there are, by key and a part at a time, for as long as the `with` lasts."""
        with self.database.reading() as connection:
            yield Reader(connection, self._counted, self.database.now(connection), self.database.last_commit)

    def cancel(self, run_id: str) -> bool:
        """Ask the process that executes a run to cancel it, which takes about a second.

        Args:
            run_id: The run's id. A run that is nested in another one is cancelled with the outer run.

        Returns:
            Whether a process executes the run.

        Raises:
            RunUnknownError: The journal has no run of that id.

        """
        with self.database.writing() as connection:
            row = _top(connection, run_id)
            if not row.is_alive(self.database.now(connection)):
                return False
            connection.execute(update(runs).where(runs.c.key == row.key).values(cancelling=True))
            return True

    def delete(self, run_id: str) -> None:
        """Delete a run, and all runs nested in it, whole or not at all.

        Args:
            run_id: The run's id.

        Raises:
            RunInUseError: A process executes the run.
            RunUnknownError: The journal has no run of that id.

        """
        with self.database.writing() as connection:
            row = _top(connection, run_id)
            _check_free(row, run_id, self.database.now(connection))
            remove(connection, row.key)

    def prune(self, before: float) -> list[str]:
        """Delete the runs that ended, or were last heard of, before a time.

        Each is deleted whole or not at all, in a transaction of its own, so that running processes need not wait long.

        Args:
            before: The time, in seconds since the epoch, UTC.

        Returns:
            The ids of the runs that were deleted.

        """
        with self.database.reading() as connection:
            # Of a run that goes on, this is later than now, unless its runner is late.
            heard = func.coalesce(runs.c.held_until, runs.c.ended_at)
            until = min(before, self.database.now(connection))
            old = select(*RUN).where(runs.c.parent == TOP, heard < until).order_by(runs.c.key)
            candidates = [row.id for row in connection.execute(old)]
        pruned: list[str] = []
        for run_id in candidates:
            with self.database.writing() as connection:
                # Somebody may have deleted or begun it since.
                row = connection.execute(old.where(runs.c.id == run_id).with_for_update()).one_or_none()
                if row is not None and not run_row(row).is_alive(self.database.now(connection)):
                    remove(connection, row.key)
                    pruned.append(run_id)
        return pruned

    def close(self) -> None:
        """Close all connections. A journal in memory is gone then."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _begun(
        self,
        held: Held,
        parent: int,
        place: str,
        run_id: str,
        plan: _Plan,
        origin: Mapping[str, object],
        *,
        allow_changes: bool,
    ) -> Recorder:
        with held.channel.transaction() as connection:
            now = self.database.now(connection)
            values: dict[str, Any] = {
                "process": writable(plan.fingerprint.process_name),
                "origin": json.dumps(dict(origin)),
                "status": "running",
                "error": None,
                "started_at": now,
                "ended_at": None,
                "progress": "{}",
                "cancelling": False,
            }
            if parent == TOP:
                values |= {
                    "token": held.token,
                    "holder": lease.Holder.here().text,
                    "held_since": now,
                    "held_until": now + lease.DURATION_S,
                }
            else:
                holding = select(runs.c.key).where(runs.c.key == held.key, runs.c.token == held.token)
                if connection.execute(holding.with_for_update()).one_or_none() is None:
                    raise RunInUseError(f"run {held.run_id!r} was taken over while this process executed it")
            key, entry = self._entered(connection, parent, place, run_id, plan, values, allow_changes=allow_changes)
        if parent == TOP:
            held = Held(held.channel, key, held.token, run_id)
        return Recorder(
            self.database,
            held,
            key,
            run_id,
            codec=self._codec,
            texts=self._texts,
            shape=plan.shape,
            entry=entry,
            allow_changes=allow_changes,
            begin=self.begin,
        )

    def _entered(
        self,
        connection: Connection,
        parent: int,
        place: str,
        run_id: str,
        plan: _Plan,
        values: dict[str, Any],
        *,
        allow_changes: bool,
    ) -> tuple[int, Entry]:
        """Write the run's row; return its key and what was there before."""
        query = select(runs).where(runs.c.parent == parent, runs.c.id == place).with_for_update()
        row = connection.execute(query).one_or_none()
        if row is None:
            values |= {
                "parent": parent,
                "id": place,
                "codec": self._codec.name,
                "created_at": values["started_at"],
                "executions": 1,
            }
            try:
                answer = connection.execute(insert(runs).values(**values))
            except IntegrityError as error:
                # On a server, two may find at the same time that there is none.
                raise RunInUseError(f"run {run_id!r} has just been begun by another process") from error
            assert answer.inserted_primary_key is not None
            key = answer.inserted_primary_key[0]
            connection.execute(insert(definitions).values(run=key, **plan.written))
            return key, Entry(1)
        _check_free(run_row(row), run_id, values["started_at"])
        if row.codec != self._codec.name:
            raise JournalError(
                f"run {run_id!r} was recorded with codec {row.codec!r} and not {self._codec.name!r}: "
                f"open the journal with codec={row.codec!r}"
            )
        _define(connection, row, run_id, plan, allow_changes=allow_changes)
        values["executions"] = row.executions + 1
        del values["origin"]  # how it was begun, and not how it was gone on with
        connection.execute(update(runs).where(runs.c.key == row.key).values(**values))
        query = select(records.c.task, records.c.element).where(records.c.run == row.key, records.c.state == "failed")
        failed = [(task, element) for task, element in connection.execute(query)]
        completed = (row.started_at, row.ended_at) if row.status == "completed" else None
        return row.key, Entry(row.executions + 1, row.error, row.progress, completed, failed)


def _check(run_id: str) -> None:
    if not isinstance(run_id, str):
        raise TypeError(f"a run id is a string, and not {type(run_id).__name__}")
    if not run_id or len(run_id) > ID_LIMIT:
        raise ValueError(
            f"a run id has 1 to {ID_LIMIT} characters, and this one has {len(run_id):,}: {shown(run_id, 60)}"
        )
    if "\0" in run_id or any("\ud800" <= character <= "\udfff" for character in run_id):
        raise ValueError(f"the run id {run_id!a} has characters that no database keeps")


def _top(connection: Connection, run_id: str) -> RunRow:
    query = select(*RUN).where(runs.c.parent == TOP, runs.c.id == run_id).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise RunUnknownError(f"the journal has no run {run_id!r}")
    return run_row(row)


def _check_free(row: RunRow, run_id: str, now: float) -> None:
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


def _define(connection: Connection, row: Row[Any], run_id: str, plan: _Plan, *, allow_changes: bool) -> None:
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
            maps = before.same_maps(plan.fingerprint, outdated)
            forget_whole(connection, row.key, maps)  # an element is called again only if it is another one
            forget(connection, row.key, outdated - maps)
    if kept._mapping != plan.written:
        connection.execute(update(definitions).where(here).values(**plan.written))


def _check_shared(connection: Connection, row: Row[Any], run_id: str, plan: _Plan, *, allow_changes: bool) -> None:
    """Refuse to go on, or forget, where tasks have changed what they share and only some of them are recorded.

    The others would be called with the object as it was at first.
    """
    here = definitions.c.run == row.key
    noted = read_shared(connection.execute(select(definitions.c.shared).where(here)).scalar_one())
    if not noted:
        return
    whole = select(records.c.task).where(
        records.c.run == row.key, records.c.element == WHOLE, records.c.state == "completed"
    )
    completed = set(connection.execute(whole).scalars())
    halves = [one for one in noted if completed.intersection(one.tasks) and not completed.issuperset(one.tasks)]
    if halves and not allow_changes:
        kind, tasks = halves[0]
        done = next(task for task in tasks if task in completed)
        open_ = next(task for task in tasks if task not in completed)
        raise PlanChangedError(
            f"run {run_id!r} of process {row.process!r} cannot be gone on with: {_named(plan, done)} and "
            f"{_named(plan, open_)} take the same object of type {shown(kind)}, which was changed while the run was "
            f"executed, and only task {done} is recorded: task {open_} would not see the change. Have tasks hand on "
            "what they make as values (process.task), and start under another run id, or with allow_changes=True, "
            "which calls again all that take that object"
        )
    again = {task for one in halves for task in one.tasks}
    if again:
        forget(connection, row.key, again if plan.shape is None else plan.shape.following(again))
    kept = json.dumps([one for one in noted if completed.issuperset(one.tasks)])
    connection.execute(update(definitions).where(here).values(shared=kept))


def _named(plan: _Plan, task: int) -> str:
    fingerprint = plan.fingerprint
    return f"task {task} ({shown(fingerprint.name(task))})" if task < fingerprint.tasks else f"task {task}"
