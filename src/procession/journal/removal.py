"""Taking out of a journal what was recorded: of tasks, or a whole run."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final

from sqlalchemy import ColumnElement, Connection, bindparam, delete, select

from procession._model.record import WHOLE
from procession.journal.prepared import Prepared
from procession.journal.schema import calls, definitions, records, runs, waits


def forget_whole(connection: Connection, key: int, maps: AbstractSet[int], *where: ColumnElement[bool]) -> None:
    """Delete what is recorded of maps as a whole, but not of their elements."""
    whole = delete(records).where(
        records.c.run == key, records.c.task == bindparam("gone"), records.c.element == WHOLE, *where
    )
    if maps:
        connection.execute(whole, [{"gone": task} for task in maps])


def forget(connection: Connection, key: int, tasks: AbstractSet[int]) -> None:
    """Delete what is recorded of these tasks of a run, and of the runs nested in them."""
    if not tasks:
        return
    one = delete(records).where(records.c.run == key, records.c.task == bindparam("gone"))
    connection.execute(one, [{"gone": task} for task in tasks])
    for table in calls, waits:
        inside = delete(table).where(table.c.run == key, table.c.task == bindparam("gone"))
        connection.execute(inside, [{"gone": task} for task in tasks])
    for child, (task, _, _) in nested_in(connection, key):
        if task in tasks:
            remove(connection, child)


def forget_calls(connection: Connection, key: int, task: int, element: int, start: int) -> None:
    """Delete the calls that a task, or an element of a map, has recorded from a place on, and the runs nested there."""
    c = calls.c
    connection.execute(delete(calls).where(c.run == key, c.task == task, c.element == element, c.call >= start))
    for child, (at, of, call) in nested_in(connection, key):
        if (at, of) == (task, element) and call >= start:
            remove(connection, child)


def nested_in(connection: Connection, key: int) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Yield the runs that are nested in a run: the key, and the task, element and call that each is."""
    for child, name in connection.execute(select(runs.c.key, runs.c.id).where(runs.c.parent == key)).all():
        place, _, call = name.partition("#")
        task, _, element = place.partition(".")
        yield child, (int(task), int(element or WHOLE), int(call or WHOLE))


_NESTED: Final = Prepared(
    select(runs.c.key).where(runs.c.parent == bindparam("around"), runs.c.key > bindparam("around"))
)
_DELETIONS: Final = tuple(
    Prepared(delete(column.table).where(column == bindparam("gone")))
    for column in (records.c.run, calls.c.run, waits.c.run, definitions.c.run, runs.c.key)
)


def remove(connection: Connection, key: int) -> None:
    """Delete a run, with its records and its nested runs."""
    waiting = [key]
    while waiting:
        key = waiting.pop()
        # What is nested in a run began after it; so this ends, whatever a damaged journal says.
        waiting += [nested for (nested,) in _NESTED.execute(connection, around=key).fetchall()]
        for deletion in _DELETIONS:
            deletion.execute(connection, gone=key)
