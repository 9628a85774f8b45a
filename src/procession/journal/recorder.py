"""One run's way into a journal, while this process executes it."""

import errno
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, delete, exists, func, select, update

from procession._model.pickled import pickled
from procession._model.record import WHOLE, Record, Recorded
from procession._model.states import RunStatus
from procession._model.text import untold
from procession._plan.digest import SIMPLE, digest
from procession._plan.fingerprint import Fingerprint
from procession._plan.shape import Shape
from procession._plan.shared import Shared
from procession.errors import DigestError, JournalError, ProcessionError, ResultError, RunInUseError
from procession.journal import lease
from procession.journal.codec import Codec, PickleCodec, decoded, encoded, writable
from procession.journal.database import Channel, Database
from procession.journal.heartbeat import Heartbeat, Snapshot
from procession.journal.removal import forget, forget_whole
from procession.journal.schema import definitions, records, runs
from procession.journal.statements import COLUMNS, DIRECT, FORGET, INSERT, ROWS, SHORT, insertion

T = TypeVar("T")

_log: Final = itemgetter(-1)

_BEFORE: Final = "\nbefore that: "

PAUSES_S: Final = (0.05, 1.0)
"""How long to wait before connecting again to a server that has dropped the connection: at first, and at most."""


@dataclass
class Held:
    """A lease that this process holds: on a run, and so on all that are nested in it.

    `renewed` is when that was last, by the monotonic clock.
    """

    channel: Channel
    key: int
    token: str
    run_id: str
    renewed: float = field(default_factory=time.monotonic)


class Entry(NamedTuple):
    """What a run's row said before this execution began it, and which of its calls had failed."""

    executions: int
    """How many times it has been begun, this time included."""
    error: str | None = None
    progress: str = "{}"
    completed: tuple[float, float] | None = None
    """When it began and ended, if it has completed."""
    failed: Collection[tuple[int, int]] = ()


