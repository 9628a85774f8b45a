"""The records of the calls that the tasks of a run make themselves, and how they are written, read and forgotten."""

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from procession._model.record import CallRecord
from procession._model.text import untold
from procession.journal.codec import writable
from procession.journal.held import Held
from procession.journal.removal import forget_calls
from procession.journal.schema import calls, runs
from procession.journal.statements import DIRECT, ROWS, insertion

_FIELDS: Final = tuple("task" if field == "index" else field for field in CallRecord._fields[:-1])
_COLUMNS: Final = ("run", *_FIELDS)

_FORGET_ONE: Final = delete(calls).where(
    calls.c.run == bindparam("of"),
    calls.c.task == bindparam("at"),
    calls.c.element == bindparam("on"),
    calls.c.call == bindparam("the"),
)

# As for the records of tasks: nothing is inserted unless the lease is still the run's.
_INSERT: Final = (
    insert(calls)
    .from_select(
        list(_COLUMNS),
        select(*(bindparam(name, type_=calls.c[name].type) for name in _COLUMNS))
        .select_from(runs)
        .where(runs.c.key == bindparam("held_key"), runs.c.token == bindparam("held_token"))
        .with_for_update(read=True),
    )
    .execution_options(preserve_rowcount=True)
)


class CallRecords:
    """The records of calls that the tasks of one run make themselves."""

    def __init__(self, held: Held, key: int, synchronous_commit: str, *, texts: bool) -> None:
        self._held = held
        self._key = key
        self._synchronous_commit = synchronous_commit
        self._texts = texts

    def commit(self, group: Sequence[CallRecord], *, again: bool = False) -> None:
        """Record all of these or, with an exception, none; `again` says that an earlier try may have recorded them."""
        group = [record if _is_plain(record) else self._clean(record) for record in group]
        self._held.persist(lambda repeated: self._write(group, again=again or repeated))

    def read(self, index: int, element: int) -> list[CallRecord]:
        """Return the recorded calls of a task, or of an element of a map, by their places."""
        c = calls.c
        query = (
            select(*(c[name] for name in _FIELDS))
            .where(c.run == self._key, c.task == index, c.element == element)
            .order_by(c.call)
        )

        def rows(_again: bool) -> list[CallRecord]:
            with self._held.channel.open() as connection:
                return [CallRecord(*row) for row in connection.execute(query)]

        return self._held.persist(rows)

    def forget(self, index: int, element: int, start: int) -> None:
        """Delete the recorded calls of a task, or of an element of a map, from a place on, and runs nested in them."""

        def delete_them(_again: bool) -> None:
            with self._held.channel.transaction() as connection:
                forget_calls(connection, self._key, index, element, start)

        self._held.persist(delete_them)

    def go_on_from(self, index: int, element: int, failed: Collection[int]) -> None:
        """Record that a task, or element, has gone on after these calls have failed: it knew how they had ended."""
        here = calls.c.run == self._key, calls.c.task == index, calls.c.element == element

        def mark(_again: bool) -> None:
            with self._held.channel.transaction() as connection:
                self._held.check(connection)
                connection.execute(update(calls).where(*here, calls.c.call.in_(failed)).values(seen=calls.c.call + 1))

        self._held.persist(mark)

    def _write(self, group: Sequence[CallRecord], *, again: bool) -> None:
        channel = self._held.channel
        stale = [record for record in group if again or record.replaces]
        if stale or len(group) > ROWS:
            with channel.transaction() as connection:
                if stale:
                    places = [{"of": self._key, "at": one.index, "on": one.element, "the": one.call} for one in stale]
                    connection.execute(_FORGET_ONE, places)
                self._insert(connection, group)
        else:
            with channel.open() as connection:
                self._insert(connection, group)

    def _insert(self, connection: Connection, group: Sequence[CallRecord]) -> None:
        backend = connection.dialect.name
        if backend in DIRECT:  # as for the records of tasks
            cursor = connection.connection.cursor()
            written = 0
            for start in range(0, len(group), ROWS):
                part = group[start : start + ROWS]
                values = [value for record in part for value in (self._key, *record[:-1])]
                statement = insertion(_COLUMNS, len(part), backend, self._synchronous_commit, calls)
                cursor.execute(statement, (*values, self._held.key, self._held.token))
                written += cursor.rowcount
            cursor.close()
        else:
            held = {"held_key": self._held.key, "held_token": self._held.token}
            rows = [dict(zip(_COLUMNS, (self._key, *record[:-1]), strict=True)) | held for record in group]
            written = connection.execute(_INSERT, rows).rowcount
        if written != len(group):
            raise self._held.lost(connection)

    def _clean(self, record: CallRecord) -> CallRecord:
        """Return a record with texts that every database takes and, where none are to be kept, without those."""
        error = record.error
        if error is not None:
            error = writable(error) if self._texts else untold(error.partition("\n")[0].partition(":")[0])
        return record._replace(error=error, name=writable(record.name), worker=writable(record.worker))


def _is_plain(record: CallRecord) -> bool:
    return record.error is None and record.name.isprintable() and record.worker.isprintable()
