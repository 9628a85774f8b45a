"""One run's way into a journal, while this process executes it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from operator import itemgetter
from typing import Final

from sqlalchemy import Connection, bindparam, delete, exists, func, null, select, update

from procession._model.held_back import HeldBack
from procession._model.pickled import pickled
from procession._model.progress import Snapshot
from procession._model.record import WHOLE, Record, Recorded
from procession._model.states import RunStatus
from procession._model.text import untold
from procession._plan.digest import SIMPLE, digest
from procession._plan.fingerprint import Fingerprint
from procession._plan.shape import Shape
from procession._plan.shared import Shared
from procession.errors import DigestError, ResultError
from procession.journal import lease
from procession.journal.beginning import Entry, read_shared
from procession.journal.calls import CallRecords
from procession.journal.codec import Codec, PickleCodec, decoded, encoded, writable
from procession.journal.database import Database
from procession.journal.heartbeat import Heartbeat, HeartbeatThread
from procession.journal.held import Held
from procession.journal.prepared import Prepared
from procession.journal.removal import forget, forget_calls, forget_whole
from procession.journal.replay import Replay
from procession.journal.schema import definitions, records, runs, waits
from procession.journal.statements import COLUMNS, DIRECT, FORGET, INSERT, ROWS, SHORT, insertion
from procession.journal.waits import WaitRecords

_log: Final = itemgetter(-1)

_BEFORE: Final = "\nbefore that: "


class Recorder:
    """Records one run. `commit` is for one thread at a time; everything else may be called from any."""

    def __init__(
        self,
        database: Database,
        heartbeats: HeartbeatThread,
        held: Held,
        key: int,
        run_id: str,
        *,
        codec: Codec,
        texts: bool,
        shape: Shape | None,
        entry: Entry,
        allow_changes: bool,
        begin: "Callable[..., Recorder]",
    ) -> None:
        self._database: Final = database
        self._heartbeats: Final = heartbeats
        self._heartbeat: Heartbeat | None = None
        self._begin: Final = begin
        self.held: Final = held
        self.key: Final = key
        self.run_id: Final = run_id
        self.executions: Final = entry.executions
        self.allow_changes: Final = allow_changes
        self.texts: Final = texts
        self._codec = codec
        self._shape = shape
        self._entry = entry
        self._failed = set(entry.failed)
        self._added = False
        self._at_once = ROWS if database.backend in DIRECT else 1
        self._replay: Final = Replay(
            held,
            key,
            run_id,
            codec=codec,
            shape=shape,
            first=entry.executions == 1,
            allow_changes=allow_changes,
        )
        self._within: tuple[Recorder, int] | None = None

    def begin_nested(
        self, run_id: str, fingerprint: Fingerprint, shape: Shape | None, task: int, element: int, call: int = WHOLE
    ) -> "Recorder":
        """Begin the run that a task of this one, an element of a map, or a recorded call is, or go on with it."""
        within = self, task, element, call
        nested = self._begin(run_id, fingerprint, shape, within=within, allow_changes=self.allow_changes)
        nested._within = self, task
        return nested

    @property
    def calls(self) -> CallRecords:
        """The records of the calls that the run's tasks make themselves."""
        return CallRecords(self.held, self.key, self._database.synchronous_commit, texts=self.texts)

    @property
    def waits(self) -> WaitRecords:
        """What the run's tasks wait for."""
        return WaitRecords(self.held, self.key, self._database.now)

    @property
    def recorded(self) -> Mapping[int, Recorded]:
        """What earlier executions recorded of tasks that succeeded, by task.

        A map's own value is the number of its elements; `None` if an older version recorded it.
        Raises `ResultError` for a value that cannot be read back. Where changes are allowed, a task with such a value,
        or a map with such an element, is no longer recorded, nor are the tasks that follow from it.
        """
        return self._replay.recorded

    def elements(self, index: int, places: range | None = None) -> dict[int, Recorded]:
        """Return the elements of a map that are recorded as completed, by their place; all, or those of `places`.

        Raises `ResultError` for a value that cannot be read back. Where changes are allowed, it is left out.
        """
        return self._replay.elements(index, places)

    def last_element(self, index: int) -> int:
        """Return the place of the last element of a map that an earlier execution recorded, -1 if there is none."""
        return self._replay.last_element(index)

    def digests_inside(self, index: int) -> dict[int, bytes]:
        """Return the digests of a map's elements that have made calls or waited in earlier executions, by place."""
        return self._replay.digests_inside(index)

    def extent(self, index: int) -> tuple[int, int]:
        """Return how many elements of a map earlier executions recorded as completed, and the place after the last."""
        return self._replay.extent(index)

    def forget(self, maps: AbstractSet[int], tasks: AbstractSet[int]) -> None:
        """Delete what is recorded of maps as a whole, but not of their elements, and all that is of other tasks."""

        def delete_them(_again: bool) -> None:
            with self.held.channel.transaction() as connection:
                forget_whole(connection, self.key, maps, self.held.holding())
                forget(connection, self.key, tasks)

        self.held.persist(delete_them)
        self._replay.read_anew()

    def reopen(self, index: int) -> None:
        """Record a task as completed no longer, nor what follows from it, if it is: its value will be another one.

        So it is with the task of the run around that a nested run is. Maps keep their elements.
        """
        if self._within is not None:
            outer, task = self._within
            outer.reopen(task)  # first, or a crash between the two would leave a completed task of an open run
        if index in self.recorded:
            again = {index} if self._shape is None else self._shape.following({index})
            kinds: Mapping[int, str] = {} if self._shape is None else self._shape.kinds
            whole = {index, *(task for task in again if kinds.get(task) == "map")}
            self.forget(whole, again - whole)
            self._replay.leave_out(again)

    def forget_inside(self, index: int, element: int) -> None:
        """Delete the calls that an element has made, the runs nested in them, and what it has waited for."""
        c = waits.c

        def delete_them(_again: bool) -> None:
            with self.held.channel.transaction() as connection:
                self.held.check(connection)
                forget_calls(connection, self.key, index, element, 0)
                connection.execute(delete(waits).where(c.run == self.key, c.task == index, c.element == element))

        self.held.persist(delete_them)

    def forget_elements(self, index: int, start: int) -> None:
        """Delete what is recorded of a map's elements from a place on."""
        if self.allow_changes:
            self.reopen(index)

        def delete_them(_again: bool) -> None:
            with self.held.channel.transaction() as connection:
                for table in records, waits:
                    here = table.c.run == self.key, table.c.task == index, table.c.element >= start
                    connection.execute(delete(table).where(*here, self.held.holding()))

        self.held.persist(delete_them)

    def encode(self, value: object) -> bytes:
        """Return the bytes of a value. Raises `ResultError` if it cannot be recorded, or not be read back."""
        return encoded(self._codec, value)

    def decode(self, data: bytes, where: str) -> object:
        """Return the value of such bytes. Raises `ResultError`, with `where` in its message, if there is none."""
        return decoded(self._codec, data, where)

    @property
    def encode_elsewhere(self) -> Callable[[object], bytes] | None:
        """What makes the bytes of a value in a worker process; `None` where the codec is for this process only."""
        return pickled if type(self._codec) is PickleCodec else None

    def commit(self, group: Sequence[Record], *, again: bool = False) -> None:
        """Record all of these or, with an exception, none: `RunInUseError` if another has taken over the run.

        `again` says that an earlier try failed, and may have recorded them all the same.
        """
        if not self.texts:
            group = [_without_texts(record) for record in group]
        group = [record if _is_plain(record) else _plain(record) for record in group]
        if self.allow_changes:
            for index in {record.index for record in group}:
                self.reopen(index)
        self._added = True
        self.held.persist(lambda repeated: self._write(group, again=again or repeated))

    def is_as_recorded(self, index: int, value: object) -> bool:
        """Return whether a task's value, or the list of a map's, is still what was recorded of it."""
        if type(value) in SIMPLE:
            return True
        query = select(records.c.value).where(
            records.c.run == self.key, records.c.task == index, records.c.element == WHOLE
        )
        with self.held.channel.open() as connection:
            data: bytes | None = connection.execute(query).scalar_one_or_none()
        where = f"run {self.run_id!r}, task {index}"
        try:
            if self._shape is not None and self._shape.kinds.get(index) == "map":
                recorded: object = [one.value for _, one in sorted(self.elements(index).items())]
            elif data is None or self.encode(value) == data:
                return True
            else:  # other bytes may still be of the same value
                recorded = decoded(self._codec, data, where)
            return digest(recorded) == digest(value)
        except (ResultError, DigestError):
            return True  # nobody can tell

    def note_shared(self, shared: Sequence[Shared]) -> None:
        """Record which objects several tasks share and have changed, in addition to those recorded before."""
        here = (definitions.c.run == self.key, self.held.holding())
        with self.held.channel.transaction() as connection:
            noted = read_shared(connection.execute(select(definitions.c.shared).where(*here)).scalar_one_or_none())
            written = json.dumps(list(dict.fromkeys((*noted, *shared))))
            connection.execute(update(definitions).where(*here).values(shared=written))

    def start_heartbeat(
        self,
        snapshot: Callable[[], Snapshot],
        on_cancel: Callable[[], object],
        on_lost: Callable[[Exception], object],
        held_back: Callable[[], list[HeldBack]] = list,
        on_look: Callable[[], object] | None = None,
    ) -> None:
        """Begin to renew the lease and to write what `snapshot` and `held_back` return, until `close`.

        The thread of the journal does so. It calls `on_cancel` when somebody asks the journal to cancel the run, and
        `on_lost`, at the end, when another has taken it over, the journal's file is gone, or the thread fails
        otherwise, and `on_look` each time that it looks after the run. A nested run hangs on the lease of the outer
        one, and its requests are that one's.
        """
        if self.key == self.held.key:
            self._heartbeat = Heartbeat(self, snapshot, on_cancel, on_lost, held_back, on_look)
            self._heartbeats.follow(self._heartbeat)

    def cancelling(self) -> bool:
        """Return whether the run was asked to cancel."""
        with self.held.channel.open() as connection:
            return self._cancelling(connection)

    def renew(self, progress: str) -> bool:
        """Renew the lease and write how far the run is; return what `cancelling` does."""
        with self.held.channel.transaction() as connection:
            now = time.monotonic()
            until = self._database.now(connection) + lease.DURATION_S
            holder = lease.Holder.here(self.held.thread).text
            self._update(connection, _RENEW, held_until=until, progress=progress, holder=holder)
            cancelling = self._cancelling(connection)
        self.held.renewed = now
        return cancelling

    def close(self, status: RunStatus, error: str | None = None) -> None:
        """Record how the run ended and give back the lease. Nothing is left open, whatever this raises."""
        began, ended = None, None
        if status == "completed" and self._entry.completed is not None and not self._added:
            # Nothing was done but to read what is recorded: it says when it ran, and how long that took.
            began, ended = self._entry.completed
        self._close(status, None if error is None else writable(error), None, began, ended)

    def abandon(self, error: str) -> None:
        """Record that the run failed before anything of it was done. Nothing is left open, whatever this raises.

        What it had failed of before stands below the error: that is still what is to be mended in its tasks.
        """
        before = (self._entry.error or "").rpartition(_BEFORE)[2]
        text = f"{writable(error)}{_BEFORE}{before}" if before else writable(error)
        self._close("failed", text, self._entry.progress)

    def _close(
        self,
        status: RunStatus,
        error: str | None,
        progress: str | None,
        began: float | None = None,
        ended: float | None = None,
    ) -> None:
        def write(again: bool) -> None:
            with self.held.channel.transaction() as connection:
                if again and self._is_let_go(connection):
                    return
                end = self._database.now(connection) if ended is None else ended
                values = {"error": error, "progress": progress, "started_at": began, "ended_at": end}
                self._update(connection, _END, status=status, **values)

        if self.key != self.held.key:
            self.held.persist(write)
            return
        is_given_back = False
        try:
            if self._heartbeat is not None:
                progress = self._heartbeat.stop()
            self.held.persist(write)
            is_given_back = True
        finally:
            lease.drop(self.held.token)
            self._database.part(self.held.channel)
            self._heartbeats.part(self._heartbeat)
            self._heartbeat = None  # no cycle may stay
            if not is_given_back:
                self._heartbeats.owe(partial(give_back, self._database, self.held.token))

    def _write(self, group: Sequence[Record], *, again: bool) -> None:
        channel = self.held.channel
        # What was recorded when the connection was dropped can be of this process only, and is recorded anew.
        stale = [(record.index, record.element) for record in group] if self.allow_changes or again else []
        if self._failed and not stale:
            stale = [place for record in group if (place := (record.index, record.element)) in self._failed]
        if stale:
            with channel.transaction() as connection:
                connection.execute(FORGET, [{"of": self.key, "at": task, "on": element} for task, element in stale])
                self._insert(connection, group)
            self._failed.difference_update(stale)
        elif len(group) <= self._at_once:
            with channel.open() as connection:
                self._insert(connection, group)
        else:
            with channel.transaction() as connection:
                self._insert(connection, group)

    def _is_let_go(self, connection: Connection) -> bool:
        """Return whether this execution has given back its lease: nobody else can have done that."""
        query = select(runs.c.key).where(
            runs.c.key == self.held.key, runs.c.token.is_(None), runs.c.executions == self.executions
        )
        return self.key == self.held.key and connection.execute(query).one_or_none() is not None

    def _insert(self, connection: Connection, group: Sequence[Record]) -> None:
        backend = connection.dialect.name
        if backend in DIRECT:
            # The driver itself: SQLAlchemy takes longer to get there than SQLite's commit does. And few statements:
            # each gives up the interpreter's lock and, while others compute, may wait 5 ms to get it back.
            cursor = connection.connection.cursor()
            written = 0
            for start in range(0, len(group), ROWS):
                part = group[start : start + ROWS]
                columns = COLUMNS if any(map(_log, part)) else SHORT
                rest = len(columns) - 1
                values: list[object] = []
                for record in part:
                    values.append(self.key)
                    values += record[:rest]
                statement = insertion(columns, len(part), backend, self._database.synchronous_commit)
                cursor.execute(statement, (*values, self.held.key, self.held.token))
                written += cursor.rowcount
            cursor.close()
        else:
            held = {"held_key": self.held.key, "held_token": self.held.token, "run": self.key}
            written = connection.execute(INSERT, [_by_column(record) | held for record in group]).rowcount
        if written != len(group):
            raise self.held.lost(connection)

    def _cancelling(self, connection: Connection) -> bool:
        row = _LOOK.execute(connection, held_key=self.held.key, held_token=self.held.token).fetchone()
        if row is None:
            raise self.held.lost(connection)
        return bool(row[0])

    def _update(self, connection: Connection, statement: Prepared, **values: object) -> None:
        held = {"run_key": self.key, "held_key": self.held.key, "held_token": self.held.token}
        if statement.execute(connection, **values, **held).rowcount != 1:
            raise self.held.lost(connection)