class Recorder:
    """Records one run. `commit` is for one thread at a time; everything else may be called from any."""

    def __init__(
        self,
        database: Database,
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
        self._heartbeat: Heartbeat | None = None
        self._recorded: dict[int, Recorded] | None = None

    def begin_nested(
        self, run_id: str, fingerprint: Fingerprint, shape: Shape | None, task: int, element: int
    ) -> "Recorder":
        """Begin the run that a task of this one, or an element of a map (else `WHOLE`), is itself, or go on with it."""
        return self._begin(run_id, fingerprint, shape, within=(self, task, element), allow_changes=self.allow_changes)

    @property
    def recorded(self) -> Mapping[int, Recorded]:
        """What earlier executions recorded of tasks that ended well, by task.

        A map's own value is the number of its elements; `None` if an older version recorded it.
        Raises `ResultError` for a value that cannot be read back. Where changes are allowed, a task with such a value,
        or a map with such an element, is no longer recorded, nor are the tasks that follow from it.
        """
        if self._recorded is None:
            self._recorded, unreadable = self._read(records.c.task, records.c.element == WHOLE)
            if self.allow_changes:
                self._forget_unreadable(self._recorded, unreadable)
        return self._recorded

    def elements(self, index: int) -> dict[int, Recorded]:
        """Return the recorded elements of a map that ended well in earlier executions, by their place.

        Raises `ResultError` for a value that cannot be read back. Where changes are allowed, it is left out.
        """
        return self._elements(index)[0]

    def last_element(self, index: int) -> int:
        """Return the place of the last element of a map that an earlier execution recorded, -1 if there is none."""
        if self.executions == 1:
            return WHOLE
        query = select(func.max(records.c.element)).where(records.c.run == self.key, records.c.task == index)

        def read(_again: bool) -> int:
            with self.held.channel.open() as connection:
                last: int | None = connection.execute(query).scalar_one()
            return WHOLE if last is None else last

        return self.persist(read)

    def extent(self, index: int) -> tuple[int, int]:
        """Return how many elements of a map earlier executions recorded as completed, and the place after the last."""
        if self.executions == 1:
            return 0, 0
        c = records.c
        query = select(func.count(), func.max(c.element)).where(
            c.run == self.key, c.task == index, c.element != WHOLE, c.state == "completed"
        )

        def read(_again: bool) -> tuple[int, int]:
            with self.held.channel.open() as connection:
                count, last = connection.execute(query).one()
            return count, 0 if last is None else last + 1

        return self.persist(read)

    def forget(self, maps: AbstractSet[int], tasks: AbstractSet[int]) -> None:
        """Delete what is recorded of maps as a whole, but not of their elements, and all that is of other tasks."""

        def delete_them(_again: bool) -> None:
            with self.held.channel.transaction() as connection:
                forget_whole(connection, self.key, maps, self._holding())
                forget(connection, self.key, tasks)

        self.persist(delete_them)
        self._recorded = None

    def forget_elements(self, index: int, start: int) -> None:
        """Delete what is recorded of a map's elements from a place on."""
        gone = delete(records).where(
            records.c.run == self.key, records.c.task == index, records.c.element >= start, self._holding()
        )

        def delete_them(_again: bool) -> None:
            with self.held.channel.transaction() as connection:
                connection.execute(gone)

        self.persist(delete_them)

    def encode(self, value: object) -> bytes:
        """Return a value as it will be recorded. `ResultError` for one that cannot be, or not be read back."""
        return encoded(self._codec, value)

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
        self._added = True
        self.persist(lambda repeated: self._write(group, again=again or repeated))

    def persist(self, attempt: Callable[[bool], T]) -> T:
        """Call `attempt` and return its result; within the lease, call it again if the server drops the connection.

        The argument is true if `attempt` was called before: then all of it may have been done, or nothing. If there is
        no connection in time, the first error is raised.
        """
        first: JournalError | None = None
        pause, longest = PAUSES_S
        while True:
            try:
                return attempt(first is not None)
            except JournalError as error:
                if error.errno != errno.ECONNRESET:
                    raise
                first = first or error
                left = self.held.renewed + lease.DURATION_S - time.monotonic()
                if left <= 0:
                    raise first from first.__cause__
            time.sleep(min(pause, left))
            pause = min(2 * pause, longest)

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
        """Note what several tasks take and have changed, beside what was noted before."""
        here = (definitions.c.run == self.key, self._holding())
        with self.held.channel.transaction() as connection:
            noted = read_shared(connection.execute(select(definitions.c.shared).where(*here)).scalar_one_or_none())
            written = json.dumps(list(dict.fromkeys((*noted, *shared))))
            connection.execute(update(definitions).where(*here).values(shared=written))

    def start_heartbeat(
        self,
        snapshot: Callable[[], Snapshot],
        on_cancel: Callable[[], object],
        on_lost: Callable[[ProcessionError], object],
    ) -> None:
        """Begin to renew the lease and to write what `snapshot` returns, in a thread that `close` ends.

        It calls `on_cancel` when somebody asks the journal to cancel the run, and `on_lost`, at the end, when another
        has taken it over or the journal's file is gone. A nested run hangs on the lease of the outer one, and its
        requests are that one's.
        """
        if self.key == self.held.key:
            self._heartbeat = Heartbeat(self, snapshot, on_cancel, on_lost)
            self._heartbeat.start()

    def cancelling(self) -> bool:
        """Return whether somebody has asked for the run to be cancelled."""
        with self.held.channel.open() as connection:
            query = select(runs.c.cancelling).where(runs.c.key == self.held.key, runs.c.token == self.held.token)
            answer = connection.execute(query).scalar_one_or_none()
            if answer is None:
                raise self._lost(connection)
        return bool(answer)

    def renew(self, progress: str) -> bool:
        """Renew the lease and write how far the run is; return what `cancelling` does."""
        with self.held.channel.transaction() as connection:
            now = time.monotonic()
            until = self._database.now(connection) + lease.DURATION_S
            holder = lease.Holder.renewing().text
            self._update(connection, held_until=until, progress=progress, holder=holder)
        self.held.renewed = now
        return self.cancelling()

    def close(self, status: RunStatus, error: str | None = None) -> None:
        """Record how the run ended and give back the lease. Nothing is left open, whatever this raises."""
        values: dict[str, object] = {"status": status, "error": None if error is None else writable(error)}
        if status == "completed" and self._entry.completed is not None and not self._added:
            # Nothing was done but to read what is recorded: it says when it ran, and how long that took.
            values["started_at"], values["ended_at"] = self._entry.completed
        self._close(values)

    def abandon(self, error: str) -> None:
        """Record that the run failed before anything of it was done. Nothing is left open, whatever this raises.

        What it had failed of before stands below the error: that is still what is to be mended in its tasks.
        """
        before = (self._entry.error or "").rpartition(_BEFORE)[2]
        text = f"{writable(error)}{_BEFORE}{before}" if before else writable(error)
        self._close({"status": "failed", "error": text, "progress": self._entry.progress})

    def _close(self, values: dict[str, object]) -> None:
        nested = self.key != self.held.key
        if not nested:
            values |= {"token": None, "held_until": None}

        def write(again: bool) -> None:
            with self.held.channel.transaction() as connection:
                if not (again and self._is_let_go(connection)):
                    self._update(connection, **{"ended_at": self._database.now(connection)} | values)

        try:
            if self._heartbeat is not None:
                values["progress"] = self._heartbeat.stop()
            self.persist(write)
        finally:
            if self._heartbeat is not None:
                self._heartbeat.end()
            if not nested:
                lease.drop(self.held.token)
                self._database.release(self.held.channel)

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
            raise self._lost(connection)

    def _update(self, connection: Connection, **values: object) -> None:
        query = update(runs).where(runs.c.key == self.key, self._holding()).values(**values)
        if connection.execute(query).rowcount != 1:
            raise self._lost(connection)

    def _holding(self) -> ColumnElement[bool]:
        """Say in a statement that the lease is still ours."""
        holding = runs.alias()
        return exists().where(holding.c.key == self.held.key, holding.c.token == self.held.token)

    def _lost(self, connection: Connection) -> RunInUseError:
        query = select(runs.c.holder, runs.c.held_since).where(runs.c.key == self.held.key)
        row = connection.execute(query).one_or_none()
        if row is None:
            return RunInUseError(f"run {self.held.run_id!r} was deleted from the journal while it was executed")
        holder = lease.Holder.read(row.holder)
        return RunInUseError(
            f"run {self.held.run_id!r} was taken over by process {holder.pid} on {holder.host} at "
            f"{lease.moment(row.held_since)}, because it had not been heard of; this process records it no longer"
        )

    def _elements(self, index: int) -> tuple[dict[int, Recorded], list[int]]:
        return self._read(records.c.element, records.c.task == index, records.c.element != WHOLE)

    def _read(self, place: Any, *where: Any) -> tuple[dict[int, Recorded], list[int]]:
        """Return the records by place, and the places whose values cannot be read back."""
        c = records.c
        query = (
            select(place, c.value, c.attempts, c.duration, c.worker, c.digest, c.task, c.element, c.name)
            .where(c.run == self.key, c.state == "completed", *where)
            .order_by(place)
        )

        def read(_again: bool) -> Sequence[Any]:
            with self.held.channel.open() as connection:
                return connection.execute(query).all()

        rows = self.persist(read)
        found: dict[int, Recorded] = {}
        unreadable: list[int] = []
        for at, data, attempts, duration, worker, element_digest, task, element, name in rows:
            try:
                value = None if data is None else self._decoded(data, task, element, name)
            except ResultError:
                if not self.allow_changes:
                    raise
                unreadable.append(at)
            else:
                found[at] = Recorded(value, attempts, duration, worker, element_digest)
        return found, unreadable

    def _decoded(self, data: bytes, task: int, element: int, name: str) -> object:
        place = "" if element == WHOLE else f", element {element}"
        return decoded(self._codec, data, f"run {self.run_id!r}, task {task} ({name}){place}")

    def _forget_unreadable(self, recorded: dict[int, Recorded], tasks: list[int]) -> None:
        """Forget the tasks whose values cannot be read back, and those that follow from them: they are called again.

        A map keeps those of its elements that can be read: as it draws them, it compares their digests.
        """
        gone = {(task, WHOLE) for task in tasks}
        maps = select(records.c.task).where(records.c.run == self.key, records.c.element != WHOLE).distinct()

        def read(_again: bool) -> set[int]:
            with self.held.channel.open() as connection:
                return set(connection.execute(maps).scalars())

        mapped = recorded.keys() & self.persist(read)
        for task in mapped:
            elements = self._elements(task)[1]
            if elements:
                gone |= {(task, element) for element in (WHOLE, *elements)}
        if not gone:
            return
        again = {task for task, _ in gone}
        if self._shape is not None:
            again = self._shape.following(again)
        gone |= {(task, WHOLE) for task in again}

        def delete_them(_again: bool) -> None:
            with self.held.channel.transaction() as connection:
                holding = select(runs.c.key).where(runs.c.key == self.held.key, runs.c.token == self.held.token)
                if connection.execute(holding.with_for_update()).one_or_none() is None:
                    raise self._lost(connection)
                connection.execute(FORGET, [{"of": self.key, "at": task, "on": element} for task, element in gone])

        self.persist(delete_them)
        for task in again:
            recorded.pop(task, None)


def read_shared(written: str | None) -> list[Shared]:
    """Return the notes of a run on objects that several tasks take and have changed."""
    return [Shared(kind, tuple(tasks)) for kind, tasks in json.loads(written or "[]")]


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
