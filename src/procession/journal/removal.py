"""Taking out of a journal what was recorded: of tasks, or a whole run."""

from collections.abc import Set as AbstractSet

from sqlalchemy import ColumnElement, Connection, bindparam, delete, select

from procession._model.record import WHOLE
from procession.journal.schema import definitions, records, runs


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
    children = connection.execute(select(runs.c.key, runs.c.id).where(runs.c.parent == key)).all()
    for child, place in children:
        if int(place.partition(".")[0]) in tasks:
            remove(connection, child)


def remove(connection: Connection, key: int) -> None:
    """Delete a run, with its records and all that is nested in it."""
    waiting = [key]
    while waiting:
        key = waiting.pop()
        # What is nested in a run began after it; so this ends, whatever a damaged journal says.
        waiting += connection.execute(select(runs.c.key).where(runs.c.parent == key, runs.c.key > key)).scalars()
        connection.execute(delete(records).where(records.c.run == key))
        connection.execute(delete(definitions).where(definitions.c.run == key))
        connection.execute(delete(runs).where(runs.c.key == key))