_holding = runs.alias()
_OURS: Final = (
    runs.c.key == bindparam("run_key"),
    exists().where(_holding.c.key == bindparam("held_key"), _holding.c.token == bindparam("held_token")),
)
_LOOK: Final = Prepared(
    select(runs.c.cancelling).where(runs.c.key == bindparam("held_key"), runs.c.token == bindparam("held_token"))
)
_RENEW: Final = Prepared(
    update(runs).where(*_OURS).values({name: bindparam(name) for name in ("held_until", "progress", "holder")})
)
# A nested run has no lease of its own, so there is nothing to give back.
_END: Final = Prepared(
    update(runs)
    .where(*_OURS)
    .values(
        {
            **{name: bindparam(name) for name in ("status", "error", "ended_at")},
            **{
                column.name: func.coalesce(bindparam(column.name, type_=column.type), column)
                for column in (runs.c.progress, runs.c.started_at)
            },
            "token": null(),
            "held_until": null(),
        }
    )
)


def give_back(database: Database, token: str) -> None:
    """Let go of a run that is not executed any more, and whose end could not be written."""
    with database.writing() as connection:
        connection.execute(update(runs).where(runs.c.token == token).values(token=None))


def _by_column(record: Record) -> dict[str, object]:
    return dict(zip(COLUMNS[1:], record, strict=True))


def _is_plain(record: Record) -> bool:
    return record.error is None and record.name.isprintable() and record.worker.isprintable()


def _plain(record: Record) -> Record:
    error = None if record.error is None else writable(record.error)
    return record._replace(error=error, name=writable(record.name), worker=writable(record.worker))


def _without_texts(record: Record) -> Record:
    # The first word is the type's name.
    error = None if record.error is None else untold(record.error.partition("\n")[0].partition(":")[0])
    return record._replace(error=error, log=None)
