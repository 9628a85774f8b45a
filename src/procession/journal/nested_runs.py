"""Runs nested in each other, as a journal has them: found by their ids from the outside in, and by keys back out."""

from sqlalchemy import Connection, select

from procession.errors import JournalError, RunUnknownError
from procession.journal.checked import RUN, RunRow, run_row
from procession.journal.schema import TOP, runs

_DEPTH = 1_000
"""How deep runs are nested in each other, at most."""


def key_of(connection: Connection, run_id: str) -> int:
    """Return the key of a run, or of one nested in it: `run/task`, `run/task.element`, and so on.

    `RunUnknownError` if there is none of that id.
    """
    outer, places = run_id, list[str]()
    while (key := key_within(connection, TOP, outer)) is None:  # an id may have slashes of its own
        outer, slash, place = outer.rpartition("/")
        if not slash:
            break
        places.append(place)
    for place in reversed(places):
        key = None if key is None else key_within(connection, key, place)
    if key is None:
        raise RunUnknownError(f"the journal has no run {run_id!r}")
    return key


def key_within(connection: Connection, parent: int, place: str) -> int | None:
    """Return the key of the run at a place within another one."""
    query = select(runs.c.key).where(runs.c.parent == parent, runs.c.id == place)
    return connection.execute(query).scalar()


def line_of(connection: Connection, key: int) -> list[RunRow]:
    """Return the row of a run, and those of the runs around it, the outermost last.

    `RunUnknownError` if there is none of that key.
    """
    line: list[RunRow] = []
    while key != TOP or not line:
        row = connection.execute(select(*RUN).where(runs.c.key == key)).one_or_none()
        if row is None:
            raise RunUnknownError(f"the journal has no run of key {key}")
        if len(line) == _DEPTH:
            raise JournalError(f"the journal is damaged: run {line[0].key} lies within more than {_DEPTH:,} others")
        line.append(run_row(row))
        key = line[-1].parent
    return line
